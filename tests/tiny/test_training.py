def test_t(trained, bi_folder):
    assert bi_folder.is_dir()
