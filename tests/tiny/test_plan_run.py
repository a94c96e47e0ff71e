"""A plan from the command line: built, measured, proposed, drawn; asked again; and a budget that nothing meets."""

import json
import os
import shutil

import pytest
import yaml

from distill.models.modeling import load_model, tokenizer_of, transformer_of
from distill.recipe.reading import load_recipe
from distill.recipe.schema import FreshBackbone
from distill.runtime import opening
from recipes.cli import main
from students.cut.depth import cut_config
from students.cut.structure import can_be_read
from students.plan import search_shapes as planner
from students.plan.cost_model import Shape
from students.plan.shapes import Candidates, shaped
from tests.conftest import BACKBONE, make_run, write_recipe
from tests.tiny.families import build_family

pytestmark = pytest.mark.integration

OPTIONS = ["plan.layers=[1,3]", "plan.widths=16", "plan.feed_forward=2", "plan.seconds=0.05", "plan.measured=3"]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A plan over two shapes, with a tokenizer of the recipe's own text; both are measured, in fp32 and in int8."""
    folder = tmp_path_factory.mktemp("plan")
    path = write_recipe(folder, student={"backbone": BACKBONE}, plan={"vocabulary": 300, "threads": 1, "length": 48})
    assert main(["plan", str(path), *OPTIONS, "--budget-p95-ms", "10000", "--budget-mb", "100"]) == 0
    return path, folder / "run" / "plan"


def test_the_largest_shape_was_measured_and_fits(planned):
    _, folder = planned
    assert sorted(os.listdir(folder)) == ["measurements.json", "plan.json", "plan.png", "student.yaml"]
    plan = json.loads((folder / "plan.json").read_text())
    assert [student["shape"]["layers"] for student in plan["students"]] == [3, 1]
    best = plan["students"][0]
    assert best["fits"] and best["measured"]["p95_ms"] >= best["measured"]["p50_ms"] > 0
    assert best["shape"]["length"] == 48 and best["measured"]["size_mb"] > plan["students"][1]["measured"]["size_mb"]
    assert len(plan["grid"]) == len(plan["measured"]) == 2 and plan["kind"] == "cross_encoder"
    assert plan["threads"] == 1 and plan["environment"]["cpu"]
    assert plan["precision"] == ("int8" if plan["int8_of_fp32"] <= 1 else "fp32") != plan["other"]
    for student in plan["students"]:
        fp32, int8 = (student["by_precision"][name]["measured"] for name in ("fp32", "int8"))
        # of weights this few the ranges that int8 stores take more than it saves
        assert 0 < fp32["size_mb"] != int8["size_mb"] > 0 and fp32["p95_ms"] > 0 and int8["p95_ms"] > 0
        assert student["measured"] == student["by_precision"][plan["precision"]]["measured"]
    assert (folder / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_its_section_is_the_recipes_student(planned):
    path, folder = planned
    raw = yaml.safe_load(path.read_text())
    raw["student"] = yaml.safe_load((folder / "student.yaml").read_text())["student"]
    changed = folder.parent / "changed.yaml"
    changed.write_text(yaml.safe_dump(raw))
    backbone = load_recipe(changed).student.backbone
    assert isinstance(backbone, FreshBackbone) and (backbone.layers, backbone.width, backbone.heads) == (3, 16, 1)


def test_asked_again_nothing_is_measured_twice(planned, monkeypatch, capsys):
    path, folder = planned
    monkeypatch.setattr("students.plan.ledger.measure_folders", None)
    smallest = json.loads((folder / "plan.json").read_text())["students"][1]
    limit = smallest["measured"]["size_mb"] * 1.0001  # now it alone fits
    assert main(["plan", str(path), *OPTIONS, "--budget-mb", str(limit), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert yaml.safe_load(plan["yaml"])["student"]["backbone"]["layers"] == 1
    # and a budget that nothing meets is one line, with what comes nearest
    assert main(["plan", str(path), *OPTIONS, "--budget-mb", "0.001"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert (
        len(lines) == 1 and "no shape meets size ≤ 0.001 MB in " in lines[0] and "; nearest: 1 layer × 16" in lines[0]
    )
    assert not (folder / "student.yaml").exists()


def test_a_shape_is_the_model_that_it_describes(tmp_path):
    from transformers import AutoModel

    run = make_run(tmp_path / "run", student={"backbone": BACKBONE}, plan={"vocabulary": 300})
    candidates = Candidates(run, tmp_path)
    for shape in (Shape(1, 16, 32, 1, 300, 64), Shape(3, 48, 192, 3, 300, 64)):
        model = AutoModel.from_config(shaped(candidates._bases[0].config, shape, 1))
        assert sum(weight.numel() for weight in model.encoder.parameters()) == shape.encoder_parameters
        assert model.embeddings.word_embeddings.weight.shape == (300, shape.width)
    cut = Candidates(make_run(tmp_path / "cut"), tmp_path)
    assert [(shape.layers, shape.width, shape.feed_forward) for shape in cut.shapes()] == [(1, 32, 64), (2, 32, 64)]


@pytest.mark.parametrize("plan", [{}, {"vocabulary": 180}])
def test_layers_that_cannot_be_read_again_are_left_out(plan, tmp_path, caplog):
    """The first layer of a ModernBERT alone is global, and transformers 5.5 refuses a config of global layers alone."""
    folder = build_family(tmp_path / "modernbert", "modernbert", "bi_encoder")
    if can_be_read(cut_config(transformer_of(load_model(folder)).config, [0])):
        pytest.skip("this version of transformers reads a ModernBERT of global layers alone")
    student = {"kind": "bi_encoder", "backbone": str(folder), "layers": None}
    candidates = Candidates(make_run(tmp_path / "run", student=student, plan=plan), tmp_path)
    (shape,) = candidates.shapes()
    assert shape.layers == 2 and "1 layers of" in caplog.text
    model = load_model(candidates._write_torch(shape, tmp_path))
    assert transformer_of(model).config.layer_types == ["full_attention", "sliding_attention"]


@pytest.mark.slow
def test_a_cut_teacher_is_trimmed_to_the_sizes_of_the_plan(tmp_path):
    run = make_run(tmp_path / "run", plan={"vocabulary": [320, 400]})
    candidates = Candidates(run, tmp_path)
    shapes = candidates.shapes()
    assert [(shape.layers, shape.vocabulary) for shape in shapes] == [(1, 320), (2, 320), (1, 400), (2, 400)]
    section = candidates.section(shapes[1])
    assert section["vocabulary"] == {"trim": {"size": 320}} and section["layers"] == [0, 1]
    folder = candidates._write_torch(shapes[0], tmp_path)
    model = load_model(folder)
    embeddings = transformer_of(model).get_input_embeddings().weight
    assert embeddings.shape == (320, 32) and len(tokenizer_of(model)) == 320
    # and narrower, by what the plan offers
    narrow = Candidates(
        make_run(tmp_path / "narrow", plan={"widths": [16, 32], "feed_forward": [0.5, 1], "layers": 1}), tmp_path
    )
    assert [(shape.width, shape.feed_forward, shape.heads) for shape in narrow.shapes()] == [
        (16, 32, 1),
        (16, 64, 1),
        (32, 32, 2),
        (32, 64, 2),
    ]
    assert narrow.section(narrow.shapes()[0])["width"] == {"feed_forward": 0.5, "hidden": 16}
    assert "width" not in narrow.section(narrow.shapes()[3])
    (tmp_path / "narrow").mkdir(exist_ok=True)
    small = transformer_of(load_model(narrow._write_torch(narrow.shapes()[0], tmp_path / "narrow")))
    assert (small.config.hidden_size, small.config.intermediate_size, small.config.num_hidden_layers) == (16, 32, 1)
    # and what the student's own section takes away is taken away from every shape
    own = make_run(tmp_path / "own", student={"vocabulary": {"trim": {"coverage": 0.9}}, "embedding_rank": 8})
    shapes = Candidates(own, tmp_path).shapes()
    assert len({shape.vocabulary for shape in shapes}) == 1 and shapes[0].vocabulary < 500
    planned = Candidates(own, tmp_path).section(shapes[0])
    assert planned["vocabulary"] == {"trim": {"coverage": 0.9}} and planned["embedding_rank"] == 8
    factorised = load_model(Candidates(own, tmp_path)._write_torch(shapes[0], tmp_path / "own"))
    assert transformer_of(factorised).config.num_hidden_layers == 1
    assert (
        max(
            weight.shape[1]
            for weight in transformer_of(factorised).embeddings.parameters()
            if weight.dim() == 2 and len(weight) == shapes[0].vocabulary
        )
        == 8
    )


def test_a_filled_vocabulary_changes_no_token(tmp_path):
    from students.cut.bases import _filled

    run = make_run(tmp_path / "run", student={"backbone": BACKBONE}, plan={"vocabulary": 300})
    for family in ("bert", "xlm-roberta"):
        run = make_run(tmp_path / family, student={"backbone": BACKBONE}, plan={"vocabulary": 300, "family": family})
        tokenizer = Candidates(run, tmp_path)._bases[0].tokenizer
        filled = _filled(tokenizer, 400)
        assert len(filled) == 400 and len(tokenizer) == 300
        for text in run.split.train.queries[:50]:
            assert filled(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_check_refuses_what_costs_more_than_its_budget(bert_cross, tmp_path, monkeypatch, capsys):
    path = write_recipe(tmp_path, plan={"threads": 1, "length": 48})
    assert main(["plan", str(path), "--budget-mb", "1", "--check", str(bert_cross)]) == 2
    assert "holds no openvino/openvino_model.xml" in capsys.readouterr().err
    result = {
        "latency_ms": {"p50": 1.0, "p95": 1.2, "n": 1},
        "throughput_pairs_per_s": 900.0,
        "size_mb": 2.0,
        "per_run": {"latency_ms": [1.0]},
    }
    monkeypatch.setattr(planner, "measure_folders", lambda *_, **__: [result])
    scorer = opening.load(bert_cross)
    model = shutil.copytree(bert_cross, tmp_path / "model")
    monkeypatch.setattr(opening, "load", lambda *_, **__: scorer)
    for limit, code in ((1.3, 0), (1.1, 0), (1.0, 1)):  # within the margin of a second measurement, or not
        assert main(["plan", str(path), "--budget-p95-ms", str(limit), "--check", str(model)]) == code
    assert "model costs 1.20 times its budget; 1.1 is allowed" in capsys.readouterr().err
