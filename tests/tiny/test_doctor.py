"""The doctor on a whole run: a clean one has no problem, and what was planted in it afterwards is found."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

from distill.evaluation.benchmark import make_baseline
from distill.recipe.schema import Recipe
from distill.run import Run
from distill.scorers.opening import open_scorer
from distill.signals import SignalCache, pair_keys
from recipes.cli import main
from recipes.commands import _read_data_without_notes
from teachers import cache_signals, train_teachers
from teachers.doctor import _temperature, diagnose
from tests.conftest import pairs_file

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def made(bert_bi, tmp_path_factory):
    """A run with a frozen teacher and its signals."""
    folder = tmp_path_factory.mktemp("doctor")
    run = Run(recipe(bert_bi, folder / "run"))
    train_teachers(run)
    cache_signals(run)
    return folder / "run", bert_bi


def recipe(backbone, folder, **match):
    return Recipe.model_validate(
        {
            "name": "doctor",
            "data": {"train": pairs_file(), "validation_share": 0.3},
            "teachers": {"t": {"kind": "bi_encoder", "backbone": str(backbone), "frozen": True, "max_length": 96}},
            "signals": {"allow_unrelated": True},
            "student": {"kind": "bi_encoder", "backbone": {"teacher": "t"}, "layers": [0], "max_length": 96},
            "objectives": {"score_match": {"teacher": "t", "loss": "bce", **match}},
            "output_dir": str(folder),
        }
    )


def planted(made, tmp_path, **match):
    folder, backbone = made
    shutil.copytree(folder, tmp_path / "run")
    return Run(recipe(backbone, tmp_path / "run", **match))


def rewrite(run, change):
    """Put other scores into the cache, as a tool that pairs rows wrongly would."""
    cache, train = SignalCache(run.signals("t"), run.signal_identity("t")), run.split.train
    keys = pair_keys(train.queries, train.documents)
    scores = cache.read("scores", cache.find("scores", keys, "scores"))
    for shard in cache.folder.glob("scores-*"):
        shard.unlink()
    cache.refresh()
    cache.write("scores", keys, change(scores))


def problems(run):
    return {finding.check for finding in diagnose(run).findings if finding.level == "problem"}


def test_signals_of_other_rows_are_found(made, tmp_path):
    """Other faults of numbers are in tests/unit/test_diagnosis.py; here the cache is read and the teacher asked."""
    run = planted(made, tmp_path)
    assert not problems(run) & {"stored signals", "scale", "finite", "constant", "teacher"}
    rewrite(run, np.random.default_rng(0).permutation)
    assert "stored signals" in problems(run)
    (shard,) = SignalCache(run.signals("t"), run.signal_identity("t")).folder.glob("scores-*")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert any("damaged" in finding.says for finding in diagnose(run).findings if finding.level == "problem")


def test_a_teacher_whose_weights_were_replaced_is_found(made, tmp_path):
    run = planted(made, tmp_path)
    (path,) = run.teacher("t").rglob("*.safetensors")
    weights = load_file(path)
    save_file({name: value + 0.3 * torch.randn_like(value) for name, value in weights.items()}, path)  # the card stays
    assert "stored signals" in problems(run)


def test_the_command_prints_findings_writes_suspects_and_ends_with_1(made, tmp_path, capsys):
    folder, backbone = made
    text = recipe(backbone, folder).model_dump_json(exclude_none=True)
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    command = ["doctor", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "found")]
    code = main([*command, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert code == (1 if said["n_problems"] else 0)
    assert json.loads((tmp_path / "found" / "doctor.json").read_text()) == said
    lines = (tmp_path / "found" / "suspects.tsv").read_text(encoding="utf-8").splitlines()
    columns = ["teacher", "training_pair", "query", "document", "label", "score"]
    assert lines[0].split("\t") == columns and len(lines) == 51
    train, first = Run(recipe(backbone, folder)).split.train, dict(zip(columns, lines[1].split("\t"), strict=True))
    place = int(first["training_pair"]) - 1
    assert [train.queries[place], train.documents[place]] == [first["query"], first["document"]]
    assert main(command) == 2  # it exists: --overwrite replaces it
    hot = main(["doctor", str(tmp_path / "recipe.yaml"), "objectives.score_match.temperature=100"])
    printed = capsys.readouterr()
    assert hot == 1 and "problem  temperature" in printed.out and "would learn nothing" in printed.err


def test_notes_on_the_data_are_said_once(tmp_path, caplog):
    def read_data():
        for line in ("a note", "another warning"):
            logging.getLogger("distill.data.pairs").warning(line)

    run = SimpleNamespace(read_data=read_data, stages=[SimpleNamespace(split=SimpleNamespace(notes=("a note",)))])
    _read_data_without_notes(run)
    assert caplog.messages == ["another warning"]


@pytest.mark.parametrize(
    ("match", "advice"),
    [
        ({"temperature": 100}, "set score_match.temperature to about"),
        ({"teacher_temperature": 100}, "set score_match.teacher_temperature to about"),
        ({"loss": "mse"}, "set score_match.loss to bce and score_match.temperature to about"),
    ],
)
def test_the_advice_on_a_temperature_can_be_followed(bert_bi, tmp_path, match, advice):
    near = np.random.default_rng(0).normal(0.0, 1e-3, 240).astype(np.float32)  # cosines that look alike
    run = Run(recipe(bert_bi, tmp_path / "run", **match))
    (finding,) = _temperature(run.recipe, "t", near, run.split.train)
    assert finding.level == "problem" and finding.advice.startswith(advice)


def test_labelling_says_which_script_the_teacher_cannot_read(bert_bi, tmp_path, caplog):
    rows = [f"ไทย {number}\tภาษา {number} งาน\t{number % 2}" for number in range(60)]
    (tmp_path / "thai.tsv").write_text("\n".join(["query\tdocument\tlabel", *rows]) + "\n", encoding="utf-8")
    stated = recipe(bert_bi, tmp_path / "run")
    run = Run(stated.model_copy(update={"data": stated.data.model_copy(update={"train": str(tmp_path / "thai.tsv")})}))
    train_teachers(run)
    cache_signals(run)
    (line,) = (line for line in caplog.messages if "tokenizer" in line)
    assert (
        line.startswith("teacher t: ") and "texts in thai are unknown to its tokenizer; take a teacher of this" in line
    )


def test_a_teacher_that_is_not_there_yet_is_said_and_a_frozen_one_is_opened(bert_bi, tmp_path):
    stated = recipe(bert_bi, tmp_path / "run")
    teachers = stated.teachers
    trained = stated.model_copy(update={"teachers": {"t": teachers["t"].model_copy(update={"frozen": False})}})
    assert any("not trained yet" in finding.says for finding in diagnose(Run(trained)).findings)
    of_the_teacher = {found.check for found in diagnose(Run(stated)).findings if found.about == "teacher t"}
    assert {"unrelated to labels", "under TF-IDF", "cut texts", "signals"} <= of_the_teacher
    assert not (tmp_path / "run").exists()


def test_the_floor_is_that_of_the_report(bert_bi, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(Path(pairs_file()).read_text(encoding="utf-8").split()[:300]) + "\n", encoding="utf-8")
    given = recipe(bert_bi, tmp_path / "run").model_dump(mode="json", by_alias=True)
    given["data"]["unlabelled"] = [{"path": str(texts)}]
    given["objectives"]["similarity"] = {"teacher": "t"}
    given["benchmark"]["baselines"] = {"tfidf": {"kind": "tfidf"}}
    run = Run(Recipe.model_validate(given))
    (finding,) = (finding for finding in diagnose(run).findings if finding.check == "floor")
    make_baseline(run, "tfidf")
    train = run.split.train
    scores = open_scorer(run.baseline("tfidf")).score(train.queries, train.documents)
    assert finding.numbers["spearman"] == pytest.approx(spearmanr(scores, train.labels).statistic, abs=1e-9)


@pytest.mark.parametrize(("objectives", "level"), [({"cosent": {}}, "problem"), ({}, "warning")])
def test_labels_that_do_not_differ_are_a_problem_of_whoever_learns_them(bert_bi, tmp_path, objectives, level):
    lines = [line.split("\t") for line in Path(pairs_file()).read_text(encoding="utf-8").splitlines()]
    alike = tmp_path / "alike.tsv"
    alike.write_text(
        "".join("\t".join([*line[:2], "1" if row else line[2]]) + "\n" for row, line in enumerate(lines)),
        encoding="utf-8",
    )
    given = recipe(bert_bi, tmp_path / "run").model_dump(mode="json", by_alias=True)
    given["data"]["train"] = str(alike)
    given["objectives"] |= objectives
    run = Run(Recipe.model_validate(given))
    assert [one.level for one in diagnose(run).findings if one.check == "labels alike"] == [level]
