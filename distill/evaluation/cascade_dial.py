"""Measure a run's cascade: its quality and cost for each share of pairs that is sent to the teacher.

    validation pairs    the cascade is fitted; the smallest share that equals the teacher within the margin is chosen
    evaluation pairs    the chosen cascade is tested, and every position of the dial is shown

The dial is the list of shares; each share is a position. Student and teacher have both scored all pairs, so every
position is computed from these scores. Costs are seconds per pair of each model, measured in turns. "Equals" is
non-inferiority within `cascade.margin`, and "beats" is superiority. Tests made together are corrected together: all
shares of the dial on the validation pairs, and the chosen cascade against teacher and student on the evaluation pairs;
see `distill.metrics.noninferiority`. As a baseline, the same share of pairs is drawn at random.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.evaluation.benchmark import (
    BenchmarkEntry,
    measure_rows,
    primary_teacher,
    score_row,
    student_rows,
    teacher_row,
)
from distill.evaluation.cascade_words import say_chosen, say_validation
from distill.evaluation.latency import environment
from distill.files.artefact import new_folder, read_card, read_json, write_card, write_json
from distill.metrics.columns import ScoredColumns
from distill.metrics.logistic import too_few_pairs
from distill.metrics.measures import Estimate, evaluate_scores, metric_value, paired_samples, primary_metric
from distill.metrics.noninferiority import MIN_RESAMPLES, Claim, judged
from distill.metrics.standing import problem_of
from distill.report.figures import ACCENT, INK, SOFT, drawing, new_figure, save_png
from distill.run import Run
from distill.scorers.cascade import Cascade, CascadeSettings, fit_cascade, top_k_of_queries
from distill.scorers.scoring import SCORER_FILE

__all__ = ["DIAL", "measure_cascade", "read_dial"]

log = logging.getLogger(__name__)
DIAL = "dial.json"
_SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)  # shares of the pairs that are sent to the teacher
_TOP_K = (0, 1, 2, 3, 5, 10, 20)  # number of pairs of each query that are sent to the teacher, instead of a share
_BLIND_DRAWS = 20  # random draws of as many pairs: the quality of a share without using the doubt
_DECIDED_BY = {"threads", "seconds", "max_seconds", "interval", "throughput_pairs", "bootstrap"}  # of the benchmark
_EVERY_PAIR = 0.0  # the level that every pair reaches, because doubt is a mean of squares


def measure_cascade(run: Run) -> None:
    """Fit, choose and measure a cascade, and write the folder `cascade/`.

    `distill score` opens this folder. It contains the dial as JSON and as a picture.

    :raises BadInput: if the run has no finished student or teacher, or no labels to fit on
    """
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    student, teacher = _models(run)
    settings, evaluation, validation = run.recipe.cascade, run.split.evaluation, run.split.validation
    inputs: dict[str, Any] = {
        "stage": "cascade",
        "settings": settings.model_dump(mode="json"),
        "benchmark": run.recipe.benchmark.model_dump(mode="json", include=_DECIDED_BY),
        "seed": run.recipe.seed,
        "models": {row.name: getattr(read_card(row.path), "revision", None) for row in (student, teacher)},
        "data": {part: run.split.describe()[part] for part in ("validation", "evaluation")},
    }
    if run.is_finished(run.cascade, inputs):
        return
    if validation.labels is None or evaluation.labels is None:
        raise BadInput("a cascade is fitted on labels; this recipe's pairs have none")
    if problem := too_few_pairs(len(validation)):
        raise BadInput(problem)
    held_back, evaluated = (
        _Part(run, pairs, *(_scores(run, row, pairs) for row in (student, teacher)))
        for pairs in (validation, evaluation)
    )
    cascade = fit_cascade(held_back.student, held_back.teacher, validation.labels)
    speed = measure_rows((student, teacher), evaluation, run.recipe.benchmark, seed=run.recipe.seed)
    costs = _Costs(*(1 / speed[row.name]["throughput_pairs_per_s"] for row in (student, teacher)))
    dial, level = make_dial(run, cascade, held_back, evaluated, costs)
    dial |= {"student": student.name, "teacher": teacher.name, "environment": environment()}
    with new_folder(run.cascade) as folder:
        described = CascadeSettings(
            student=os.path.relpath(student.path, run.cascade),
            teacher=os.path.relpath(teacher.path, run.cascade),
            student_runtime=student.runtime or "torch",
            teacher_runtime=teacher.runtime or "torch",
            student_max_length=student.max_length or 512,
            teacher_max_length=teacher.max_length or 512,
            level=level,
            top_k=settings.top_k,
            cascade=cascade,
        )
        write_json(folder / SCORER_FILE, described.model_dump(mode="json"))
        write_json(folder / DIAL, dial)
        _draw(dial, folder / "dial.png")
        card = run.card("cascade", "cascade", inputs, inputs["models"])
        write_card(folder, card)
    log.info("cascade: %s; %s", run.cascade, dial["verdict"])


def _scores(run: Run, row: BenchmarkEntry, pairs: Pairs) -> np.ndarray:
    """Return a model's scores. *Shape:* (n_pairs,), float64.

    :raises BadInput: if they are not finite or all equal
    """
    scores = score_row(run, row, pairs).scores.astype(np.float64)
    problem = problem_of(scores)
    if problem is not None:
        raise BadInput(f"{row.name}: {problem}; a cascade needs two models that tell pairs apart")
    return scores


def _models(run: Run) -> tuple[BenchmarkEntry, BenchmarkEntry]:
    """Return the student (an int8 export, else any export, else the student itself) and the teacher."""
    name = run.recipe.cascade.teacher or primary_teacher(run)
    if name in run.recipe.black_boxes:
        known = ", ".join(run.recipe.models) or "none"
        raise BadInput(
            f"the teacher {name} is of kind {run.recipe.black_boxes[name].form}, no model that a cascade could ask; set "
            f"cascade.teacher to a model (there are: {known})"
        )
    if run.student_section.asymmetric is not None:  # a recipe without a student is refused, too
        raise BadInput(
            "an asymmetric student reads one side of pairs, and a cascade's student scores pairs; leave out student.asymmetric"
        )
    teacher = teacher_row(run, name)
    rows = student_rows(run)
    exports = [row for row in rows if row.role == "export"]
    students = exports or [row for row in rows if row.role == "student"]
    return next((row for row in exports if row.path.name.endswith("-int8")), students[0]), teacher


@dataclass(frozen=True)
class _Costs:
    """Seconds per pair of each model."""

    student: float
    teacher: float

    def of(self, share: float) -> dict[str, float]:
        seconds = self.student + share * self.teacher
        return {"ms_per_pair": 1000 * seconds, "share_of_teacher_cost": seconds / self.teacher}


@dataclass(frozen=True)
class _Part:
    """Pairs and the scores of both models. *Shape:* student, teacher: (n_pairs,)."""

    run: Run
    pairs: Pairs
    student: np.ndarray
    teacher: np.ndarray

    @property
    def metric(self) -> str:
        """The primary metric of a report on these pairs."""
        return primary_metric(self.estimates(self.teacher), self.pairs.labels)

    def estimates(self, scores: np.ndarray) -> Mapping[str, Estimate]:
        return evaluate_scores(
            scores=scores,
            **self.pairs.metric_columns,
            n_bootstrap=self.run.recipe.benchmark.bootstrap,
            seed=self.run.recipe.seed,
        )

    def _columns(self, scores: np.ndarray) -> ScoredColumns:
        return ScoredColumns.checked(scores, **self.pairs.metric_columns)

    def claim(self, metric: str, scores: np.ndarray, other_scores: np.ndarray, bound: float) -> Claim:
        """Return the claim that scores exceed other scores in a metric by more than a bound."""
        difference, samples = paired_samples(
            metric,
            self._columns(scores),
            self._columns(other_scores),
            n_bootstrap=max(MIN_RESAMPLES, self.run.recipe.benchmark.bootstrap),
            seed=self.run.recipe.seed,
        )
        return Claim(difference, samples, bound)

    def value(self, metric: str, scores: np.ndarray) -> float:
        """Return the value without an interval, for the many random draws."""
        return metric_value(metric, self._columns(scores))

    def routed(self, cascade: Cascade, place: float) -> np.ndarray:
        """Return which pairs are sent to the teacher. *Shape:* (n_pairs,) bool.

        :param place: a position of the dial: a share, or the k of the k best pairs of each query
        """
        if self.run.recipe.cascade.top_k is not None:
            return top_k_of_queries(self.pairs.queries, self.student, int(place))
        return cascade.routed(self.student, place)


def make_dial(
    run: Run, cascade: Cascade, held_back: _Part, evaluated: _Part, costs: _Costs
) -> tuple[dict[str, Any], float | None]:
    """Choose the share on the validation pairs and test it on the evaluation pairs.

    :returns: the content of dial.json, and the level of doubt from which pairs go to the teacher; None with `top_k`, or
        if no pair goes to the teacher
    """
    settings, metric = run.recipe.cascade, evaluated.metric
    validation = _choose(cascade, held_back, metric)
    share = validation["chosen_share"]
    level = None if settings.top_k is not None else _level(cascade, held_back.student, share)
    chosen = _test_chosen(cascade, evaluated, metric, level, costs)
    alone = {
        name: evaluated.estimates(scores)[metric].to_dict() | {"ms_per_pair": 1000 * cost}
        for name, scores, cost in (
            ("student", evaluated.student, costs.student),
            ("teacher", evaluated.teacher, costs.teacher),
        )
    }
    verdict = f"{say_validation(metric, validation)}. {say_chosen(metric, chosen)}"
    return {
        "metric": metric,
        "margin": settings.margin,
        "alone": alone,
        "positions": _positions(cascade, evaluated, metric, costs),
        "validation": validation,
        "chosen": chosen,
        "chosen_share": share,
        "verdict": verdict,
    }, level


def _places(run: Run) -> Sequence[float]:
    settings = run.recipe.cascade
    if settings.top_k is not None:
        return sorted({*_TOP_K, settings.top_k})
    return sorted({*_SHARES, *(() if settings.share is None else (settings.share,))})


def _named(run: Run, place: float) -> dict[str, int]:
    return {"top_k": int(place)} if run.recipe.cascade.top_k is not None else {}


def _tested(
    cascade: Cascade, part: _Part, metric: str
) -> tuple[Sequence[float], list[np.ndarray], list[np.ndarray], list[dict[str, Any]]]:
    """Return, for each position of the dial, the position, the pairs sent to the teacher, the scores and the test.

    The test is that the cascade equals the teacher.
    """
    places = _places(part.run)
    masks = [part.routed(cascade, place) for place in places]
    mixed = [cascade.combined(part.student, part.teacher, routed) for routed in masks]
    margin = part.run.recipe.cascade.margin
    return places, masks, mixed, judged([part.claim(metric, scores, part.teacher, -margin) for scores in mixed])


def _choose(cascade: Cascade, part: _Part, metric: str) -> dict[str, Any]:
    """Test on the validation pairs, for every position of the dial, that it equals the teacher.

    Choose the least that does.

    The cascade's few parameters were fitted on the same pairs. That may make the choice worse, but it does not bias the
    report, which uses the evaluation pairs.
    """
    settings, (places, masks, mixed, tests) = part.run.recipe.cascade, _tested(cascade, part, metric)
    positions = [
        {
            **_named(part.run, place),
            "share": float(routed.mean()),
            metric: part.estimates(scores)[metric].to_dict(),
            "minus_teacher": test,
        }
        for place, routed, scores, test in zip(places, masks, mixed, tests, strict=True)
    ]
    equal = next((place for place, test in zip(places, tests, strict=True) if test["holds"]), None)
    by_recipe = settings.top_k is not None or settings.share is not None
    share = settings.share if by_recipe else 1.0 if equal is None else float(equal)
    return {
        "n_pairs": len(part.pairs),
        "margin": settings.margin,
        "n_tested": len(tests),
        "positions": positions,
        "chosen_by": "recipe" if by_recipe else "validation",
        "top_k": settings.top_k,
        "chosen_share": share,
        "equal_from": None if equal is None else positions[list(places).index(equal)]["share"],
    }


def _level(cascade: Cascade, student_scores: np.ndarray, share: float) -> float | None:
    """Return the level of doubt from which pairs go to the teacher; None if no pair does."""
    if share == 1:
        return _EVERY_PAIR  # later pairs may have less doubt than any validation pair
    level = cascade.level(student_scores, share)
    return None if level == float("inf") else level


def _test_chosen(cascade: Cascade, part: _Part, metric: str, level: float | None, costs: _Costs) -> dict[str, Any]:
    """Test the chosen cascade on the evaluation pairs as it will run: with the chosen level of doubt."""
    settings = part.run.recipe.cascade
    if settings.top_k is not None:
        routed = part.routed(cascade, settings.top_k)
    else:
        routed = cascade.doubt(part.student) >= (float("inf") if level is None else level)
    share = float(routed.mean())
    mixed = cascade.combined(part.student, part.teacher, routed)
    equals = part.claim(metric, mixed, part.teacher, -settings.margin)
    claims = {"equals_teacher": equals, "beats_teacher": replace(equals, bound=0.0)}
    if share > 0:  # at 0 the cascade is the student
        claims["beats_student"] = part.claim(metric, mixed, part.student, 0.0)
    return {
        "share": share,
        **_named(part.run, settings.top_k or 0),
        "n_pairs": len(part.pairs),
        "margin": settings.margin,
        metric: part.estimates(mixed)[metric].to_dict(),
        **costs.of(share),
        "n_tested": len(claims),
        "tests": dict(zip(claims, judged(list(claims.values())), strict=True)),
    }


def _positions(cascade: Cascade, part: _Part, metric: str, costs: _Costs) -> list[dict[str, Any]]:
    """Return the results of every position of the dial on the evaluation pairs.

    The tests are corrected over all positions.
    """
    run, rng = part.run, np.random.default_rng(part.run.recipe.seed)
    places, masks, mixed, tests = _tested(cascade, part, metric)
    positions = []
    for place, routed, scores, test in zip(places, masks, mixed, tests, strict=True):
        blind = [
            part.value(metric, cascade.combined(part.student, part.teacher, rng.permutation(routed)))
            for _ in range(_BLIND_DRAWS)
        ]
        share = float(routed.mean())
        positions.append(
            {
                **_named(run, place),
                "share": share,
                metric: part.estimates(scores)[metric].to_dict(),
                "blind": float(np.mean(blind)),
                **costs.of(share),
                "minus_teacher": test,
                "minus_student": part.claim(metric, scores, part.student, 0.0).difference.to_dict(),
            }
        )
    return positions


@drawing()
def _draw(dial: Mapping[str, Any], path: Path) -> None:
    """Draw quality against share, with the chosen cascade, the two models alone, the margin and random routing."""
    positions, metric, chosen = dial["positions"], dial["metric"], dial["chosen"]
    shares = [100 * place["share"] for place in positions]
    values = [place[metric]["value"] for place in positions]
    figure, (axes,) = new_figure(700, 420, text=12)
    low, high = ([place[metric][end] for place in positions] for end in ("low", "high"))
    axes.fill_between(shares, low, high, alpha=0.15, color=ACCENT, linewidth=0)
    axes.plot(shares, values, "o-", color=ACCENT, markersize=4, label="cascade, evaluation pairs")
    axes.plot([100 * chosen["share"]], [chosen[metric]["value"]], "D", color=INK, markersize=8, label="chosen")
    axes.plot(shares, [place["blind"] for place in positions], ":", color=SOFT, label="the same share, drawn blindly")
    for name, color in (("teacher", INK), ("student", ACCENT)):
        axes.axhline(dial["alone"][name]["value"], color=color, linestyle="--", linewidth=1, label=f"{name} alone")
    teacher, margin = dial["alone"]["teacher"]["value"], dial["margin"]
    axes.axhspan(teacher - margin, teacher, color=INK, alpha=0.08, linewidth=0, label=f"margin of {margin:g}")
    axes.set_xlim(-2, 102)
    axes.set_xlabel("pairs that the teacher is asked, %")
    axes.set_ylabel(metric)
    axes.legend(frameon=False)
    save_png(figure, path)


def read_dial(folder: Path) -> dict[str, Any]:
    """Read the dial of a cascade's folder.

    :raises BadInput: if it is missing or damaged
    """
    dial: dict[str, Any] = read_json(folder / DIAL)
    return dial
