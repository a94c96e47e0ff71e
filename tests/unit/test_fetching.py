"""Public sets come from a folder as the files that recipes name; what is missing names the command that gets it."""

import csv
import gzip
import sys

import pytest
import yaml

from distill.data.fetching import fetch
from distill.data.public_sets import PUBLIC_SETS, advice_for
from distill.data.tables import read_columns
from distill.errors import BadInput
from recipes.cli import main
from tests.conftest import ROOT

ROWS = [("5.000", 'a "quoted" text', "back\\slash"), ("0", "한 남자", "two, three")]


def write(path, rows=ROWS, columns=("score", "sentence1", "sentence2")):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines("\t".join(row) + "\n" for row in [columns, *rows])


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


def test_a_folder_gives_what_the_recipes_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "dev"):
        write(tmp_path / f"held/stsb_en/stsb_{part}.tsv.gz")
    assert main(["fetch-data", "stsb", "--from", "held"]) == 0
    assert "stsb: data/stsb_en/train.csv (2 rows), data/stsb_en/dev.csv (2 rows), from held/" in capsys.readouterr().err
    assert rows_of(tmp_path / "data/stsb_en/train.csv") == [("score", "sentence1", "sentence2"), *ROWS]
    read = read_columns("data/stsb_en/train.csv", ["sentence1", "sentence2"])
    assert list(zip(*read.values(), strict=True)) == [row[1:] for row in ROWS]

    assert main(["fetch-data", "stsb", "--from", "held"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["fetch-data", "stsb", "--from", "held", "--overwrite"]) == 0


def test_the_original_files_of_a_collection_are_known_by_their_names(tmp_path):
    header = ("genre", "filename", "year", "id", "score", "sentence1", "sentence2")
    for part in ("train", "dev"):
        rows = [("g", "f", "2015", "1", *row) for row in [*ROWS, ("3", "", "nothing beside it")]]
        write(tmp_path / f"KorSTS/sts-{part}.tsv.gz", rows, header)
    said = fetch("korsts", tmp_path / "data", source=tmp_path / "KorSTS")
    assert said.endswith("; 2 rows without a text were left out")
    assert rows_of(tmp_path / "data/korsts/dev.csv")[1:] == ROWS


def test_nothing_is_written_where_a_part_is_missing(tmp_path):
    write(tmp_path / "held/stsb_train.tsv.gz")
    with pytest.raises(BadInput, match=r"holds dev.csv or stsb_dev.csv \(or the same as .tsv"):
        fetch("stsb", tmp_path / "data", source=tmp_path / "held")
    assert not (tmp_path / "data").exists()


def test_without_a_network_it_is_one_line_that_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert main(["fetch-data", "korsts"]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert "korsts: dkoterwa/kor-sts cannot be had from the hub (" in err[-1]
    assert err[-1].endswith("where a folder holds it: distill fetch-data korsts --from FOLDER")
    assert not (tmp_path / "data").exists()


def test_the_hubs_columns_become_ours(tmp_path, monkeypatch):
    """A dataset on disk in the hub's place: its columns are read by their names there."""
    import datasets

    from distill.data import public_sets

    held = datasets.DatasetDict(
        {"train": datasets.Dataset.from_dict({"english": ["a", "b"], "non_english": ["가", ""]})}
    )
    held["train"].to_parquet(str(tmp_path / "hub/data/train-00000-of-00001.parquet"))
    one = PUBLIC_SETS["ko_en"]
    local = public_sets.PublicSet(**{**vars(one), "hub": str(tmp_path / "hub"), "configuration": None})
    monkeypatch.setitem(PUBLIC_SETS, "ko_en", local)
    said = fetch("ko_en", tmp_path / "data")
    assert rows_of(tmp_path / "data/ko_en_parallel/train.csv") == [("ko", "en"), ("가", "a")]
    assert "1 rows without a text were left out" in said and "on the hub, CC BY 2.0" in said


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("mnli", None, "no such set; accepted: stsb, korsts, ko_en"),
        ("stsb", "nowhere", "--from nowhere: no such folder"),
    ],
)
def test_what_is_not_there_is_named(name, source, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fetch-data", name, *([] if source is None else ["--from", source])]) == 2
    assert says in capsys.readouterr().err


def test_a_missing_file_of_a_recipe_names_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="^data/korsts/train.csv: no such file; distill fetch-data korsts writes it$"):
        read_columns("data/korsts/train.csv", ["sentence1"])
    assert advice_for(tmp_path / "stsb_en/dev.csv") == f"; distill fetch-data stsb -o {tmp_path} writes it"


def test_recipes_read_only_what_is_bundled_fetched_or_the_users_own():
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        said = "\n".join(line for line in text.splitlines() if line.startswith("#"))  # how a reader makes a file
        data = yaml.safe_load(text).get("data", {})
        sources = [data.get("train"), data.get("evaluation")]
        sources += [one.get("path") for key in ("parallel", "unlabelled") for one in data.get(key) or []]
        for source in filter(None, sources):
            assert "shared" not in source
            if source.startswith("data/"):
                assert advice_for(type(ROOT)(source)) or source in said, (
                    f"{path.name} reads {source}, which fetch-data does not write"
                )


def test_a_packaged_recipe_goes_by_its_name(tmp_path, monkeypatch, capsys):
    from distill.recipe.reading import load_recipe

    monkeypatch.chdir(tmp_path)
    assert load_recipe("quickstart", ["output_dir=x"]).name == "quickstart"
    assert load_recipe("quickstart.yaml").name == "quickstart"
    (tmp_path / "quickstart").write_text("name: mine\ndata: {train: bundled}\n", encoding="utf-8")
    assert load_recipe("quickstart").name == "mine"  # a file of one's own comes first
    assert main(["benchmark", "korsts", "data.nothing=1"]) == 2
    assert "korsts: 1 problem" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("torch.nn", "the package torch, which is not installed here: pip install torch, or pip install matchdistill"),
        (
            "openai",
            "the package openai, which is not installed here: pip install openai, or pip install 'matchdistill[synthesis]'",
        ),
        ("sklearn", "the package scikit-learn, which is not installed here"),
    ],
)
def test_a_missing_package_is_one_line_and_exit_code_2(module, says, monkeypatch, capsys):
    from recipes._launch import guarded

    def work():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    assert guarded(work) == 2
    err = capsys.readouterr().err
    assert says in err and len(err.strip().splitlines()) == 1


def test_a_module_of_our_own_that_is_missing_is_no_missing_package():
    from recipes._launch import guarded

    with pytest.raises(ModuleNotFoundError):
        guarded(lambda: __import__("distill.nowhere"))


def test_a_torch_model_without_torch_says_so(monkeypatch):
    from distill.errors import loading

    with pytest.raises(BadInput, match="^model: this needs the package torch"), loading("model"):
        monkeypatch.setitem(sys.modules, "torch", None)
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
