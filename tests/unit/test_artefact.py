import errno
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from distill.errors import BadInput
from distill.files.artefact import (
    Artefact,
    check_model_folder,
    check_unchanged,
    content_hash,
    new_folder,
    read_card,
    restore,
    restore_below,
    revision,
    write_card,
    write_json,
)
from distill.files.outputs import check_output_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestNewFolder:
    def test_puts_the_whole_in_place_at_once(self, tmp_path):
        target = tmp_path / "deep" / "model"
        with new_folder(target) as folder:
            (folder / "a").write_text("1")
            assert not target.exists()
        assert names(target) == ["a"]
        assert names(target.parent) == ["model"]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_leaves_nothing_on_failure(self, tmp_path, error):
        with pytest.raises(error), new_folder(tmp_path / "model") as folder:
            (folder / "a").write_text("1")
            raise error
        assert names(tmp_path) == []

    def test_failure_leaves_what_was_there(self, tmp_path):
        with new_folder(tmp_path / "model") as folder:
            (folder / "old").write_text("1")
        with pytest.raises(RuntimeError), new_folder(tmp_path / "model") as folder:
            (folder / "new").write_text("1")
            raise RuntimeError
        assert names(tmp_path / "model") == ["old"]
        assert names(tmp_path) == ["model"]

    def test_that_cannot_be_put_in_place_leaves_what_was_there(self, tmp_path, monkeypatch):
        with new_folder(tmp_path / "model") as folder:
            (folder / "old").write_text("1")
        rename = os.rename

        def fails(source, target):
            if not str(source).endswith("model") and ".old." not in str(source):
                raise OSError(errno.ENOSPC, "No space left on device")
            rename(source, target)

        monkeypatch.setattr(os, "rename", fails)
        with pytest.raises(OSError, match="No space left"), new_folder(tmp_path / "model") as folder:
            (folder / "new").write_text("1")
        assert names(tmp_path / "model") == ["old"]
        assert names(tmp_path) == ["model"]

    def test_replaces_whole(self, tmp_path):
        for name in ("old", "new"):
            with new_folder(tmp_path / "model") as folder:
                (folder / name).write_text("1")
        assert names(tmp_path / "model") == ["new"]
        assert names(tmp_path) == ["model"]

    def test_clears_what_killed_processes_left_but_not_what_others_write(self, tmp_path):
        dead, alive = tmp_path / ".model.999999999.tmp", tmp_path / f".model.{os.getppid()}.tmp"
        other = tmp_path / ".other.999999999.tmp"
        for folder in (dead, alive, other):
            folder.mkdir()
        with new_folder(tmp_path / "model"):
            pass
        assert names(tmp_path) == sorted([alive.name, other.name, "model"])


class TestRestore:
    """A replacement is two renames; a process may be killed before, between and after them."""

    @pytest.fixture(params=[0, 1, 2, 3])
    def killed(self, request, tmp_path, monkeypatch):
        """A folder whose replacement was killed after so many renames."""
        with new_folder(tmp_path / "model") as folder:
            (folder / "modules.json").write_text("old")
        renamed, rename = [], Path.rename

        def until_killed(path, to):
            if len(renamed) == request.param:
                raise KeyboardInterrupt  # no handler of an error may tidy up
            renamed.append(path)
            return rename(path, to)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", until_killed)
            patched.setattr(shutil, "rmtree", lambda *_, **__: None)
            patched.setattr("distill.files.artefact.os.getpid", lambda: 999_999_999)
            with suppress(KeyboardInterrupt), new_folder(tmp_path / "model") as folder:
                (folder / "modules.json").write_text("new")
        return tmp_path, "old" if request.param < 2 else "new"

    @pytest.mark.parametrize("way", ["read", "write", "check", "run"])
    def test_the_next_command_finds_the_old_folder_or_the_new_one(self, killed, way):
        place, expected = killed
        if way == "read":
            with pytest.raises(BadInput, match="model"):  # no whole model, but found
                check_model_folder(place / "model")
        elif way == "check":
            with pytest.raises(BadInput, match="holds an earlier result"):
                check_output_folder(place / "model", ours=["modules.json"])
        elif way == "run":
            restore_below(place.parent)
        else:
            with pytest.raises(RuntimeError), new_folder(place / "model"):
                raise RuntimeError
            assert names(place) == ["model"]
        assert (place / "model" / "modules.json").read_text() == expected

    def test_what_another_container_writes_is_left_alone_for_a_day(self, tmp_path):
        fresh, stale = (tmp_path / f".model.999999999-1-{place}.tmp" for place in ("0" * 8, "1" * 8))
        for folder in (fresh, stale):
            folder.mkdir()
        os.utime(stale, (0, 0))
        with new_folder(tmp_path / "model"):
            pass
        assert names(tmp_path) == [fresh.name, "model"]

    def test_a_folder_that_comes_back_meanwhile_is_replaced(self, tmp_path, monkeypatch):
        with new_folder(tmp_path / "model") as folder:
            (folder / "old").touch()
        rename = Path.rename

        def interrupted(path, to):
            done = rename(path, to)
            if path == tmp_path / "model":
                monkeypatch.setattr(Path, "rename", rename)
                restore(path)  # by another process
            return done

        monkeypatch.setattr(Path, "rename", interrupted)
        with new_folder(tmp_path / "model") as folder:
            (folder / "new").touch()
        assert names(tmp_path / "model") == ["new"] and names(tmp_path) == ["model"]


class TestHashes:
    def test_content_hash_knows_values_not_key_order(self):
        assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
        hashes = {
            content_hash(value) for value in ({"a": 1}, {"a": "1"}, {"a": [1]}, {"b": 1}, {"a": None}, {"a": 1.5})
        }
        assert len(hashes) == 6
        assert all(len(value) == 16 for value in hashes)

    def test_revision_changes_with_content_and_names(self, bi_folder, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(bi_folder, folder)
        first = revision(folder)
        assert first == revision(bi_folder)
        (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
        second = revision(folder)
        (folder / "more.txt").write_text("")
        third = revision(folder)
        (folder / "more.txt").rename(folder / "other.txt")
        assert len({first, second, third, revision(folder)}) == 4

    def test_revision_takes_a_name_that_is_not_utf_8(self, tmp_path):
        (tmp_path / "a").touch()
        before = revision(tmp_path)
        (tmp_path / os.fsdecode(b"\xff")).touch()
        assert revision(tmp_path) != before

    def test_revision_ignores_what_describes_the_model(self, bi_folder, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(bi_folder, folder)
        (folder / "README.md").write_text("# about")
        (folder / "artefact.json").write_text("{}")
        (folder / ".cache").mkdir()
        (folder / ".cache" / "x").write_text("x")
        assert revision(folder) == revision(bi_folder)


class TestCard:
    def test_is_read_back_with_revision_and_versions(self, bi_folder, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(bi_folder, folder)
        written = write_card(
            folder, Artefact(kind="bi_encoder", stage="x", fingerprint="f", parents={"a": "b"}, metrics={"한": 1.5})
        )
        assert read_card(folder) == written
        assert written.revision == revision(folder)
        assert {"modules.json", "1_Pooling/config.json"} <= set(written.files)
        assert not {"artefact.json", "README.md"} & set(written.files)
        assert {"torch", "transformers", "sentence-transformers"} <= set(written.versions)

    def test_of_a_folder_from_elsewhere_is_none(self, tmp_path):
        assert read_card(tmp_path) is None

    @pytest.mark.parametrize("side", ["both", ["query"], None])
    def test_of_a_side_that_pairs_do_not_have_is_refused(self, tmp_path, side):
        details = {"asymmetric": {"side": side}}
        write_card(tmp_path, Artefact("bi_encoder", "train_student", "0123456789abcdef", details=details))
        with pytest.raises(BadInput, match="is not a card of this toolkit .side .* of pairs"):
            read_card(tmp_path)

    @pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', "3", "null"])
    def test_that_is_none_of_ours_is_refused(self, tmp_path, content):
        (tmp_path / "artefact.json").write_text(content)
        with pytest.raises(BadInput, match="is not a card of this toolkit"):
            read_card(tmp_path)

    def test_of_a_finished_teacher_says_what_went_in(self, trained, cross_folder):
        card = read_card(cross_folder)
        assert (card.kind, card.stage, card.revision) == ("cross_encoder", "train_teacher", revision(cross_folder))
        assert card.recipe["name"] == "tiny"
        assert card.data == trained.split.describe()
        assert card.details["n_processes"] == 1
        assert card.fingerprint == content_hash(card.details["inputs"])

    def test_holds_a_folder_to_its_files(self, bi_folder, tmp_path):
        folder = shutil.copytree(bi_folder, tmp_path / "model")
        write_card(folder, Artefact("bi_encoder", "export", "f"))
        (folder / "README.md").write_text("a card of one's own")
        check_unchanged(folder)
        config = folder / "config.json"
        whole = config.read_bytes()
        config.write_bytes(b"{}")
        with pytest.raises(BadInput, match="was changed or damaged after it was made: its files are of revision"):
            check_unchanged(folder)
        config.write_bytes(whole)
        (folder / "2_Dense").mkdir(exist_ok=True)
        (folder / "2_Dense" / "notes").touch()
        with pytest.raises(BadInput, match="was changed or damaged after it was made"):
            check_unchanged(folder)
        (folder / "artefact.json").unlink()
        check_unchanged(folder)  # nobody says what it should be

    def test_json_with_nan_is_never_written(self, tmp_path):
        with pytest.raises(ValueError, match="Out of range float"):
            write_json(tmp_path / "x.json", {"a": float("nan")})
        assert not (tmp_path / "x.json").exists()


CROSS_PIECES = [
    "modules.json",
    "config.json",
    "model.safetensors",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "3_Dense/config.json",
    "3_Dense/model.safetensors",
]


class TestModelFolder:
    def test_kind_is_told(self, bi_folder, cross_folder):
        assert check_model_folder(bi_folder) == "bi_encoder"
        assert check_model_folder(cross_folder) == "cross_encoder"

    @pytest.mark.parametrize("piece", CROSS_PIECES)
    def test_each_missing_piece_is_named(self, cross_folder, tmp_path, piece):
        folder = tmp_path / "model"
        shutil.copytree(cross_folder, folder)
        (folder / piece).unlink()
        with pytest.raises(BadInput) as caught:
            check_model_folder(folder)
        assert piece in str(caught.value)
        assert str(folder) in str(caught.value)

    def test_missing_settings_are_named_where_the_card_names_them(self, cross_folder, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(cross_folder, folder)
        settings = [name for name in read_card(folder).files if name.endswith(".json")]
        assert {"config_sentence_transformers.json", "tokenizer_config.json"} <= set(settings)
        for name in settings:
            kept = (folder / name).read_bytes()
            (folder / name).unlink()
            with pytest.raises(BadInput, match=name.rpartition("/")[2]):
                check_model_folder(folder)
            (folder / name).write_bytes(kept)
        assert check_model_folder(folder) == "cross_encoder"

    def test_settings_that_changed_are_said_and_not_refused(self, cross_folder, tmp_path, caplog):
        folder = tmp_path / "model"
        shutil.copytree(cross_folder, folder)
        check_model_folder(folder)
        assert not caplog.records
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        del config["num_attention_heads"]  # transformers takes its default, and the numbers are others
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        check_model_folder(folder)
        assert f"{folder}: config.json changed since the folder was made" in caplog.text

    def test_missing_tokenizer_is_named(self, bi_folder, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(bi_folder, folder)
        (folder / "tokenizer.json").unlink()  # tokenizer_config.json alone makes no tokenizer
        with pytest.raises(BadInput, match=r"any of tokenizer\.json, vocab\.txt, .* is missing"):
            check_model_folder(folder)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(BadInput, match="is no model folder: there is no such directory"):
            check_model_folder(tmp_path / "none")

    def test_a_file(self, tmp_path):
        (tmp_path / "student").write_text("x")
        with pytest.raises(BadInput, match="is no model folder: it is a file; name a folder"):
            check_model_folder(tmp_path / "student")

    def test_a_run_says_which_models_it_holds_and_how_to_have_the_fastest(self, tmp_path):
        for name in ("exports/onnx-int8", "exports/openvino-fp32", "student", "teachers/bi", ".work/x"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "modules.json").touch()
        with pytest.raises(BadInput) as caught:
            check_model_folder(tmp_path)
        assert str(caught.value).endswith(
            "in it are exports/onnx-int8, exports/openvino-fp32, student, teachers/bi: name one of them; distill score "
            "and embed, and load in Python, also open the fastest one here by precision auto"
        )
        with pytest.raises(BadInput, match="in it are onnx-int8, openvino-fp32: .* precision auto$"):
            check_model_folder(tmp_path / "exports")
        with pytest.raises(BadInput, match="in it are bi: name one of them$"):
            check_model_folder(tmp_path / "teachers")

    @pytest.mark.parametrize("piece", ["modules.json", "config_sentence_transformers.json"])
    def test_damaged_json_is_named(self, bi_folder, tmp_path, piece):
        folder = tmp_path / "model"
        shutil.copytree(bi_folder, folder)
        (folder / piece).write_text("{")
        with pytest.raises(BadInput, match=f"{piece} is not valid JSON"):
            check_model_folder(folder)

    def test_pieces_are_the_ones_that_are_written(self, cross_folder):
        # if sentence-transformers writes another piece one day, the list above is to learn of it
        written = {str(path.relative_to(cross_folder)) for path in cross_folder.rglob("*") if path.is_file()}
        described = {"artefact.json", "README.md", "config_sentence_transformers.json", "sentence_bert_config.json"}
        tokenizer = {name for name in written if name.startswith(("tokenizer", "special_tokens", "vocab"))}
        assert written - described - tokenizer == set(CROSS_PIECES)

    def test_module_list_is_valid_json_of_stock_modules(self, cross_folder):
        modules = json.loads((cross_folder / "modules.json").read_text())
        assert all(module["type"].startswith("sentence_transformers.") for module in modules)
