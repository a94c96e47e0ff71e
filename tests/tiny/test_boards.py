"""`distill evaluate`: MTEB's numbers of our models, without a hub."""

import json
import shutil
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.evaluation import benchmark
from distill.evaluation.boards import board_models, evaluate_on_boards, models_at, pairs_task, tasks_named
from distill.files.artefact import revision
from distill.report.board_scores import (
    BoardScore,
    board_scores,
    check_board_places,
    store_board_scores,
    with_board_scores,
)
from distill.runtime import load
from recipes.cli import main
from tests.conftest import make_run

pytestmark = [
    pytest.mark.slow,  # MTEB's import alone takes seven seconds
    # found, not imported: that takes three seconds of each test process
    pytest.mark.skipif(find_spec("mteb") is None, reason="mteb is not installed: pip install 'matchdistill[mteb]'"),
    pytest.mark.filterwarnings("ignore"),  # MTEB's own
]


def pairs(labels, n=40):
    queries = [f"python engineer number {i} in Seoul" for i in range(n)]
    documents = [f"{'python' if i % 2 else 'cook'} wanted, offer {i * 7 % 11}" for i in range(n)]
    return Pairs(queries, documents, np.asarray([labels(i) for i in range(n)], dtype=np.float32))


def score_of(folder, task, results, **options):
    """The score of one model on one task."""
    return evaluate_on_boards({"a": folder}, [task], results, **options)["a"][0]


def test_graded_pairs_are_sts_with_the_correlation_of_our_scores(bert_bi, tmp_path):
    graded = pairs(lambda i: (i * 3 % 7) / 7)
    result = score_of(bert_bi, pairs_task("graded", graded), tmp_path)
    own = spearmanr(load(bert_bi).score(graded.queries, graded.documents), graded.labels).statistic
    assert (result.task, result.metric, result.type) == (
        "graded",
        "cosine_spearman",
        "STS",
    ) and result.score == pytest.approx(own, abs=1e-6)
    [path] = tmp_path.glob("results/local__a/*/graded.json")
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["scores"]["test"][0]["main_score"] == pytest.approx(own, abs=1e-6)
    path.write_text(path.read_text(encoding="utf-8").replace(str(stored["scores"]["test"][0]["main_score"]), "0.125"))
    again = score_of(bert_bi, pairs_task("graded", graded), tmp_path)
    assert again.score == 0.125  # what is there is not computed again


def test_a_result_of_other_data_or_half_a_file_is_no_result(bert_bi, tmp_path):
    def score(labels, **options):
        result, fresh = (
            score_of(bert_bi, pairs_task("graded", pairs(labels)), tmp_path / place, **options)
            for place in ("one", str(len(seen)))
        )
        assert result.score == fresh.score
        seen.append(result.score)

    seen = []
    score(lambda i: (i * 3 % 7) / 7)
    score(lambda i: (i * 5 % 11) / 11)
    score(lambda i: (i * 5 % 11) / 11, max_length=8)
    assert len(set(seen)) == 3
    for path in (tmp_path / "one").glob("results/local__a/*/graded.json"):
        path.write_text("{", encoding="utf-8")
    score(lambda i: (i * 5 % 11) / 11)
    assert seen[3] == seen[1]


def test_pairs_of_zeros_and_ones_are_classified(bert_bi, tmp_path):
    from sklearn.metrics import average_precision_score

    binary = pairs(lambda i: float(i % 3 == 0))
    result = score_of(bert_bi, pairs_task("binary", binary), tmp_path)
    own = average_precision_score(binary.labels, load(bert_bi).score(binary.queries, binary.documents))
    assert result.metric == "max_ap" and result.score >= own - 1e-6


def test_each_side_has_its_prompt(bert_bi, tmp_path):
    folder = shutil.copytree(bert_bi, tmp_path / "prompted")
    path = folder / "config_sentence_transformers.json"
    prompts = {"query": "Python Django: ", "document": ""}
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "prompts": prompts}), encoding="utf-8")
    graded = pairs(lambda i: (i * 3 % 7) / 7)
    result = score_of(folder, pairs_task("graded", graded), tmp_path / "results")
    scorer = load(folder)
    left, right = scorer.encode_queries(graded.queries), scorer.encode_documents(graded.documents)
    assert result.score == pytest.approx(spearmanr((left * right).sum(axis=1), graded.labels).statistic, abs=1e-6)


def test_models_of_a_run(tmp_path, bert_bi):
    for place in ("built", "student", "exports/onnx-int8", "teachers/bi"):
        (tmp_path / "run" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / place).symlink_to(bert_bi)
    assert list(board_models(tmp_path / "run")) == [
        "run/teachers/bi",
        "run/untrained",
        "run/student",
        "run/exports/onnx-int8",
    ]
    assert list(board_models(tmp_path / "run" / "student")) == [f"{bert_bi.parent.name}/{bert_bi.name}"]  # a link
    (tmp_path / "run" / "stages" / "general").mkdir(parents=True)
    (tmp_path / "run" / "stages" / "general" / "student").symlink_to(bert_bi)
    assert "run/stages/general/student" in board_models(tmp_path / "run")


def test_what_cannot_be_evaluated(tmp_path, bert_cross, capsys):
    with pytest.raises(BadInput, match="is a cross-encoder, and graded compares embeddings"):
        evaluate_on_boards({"cross": bert_cross}, [pairs_task("graded", pairs(lambda i: i / 40))], tmp_path)
    with pytest.raises(BadInput, match="all 40 labels are alike"):
        pairs_task("alike", pairs(lambda i: 1.0))
    with pytest.raises(BadInput, match="2 labelled pairs; 3 at least are needed"):
        pairs_task("few", pairs(lambda i: i / 2, n=2))
    with pytest.raises(BadInput, match=r"two tasks have one name \(graded\)"):
        evaluate_on_boards({"a": bert_cross}, [pairs_task("graded", pairs(lambda i: i / 40))] * 2, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="file cannot be a folder of results"):
        evaluate_on_boards({"a": bert_cross}, [pairs_task("graded", pairs(lambda i: i / 40))], tmp_path / "file")
    with pytest.raises(BadInput, match="MTEB knows no task or benchmark 'Kors'.*KorSTS"):
        tasks_named(["Kors"])
    assert len(tasks_named(["MTEB(kor, v1)"])) > 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no model"):
        board_models(tmp_path / "empty")
    assert main(["evaluate", str(bert_cross), "-o", str(tmp_path)]) == 2
    assert "nothing to evaluate on: name --tasks" in capsys.readouterr().err


def test_scores_go_beside_the_model_and_into_its_card(bert_bi, tmp_path, capsys):
    folder, bare = (shutil.copytree(bert_bi, tmp_path / name) for name in ("model", "bare"))
    before = revision(folder)
    (folder / "README.md").write_text("# A\n\n## Where it comes from\n\nB\n", encoding="utf-8")
    (bare / "README.md").unlink(missing_ok=True)
    rows = [f"text {i},other {i % 5},{i % 7 / 7}" for i in range(30)]
    (tmp_path / "pairs.csv").write_text("query,document,label\n" + "\n".join(rows), encoding="utf-8")
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"name: own\ndata: {{train: {tmp_path}/pairs.csv, evaluation: {tmp_path}/pairs.csv}}\n")
    arguments = [str(folder), str(bare), "-o", str(tmp_path / "results"), "--recipe", str(recipe), "--card"]
    for _ in range(2):  # the second time replaces the section
        assert main(["evaluate", *arguments]) == 0
    assert "no card (README.md) beside" in capsys.readouterr().err
    text = (folder / "README.md").read_text(encoding="utf-8")
    [score] = board_scores(folder)
    assert text.count("## Tasks of MTEB") == 1 and text.index("## Tasks of MTEB") < text.index("## Where it comes from")
    assert f"| own-evaluation | STS | cosine_spearman | {score.score:.4f} | " in text and text.endswith("B\n")
    assert revision(folder) == before and len(board_scores(bare)) == 1
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b" ")
    (folder / "artefact.json").unlink(missing_ok=True)
    assert board_scores(folder) == []  # another model's


def test_two_models_of_one_name_are_two_models(tmp_path):
    folders = [tmp_path / run / "quickstart" / "student" for run in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "modules.json").touch()
    found = models_at([*folders, folders[0]])
    assert list(found.values()) == folders
    assert list(found) == ["quickstart/student", str(folders[1]).lstrip("/")]


def test_a_folder_that_takes_no_file_is_said_before_any_work(bert_bi, tmp_path, monkeypatch):
    folder = shutil.copytree(bert_bi, tmp_path / "model")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(BadInput, match=r"boards\.json cannot be written: Permission denied"):
        check_board_places(folder)


SCORE = BoardScore("KorSTS", "STS", "cosine_spearman", 0.5, "1", "2", "torch fp32, 128 tokens")
CARDS = [
    "# A\n\n```\n## Tasks of MTEB\n```\n\nmore of mine\n",
    "---\ntags: foo # mine\n---\n\n# A\r\n\r\n## Where it comes from\r\n\r\nB\r\n",
    "\ufeff# A",
    "",
]


@pytest.mark.parametrize("card", CARDS)
def test_nothing_else_of_a_card_changes(card):
    once = with_board_scores(card, [SCORE])
    assert "| KorSTS | STS |" in once and with_board_scores(once, [SCORE]) == once
    begin, end = once.index("<!-- distill"), once.index("end -->") + len("end -->")
    assert (once[:begin] + once[end:]).replace("\r", "").replace("\n", "") == card.replace("\r", "").replace("\n", "")
    later = with_board_scores(once + "# mine\n", [replace(SCORE, score=0.25)])
    assert later.endswith("# mine\n") and "0.2500" in later and "0.5000" not in later


def test_a_card_that_cannot_be_written_is_said_before_anything_is_stored(bert_bi, tmp_path):
    folder = shutil.copytree(bert_bi, tmp_path / "model")
    card, outside = folder / "README.md", tmp_path / "outside.md"
    card.unlink(missing_ok=True)
    card.write_bytes(b"caf\xe9")
    with pytest.raises(BadInput, match="is not UTF-8"):
        check_board_places(folder)
    outside.write_text("mine", encoding="utf-8")
    card.unlink()
    card.symlink_to(outside)
    with pytest.raises(BadInput, match="is a link"):
        store_board_scores(folder, [SCORE])
    assert outside.read_text(encoding="utf-8") == "mine" and not (folder / "boards.json").exists()


@pytest.mark.parametrize(
    "held", ['[{"task": "a"}]', "[1]", '[{"task": 1}]', json.dumps([{**asdict(SCORE), "score": float("nan")}])]
)
def test_scores_that_are_none_are_refused(held, bert_bi, tmp_path):
    (tmp_path / "boards.json").write_text(held, encoding="utf-8")
    with pytest.raises(BadInput, match="holds no scores of boards"):
        board_scores(tmp_path)


def test_a_report_refuses_scores_that_are_none_before_it_measures(bert_bi, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(bert_bi, folder)
    (folder / "boards.json").write_text("[1]", encoding="utf-8")
    entry = benchmark.BenchmarkEntry("student", "student", folder, None, None, None)
    monkeypatch.setattr(benchmark, "_rows", lambda run: [entry])
    monkeypatch.setattr(benchmark, "_inputs", lambda run, rows: {})
    monkeypatch.setattr(benchmark, "score_row", lambda *_: pytest.fail("it measures"))
    with pytest.raises(BadInput, match=r"boards.json holds no scores of boards; remove it"):
        benchmark.benchmark(make_run(tmp_path / "run"))
