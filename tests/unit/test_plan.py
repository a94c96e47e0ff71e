"""The planner's arithmetic: costs recovered from made-up measurements, budgets, what is measured, what is proposed."""

import json
from types import SimpleNamespace

import pytest
import yaml

from distill.errors import BadInput, JobFailed
from distill.recipe.planning import load_plan
from distill.recipe.reading import load_recipe
from distill.recipe.schema import Plan, Recipe
from recipes.cli import main
from recipes.printing import _held_out
from students.plan.cost_model import (
    PRECISIONS,
    CostLimits,
    Measurement,
    Shape,
    best_by_depth,
    fit_cost_model,
    held_out_errors,
    nearest,
)
from students.plan.floor import check_plan, fresh_shapes, heads_of
from students.plan.ledger import Ledger
from students.plan.measuring import texts_of_length
from students.plan.picture import frontier
from students.plan.search_shapes import _nothing_fits, _search, choose_shapes
from students.plan.shapes import Candidates, kept_layers, shaped
from tests.conftest import BACKBONE, BI_TEACHER, make_run, tiny_recipe, write_recipe

SMALL = Plan(widths=(128, 256, 384), layers=(1, 2, 4, 6), feed_forward=(2, 4))


def shapes(plan=SMALL, vocabularies=(8000, 32000), lengths=(128,)):
    return [shape for length in lengths for shape in fresh_shapes(plan, vocabularies, length)]


def measurement(shape):
    """Costs with known coefficients: 3e-9 ms a projection's product, 0.05 ms a layer, 0.2 ms for the call; 1 byte a weight."""
    p50 = 3e-9 * shape.length * shape.layers * shape.width**2 + 0.05 * shape.layers + 0.2
    size = (
        1e-6 * shape.vocabulary * shape.width
        + 4e-6 * shape.layers * shape.width * shape.feed_forward
        + 0.03 * shape.layers
        + 0.1
    )
    return Measurement(shape, p50, 1.25 * p50, 0.8 * p50, size)


def test_encoder_parameters_by_hand():
    # 4·(4·4+4) projections with biases, 4·8+8 up, 8·4+4 down, 2·2·4 LayerNorms = 80 + 40 + 36 + 16
    assert Shape(1, 4, 8, 1, 100, 16).encoder_parameters == 172
    assert Shape(3, 4, 8, 1, 100, 16).encoder_parameters == 3 * 172
    assert Shape(6, 384, 1536, 12, 30522, 256).encoder_parameters == 10_646_784  # of all-MiniLM-L6-v2


def test_fit_recovers_known_coefficients():
    model = fit_cost_model([measurement(shape) for shape in shapes(lengths=(32, 128, 512))])
    time, size = model.coefficients["p50_ms"], model.coefficients["size_mb"]
    assert time["projections"] == pytest.approx(3e-9, rel=1e-6)
    assert time["layer"] == pytest.approx(0.05, rel=1e-6) and time["constant"] == pytest.approx(0.2, rel=1e-6)
    assert sum(time[name] * 512**2 * 6 * 384 for name in ("attention", "elementwise")) < 1e-6
    assert size["embedding"] == pytest.approx(1e-6) and size["feed_forward"] == pytest.approx(4e-6)
    assert model.coefficients["p95_ms"]["layer"] == pytest.approx(1.25 * 0.05, rel=1e-6)


def test_few_measurements_at_one_length_predict_the_rest():
    everything = shapes()
    model = fit_cost_model([measurement(shape) for shape in everything[::5]])
    for shape in everything:
        expected = measurement(shape).costs()
        assert model.predict(shape) == pytest.approx(expected, rel=1e-4)


def test_noise_gives_no_negative_coefficient():
    noisy = [Measurement(shape, 1 + (place % 3), 2 + (place % 2), 1, 5) for place, shape in enumerate(shapes()[::3])]
    assert all(value >= 0 for own in fit_cost_model(noisy).coefficients.values() for value in own.values())


def test_held_out_errors_see_what_the_model_cannot_say():
    exact = [measurement(shape) for shape in shapes()[::5]]
    assert max(held_out_errors(exact).values()) < 1e-3
    odd = [
        Measurement(
            one.shape, one.p50_ms * (1.5 if one.shape.width == 256 else 1), one.p95_ms, one.text_ms, one.size_mb
        )
        for one in exact
    ]
    assert held_out_errors(odd)["p50_ms"] > 0.05 and held_out_errors(odd)["p95_ms"] < 1e-3


def test_a_single_measurement_says_nothing_of_others():
    assert held_out_errors([measurement(next(iter(shapes())))]) is None


def test_budget():
    costs = {"p95_ms": 5.0, "size_mb": 40.0}
    assert (
        CostLimits(5.0, 40.0).fits(costs)
        and not CostLimits(4.9, 40.0).fits(costs)
        and not CostLimits(5.0, 39.9).fits(costs)
    )
    assert CostLimits(None, 20.0).excess(costs) == 2.0 and CostLimits(10.0, None).excess(costs) == 0.5
    assert str(CostLimits(5.0, None)) == "p95 ≤ 5 ms" and str(CostLimits(5.0, 40.0)) == "p95 ≤ 5 ms and size ≤ 40 MB"


def test_proposals_are_the_largest_of_each_depth():
    costs = {shape: measurement(shape).costs() for shape in shapes()}
    budget = CostLimits(p95_ms=1.0, size_mb=8.0)
    best = best_by_depth(costs, budget)
    assert len({shape.layers for shape in best}) == len(best) > 1
    for shape in best:
        same_depth = [other for other in costs if other.layers == shape.layers and budget.fits(costs[other])]
        assert shape.encoder_parameters == max(other.encoder_parameters for other in same_depth)
    assert [shape.capacity for shape in best] == sorted((shape.capacity for shape in best), reverse=True)
    # at equal encoder parameters the larger vocabulary wins, where it fits
    wide = best_by_depth(costs, CostLimits(1.0, None))
    assert {shape.vocabulary for shape in wide} == {32000}


def test_nothing_fits_names_the_nearest():
    costs = {shape: measurement(shape).costs() for shape in shapes()}
    impossible = CostLimits(0.01, None)
    assert best_by_depth(costs, impossible) == []
    close = nearest(costs, impossible)
    assert costs[close]["p95_ms"] == min(cost["p95_ms"] for cost in costs.values())


def test_measured_shapes_lie_around_the_budget_and_apart():
    everything = shapes(vocabularies=(8000,))
    rough, budget = fit_cost_model([measurement(shape) for shape in everything]), CostLimits(1.0, None)
    scouts = everything[:2]
    chosen = choose_shapes(everything, scouts, rough, budget, 8, seed=1)
    assert chosen[:2] == scouts and len(set(chosen)) == len(chosen) == 8
    assert chosen == choose_shapes(everything, scouts, rough, budget, 8, seed=1)
    assert all(0.25 <= budget.excess(rough.predict(shape)) <= 1.6 for shape in chosen[2:])
    assert {shape.width for shape in chosen} == {128, 256, 384} and len({shape.layers for shape in chosen}) >= 3


def test_heads_and_layers():
    assert [heads_of(width) for width in (768, 320, 96, 48)] == [12, 5, 3, 3]
    with pytest.raises(BadInput, match=r"plan\.widths: 100 is no multiple of 16"):
        heads_of(100)


def test_a_plan_keeps_the_layers_that_spread_keeps():
    bert, modern_bert = (SimpleNamespace(model_type=name) for name in ("bert", "modernbert"))
    for config in (bert, modern_bert):
        assert kept_layers(config, 6, 6) == (0, 1, 2, 3, 4, 5) and kept_layers(config, 6, 3) == (0, 3, 5)
    assert kept_layers(bert, 12, 1) == (11,) and kept_layers(modern_bert, 12, 1) == (0,)


def test_layer_types_are_those_of_the_kept_layers():
    config = SimpleNamespace(
        model_type="modernbert",
        hidden_size=32,
        intermediate_size=64,
        layer_types=["global", "local", "local", "global"],
    )
    found = [shaped(config, Shape(n, 32, 64, 2, 500, 64), 4).layer_types for n in (1, 2, 3)]
    assert found == [["global"], ["global", "global"], ["global", "local", "global"]]


def test_frontier_keeps_what_none_beats():
    assert frontier([(3.0, 9.0), (1.0, 5.0), (2.0, 4.0), (3.0, 8.0)]) == [(1.0, 5.0), (3.0, 9.0)]


@pytest.mark.parametrize("changes", [{}, {"student": {"backbone": BACKBONE}}])
def test_the_section_is_valid_in_the_recipe_it_was_planned_for(tmp_path, changes):
    (tmp_path / "planned").mkdir()
    run = make_run(tmp_path / "run", **changes)
    candidates = Candidates(run, tmp_path)
    shape = Shape(2, 32, 64, 2, 500, 64)
    section = candidates.section(shape)
    path = write_recipe(tmp_path / "planned", **changes)
    raw = yaml.safe_load(path.read_text())
    raw["student"] = yaml.safe_load(yaml.safe_dump(section))
    path.write_text(yaml.safe_dump(raw))
    student = load_recipe(path).student
    assert student.kind == "cross_encoder" and student.max_length == 64 and student.control is False
    if changes:
        assert (student.backbone.layers, student.backbone.width, student.backbone.vocabulary) == (2, 32, 500)
    else:
        assert student.backbone.teacher == "cross" and student.layers == (0, 1)


def test_a_plan_reads_all_text_that_the_student_learns_from(tmp_path):
    files = {name: tmp_path / f"{name}.tsv" for name in ("unlabelled", "pairs", "parallel")}
    files["unlabelled"].write_text("text\nalone\n", encoding="utf-8")
    files["pairs"].write_text("query\tdocument\nlone query\tlone document\n", encoding="utf-8")
    files["parallel"].write_text("en\tko\nsource\ttarget\n", encoding="utf-8")
    data = {
        "unlabelled": [{"path": str(files["unlabelled"])}],
        "unlabelled_pairs": [{"path": str(files["pairs"])}],
        "parallel": [{"path": str(files["parallel"]), "source": "en", "target": "ko"}],
    }
    learns = {
        "teachers": {"bi": BI_TEACHER},
        "student": {"kind": "bi_encoder", "backbone": BACKBONE},
        "objectives": {"score_match": None, "embedding_match": {"teacher": "bi"}},
    }
    run = make_run(tmp_path / "run", data=data, **learns)
    sources = Candidates(run, tmp_path)._sources
    assert sources[-5:] == ["alone", "source", "target", "lone query", "lone document"]
    assert sources == run.learned.training_texts and len(sources) == len(set(sources))


def test_texts_have_the_asked_number_of_tokens(tmp_path):
    class Words:
        """One token a word, and one around each side."""

        model_input_names, pad_token_id = ("input_ids",), 0

        def __call__(self, texts, pairs, max_length, **_):
            return {"input_ids": [[1] * min(len(text.split()) + 2, max_length) for text in texts]}

    sources = ["one two three four", "five six seven"]
    queries, documents = texts_of_length(Words(), sources, 10, "bi_encoder", n_texts=3)
    assert queries == documents and {len(text.split()) for text in queries} == {8}
    queries, documents = texts_of_length(Words(), sources, 10, "cross_encoder", n_texts=3)
    assert {len(text.split()) for text in [*queries, *documents]} == {3} and len(queries) == len(documents) == 3
    with pytest.raises(BadInput, match="no word"):
        texts_of_length(Words(), ["", " "], 10, "bi_encoder")


def test_command_line_keys_lie_over_the_recipe(tmp_path):
    path = write_recipe(tmp_path, plan={"budget_p95_ms": 3.0, "threads": 1})
    recipe, folder = load_plan(str(path), ["plan.seconds=0.5"], {"budget_p95_ms": 9.0, "length": None}, None)
    assert (recipe.plan.budget_p95_ms, recipe.plan.threads, recipe.plan.seconds) == (9.0, 1, 0.5)
    assert folder == recipe.folder / "plan"
    alone, folder = load_plan("plan.layers=2", [], {"budget_mb": 1.0, "vocabulary": 500}, tmp_path / "out")
    assert alone.plan.layers == (2,) and alone.plan.vocabulary == (500,) and folder == tmp_path / "out" == alone.folder


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ({"teacher": "crosss"}, "plan.teacher: no teacher is called 'crosss'; did you mean 'cross'?"),
        ({"family": "bert"}, "plan.family: means nothing here, the plan cuts layers of cross"),
        ({"length": 128}, "plan.length: 128 is more than the 64 tokens of student.max_length"),
        ({"budget_p95": 3}, "plan.budget_p95: unknown key; did you mean 'budget_p95_ms'?"),
        ({"vocabulary": []}, "plan.vocabulary"),
    ],
)
def test_a_wrong_section_is_refused(tmp_path, plan, problem):
    with pytest.raises(BadInput) as error:
        load_recipe(write_recipe(tmp_path, plan=plan))
    assert problem in str(error.value)


def test_a_plan_needs_a_budget_and_threads_that_there_are(tmp_path, capsys):
    assert main(["plan", "-o", str(tmp_path / "plan")]) == 2
    assert "a plan needs a budget: --budget-p95-ms, --budget-mb or both" in capsys.readouterr().err
    assert main(["plan", "--budget-mb", "1", "--threads", "4096", "-o", str(tmp_path / "plan")]) == 2
    assert "plan.threads: 4096, this process may use" in capsys.readouterr().err


def test_a_recipe_that_is_refused_leaves_no_folder_of_a_plan(tmp_path, capsys):
    recipe = write_recipe(tmp_path, data={"train": "none.csv"}, plan={"budget_mb": 50})
    assert main(["plan", str(recipe), "-o", str(tmp_path / "plan")]) == 2
    assert "none.csv: no such file" in capsys.readouterr().err
    assert not (tmp_path / "plan").exists()
    built = tmp_path / "plan/.shapes/built"  # by a plan that was ended
    built.mkdir(parents=True)
    assert main(["plan", str(recipe), "-o", str(tmp_path / "plan")]) == 2
    assert built.is_dir()


def test_a_plan_asks_for_no_more_layers_than_there_are(tmp_path):
    run = make_run(tmp_path / "run", plan={"layers": [1, 5]})
    with pytest.raises(BadInput, match=r"plan\.layers: 5 of cross, which has 2"):
        Candidates(run, tmp_path).shapes()


def test_measurements_are_kept_by_what_decides_them(tmp_path):
    path, shape = tmp_path / "measurements.json", Shape(1, 32, 64, 2, 500, 64)

    def ledger(**changes):
        run = make_run(tmp_path / "run", student={"backbone": BACKBONE}, plan={"threads": 1}, **changes)
        return Ledger(path, Candidates(run, tmp_path))

    first = ledger()
    row = {"shape": {**vars(shape)}, "costs": {"p50_ms": 1.0, "p95_ms": 2.0, "text_ms": 0.5, "size_mb": 3.0}}
    other = {**row, "precision": "fp32", "costs": {**row["costs"], "p95_ms": 4.0}}
    first.phases["measured"] = [row, other]  # one without a precision is of the time when int8 alone was measured
    path.write_text(json.dumps(first.stored))
    assert [one.p95_ms for one in ledger().rows("measured", precision="int8")] == [2.0]
    assert [one.p95_ms for one in ledger().rows("measured", precision="fp32")] == [4.0]
    assert ledger().measure("measured", [shape], seconds=1.0) == []  # nothing is measured twice
    assert ledger(export={"keep_float": None}).rows("measured", precision="int8") == []
    path.write_text("{")
    with pytest.raises(BadInput, match="is damaged"):
        ledger()


def test_recipe_of_a_plan_is_a_recipe(tmp_path):
    raw = tiny_recipe(tmp_path / "run", plan={"budget_mb": 1, "vocabulary": 500}, student={"backbone": BACKBONE})
    assert Recipe.model_validate(raw).plan.vocabulary == (500,)


class Meter:
    """Stands in for the measuring of folders: made-up costs, by shape and precision; counts its calls.

    fp32 is four times as large as int8 and takes `fp32_takes` of its time.
    """

    def __init__(self, *, odd_width=None, drift=1.0, fp32_takes=1.5):
        self.odd_width, self.drift, self.fp32_takes, self.calls = odd_width, drift, fp32_takes, []

    def __call__(self, folders, texts, **_):
        folders = [folder for _, folder in folders]
        self.calls.append(len(folders))
        assert [precision for _, precision in folders] == ["fp32", "int8"] * (len(folders) // 2)
        return [self.result(*folder) for folder in folders]

    def result(self, shape, precision):
        one = measurement(shape)
        slow = (1.3 if shape.width == self.odd_width else 1.0) * (self.drift if len(self.calls) > 2 else 1.0)
        slow *= self.fp32_takes if precision == "fp32" else 1.0
        p50, p95 = slow * one.p50_ms, slow * one.p95_ms
        return {
            "latency_ms": {"p50": p50, "p95": p95, "n": 1},
            "throughput_pairs_per_s": 1000 / (slow * one.text_ms),
            "size_mb": (4 if precision == "fp32" else 1) * one.size_mb,
            "per_run": {"latency_ms": [p50]},
        }


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """Search with made-up measurements; returns the result and the meter."""

    def search(meter, p95_ms=1.0, size_mb=None, export=None, **plan):
        wide = {
            "widths": (128, 192, 256, 320, 384),
            "layers": (1, 2, 3, 4, 6),
            "vocabulary": 500,
            "length": 64,
            "threads": 1,
        }
        changes = {"plan": {**wide, **plan}, "export": export or {}}
        run = make_run(tmp_path / "run", student={"backbone": BACKBONE}, **changes)
        candidates = Candidates(run, tmp_path)
        monkeypatch.setattr(candidates, "write", lambda shape: {name: (shape, name) for name in PRECISIONS})
        monkeypatch.setattr(candidates, "texts", lambda: ([], []))
        monkeypatch.setattr(candidates, "shapes", lambda: fresh_shapes(run.recipe.plan, (500,), 64))
        monkeypatch.setattr("students.plan.ledger.measure_folders", meter)
        (tmp_path / "measurements.json").unlink(missing_ok=True)
        return _search(candidates, Ledger(tmp_path / "measurements.json", candidates), CostLimits(p95_ms, size_mb))

    return search


def test_a_budget_that_arithmetic_refuses_builds_nothing(tmp_path):
    recipe, folder = load_plan(None, ["output_dir=" + str(tmp_path)], {"budget_mb": 4.0}, tmp_path / "plan")
    with pytest.raises(
        JobFailed, match=r"no shape meets size ≤ 4 MB in int8 or fp32; nearest: 2 layers × 128.* 4\.\d+ MB"
    ):
        check_plan(recipe, folder)  # 32,000 pieces × 128 are 4.1 MB of bytes
    recipe, folder = load_plan(None, ["output_dir=" + str(tmp_path)], {"budget_mb": 5.0}, tmp_path / "plan")
    check_plan(recipe, folder)
    assert not list(tmp_path.iterdir())


def test_a_budget_far_below_the_smallest_shape_measures_no_other_one(searched):
    meter = Meter()
    result = searched(meter, p95_ms=0.1)
    assert meter.calls == [2 * 3, 2] and result["yaml"] is None
    assert _nothing_fits(result, CostLimits(0.1, None)).startswith(
        "no shape meets p95 ≤ 0.1 ms in int8; nearest: 1 layer"
    )


def test_search_measures_few_and_proposes_what_was_measured(searched):
    meter = Meter()
    result = searched(meter)
    assert meter.calls[:2] == [2 * 3, 2 * 10] and sum(meter.calls[2:]) <= 2 * 3 * 4
    assert len(result["grid"]) == 50
    truth = {
        shape: measurement(shape).p95_ms
        for shape in fresh_shapes(Plan(widths=(128, 192, 256, 320, 384), layers=(1, 2, 3, 4, 6)), (500,), 64)
    }
    largest = max((shape for shape in truth if truth[shape] <= 1.0), key=lambda shape: shape.capacity)
    best = result["students"][0]
    assert best["shape"] == vars(largest) and best["measured"] is not None and best["fits"]
    assert yaml.safe_load(result["yaml"])["student"]["backbone"]["width"] == largest.width
    assert [student["measured"] is not None for student in result["students"][:3]] == [True] * 3
    assert result["notes"] == []


@pytest.mark.parametrize(("fp32_takes", "precision"), [(1.5, "int8"), (0.8, "fp32")])
def test_the_budget_is_for_the_faster_precision_and_both_are_shown(searched, fp32_takes, precision):
    result = searched(Meter(fp32_takes=fp32_takes))
    other = {"int8": "fp32", "fp32": "int8"}[precision]
    assert (result["precision"], result["other"]) == (precision, other)
    assert result["int8_of_fp32"] == pytest.approx(1 / fp32_takes)
    takes = {"int8": 1.0, "fp32": fp32_takes}
    sizes = {"int8": 1.0, "fp32": 4.0}
    everything = fresh_shapes(Plan(widths=(128, 192, 256, 320, 384), layers=(1, 2, 3, 4, 6)), (500,), 64)
    fitting = [shape for shape in everything if takes[precision] * measurement(shape).p95_ms <= 1.0]
    best = result["students"][0]
    shape = Shape(**best["shape"])
    assert shape == max(fitting, key=lambda one: one.capacity)
    for name, costs in best["by_precision"].items():
        assert costs["measured"]["p95_ms"] == pytest.approx(takes[name] * measurement(shape).p95_ms)
        assert costs["predicted"]["p95_ms"] == pytest.approx(takes[name] * measurement(shape).p95_ms, rel=1e-3)
        assert costs["predicted"]["size_mb"] == pytest.approx(sizes[name] * measurement(shape).size_mb, rel=1e-3)
    assert best["measured"] == best["by_precision"][precision]["measured"]
    for row in [*result["grid"], *result["measured"]]:
        assert row["other"]["p95_ms"] == pytest.approx(row["p95_ms"] * takes[other] / takes[precision], rel=1e-3)


def test_a_stated_precision_and_the_only_exported_one_are_planned_in(searched):
    slow_fp32 = {"fp32_takes": 1.5}
    stated = searched(Meter(**slow_fp32), precision="fp32")
    assert (stated["precision"], stated["why"]) == ("fp32", "plan.precision says so")
    alone = searched(Meter(**slow_fp32), export={"precisions": ["fp32"]})
    assert (alone["precision"], alone["why"]) == ("fp32", "of the two export.precisions has fp32 alone")


def test_a_size_that_the_other_precision_meets_is_named(searched):
    # fp32 is faster and four times as large: the budget is met in int8 alone
    result = searched(Meter(fp32_takes=0.8), p95_ms=None, size_mb=0.5)
    assert result["precision"] == "fp32" and result["yaml"] is None
    told = _nothing_fits(result, CostLimits(None, 0.5))
    assert told.startswith("no shape meets size ≤ 0.5 MB in fp32; nearest: 1 layer × 128")
    assert "; in int8 it meets the budget: plan.precision=int8; " in told
    in_int8 = searched(Meter(fp32_takes=0.8), p95_ms=None, size_mb=0.5, precision="int8")
    assert in_int8["students"][0]["measured"]["size_mb"] <= 0.5


def test_what_measures_slower_than_predicted_gives_way(searched):
    favourite = searched(Meter())["students"][0]
    slow = Meter(odd_width=favourite["shape"]["width"])  # no term of the model knows one width from its neighbours
    result = searched(slow)
    assert favourite["shape"] in [row["shape"] for row in result["measured"] if row["p95_ms"] > 1.0]
    best = result["students"][0]
    assert best["shape"] != favourite["shape"] and best["measured"]["p95_ms"] <= 1.0
    assert best["encoder_parameters"] < favourite["encoder_parameters"]


def test_drift_between_the_rounds_is_told(searched):
    result = searched(Meter(drift=1.4))
    assert any(note.startswith("The machine drifted: ") and "1.40 times" in note for note in result["notes"])


def test_one_possible_shape_is_planned_without_an_error_of_prediction(searched):
    result = searched(Meter(), widths=(128,), layers=(1,), feed_forward=(1.0,))
    assert len(result["grid"]) == 1 and result["students"][0]["fits"]
    assert result["median_error"] is None and result["median_error_other"] is None
    assert _held_out(result).startswith("One shape alone was possible")


def test_errors_of_prediction_are_said_of_both_precisions(searched):
    said = _held_out(searched(Meter()))
    assert said.count(" % (p95)") == 2 and said.endswith("in the median.")


def test_a_budget_that_nothing_meets_proposes_nothing(searched):
    result = searched(Meter(), p95_ms=0.05)
    assert result["yaml"] is None and len(result["students"]) == 1 and not result["students"][0]["fits"]
    assert result["students"][0]["measured"]["p95_ms"] == min(row["p95_ms"] for row in result["grid"])
