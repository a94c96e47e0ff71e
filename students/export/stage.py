"""Export a model folder to OpenVINO or ONNX, and compare it with torch before it is put in place.

    export_model(Path("student"), Path("student-int8"), precision="int8", calibration=train, held_back=validation)

The target is a whole sentence-transformers folder without the torch weights: stock `SentenceTransformer(path, backend=…)`
and `CrossEncoder(path, backend=…)` load it, offline too. The graph goes from token ids to the result (`distill.graphs.trace`).

    fp32           the graph; in OpenVINO pinned to f32, because the default is bf16 on a CPU that supports it
    bf16           OpenVINO: the same graph, pinned to bf16
    fp16           OpenVINO: weights stored in half the size, computed as the device chooses
    int8           weights and activations of the matrix products in int8, with static ranges: NNCF through optimum
                   (SmoothQuant) in OpenVINO, QDQ in ONNX; the rest as the device chooses. Weights have 7 bits, so that
                   CPUs with and without VNNI give the same results (`students.export.arithmetic`), and are rounded so that
                   the outputs of each layer change least (`students.export.rounding`)
    int8_weights   OpenVINO: only the weights in int8, a quarter of the size
    int4_weights   OpenVINO: as many of the transformer's weights in int4 as the gate allows, the others and the word
                   embeddings in int8 (`students.export.weights`)
    int8_dynamic   ONNX: activations in int8 with a range for each batch, so a text's result depends on its batch

The Dense layers and the score after the transformer stay in float: they are tiny, and the results depend on them most.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill import runtime
from distill._moved import moved_names
from distill.errors import BadInput, JobFailed, MatchDistillError, is_full_disk
from distill.files.artefact import (
    CARD,
    Artefact,
    ModelKind,
    check_model_folder,
    content_hash,
    revision,
    write_card,
)
from distill.files.outputs import check_output_folder, output_folder
from distill.graphs.onnx import write_tokenizer
from distill.graphs.openvino import copy_without_weights
from distill.machine.cpu import cpu_class
from distill.machine.processes import from_first_process
from distill.models.modeling import load_model, transformer_of
from distill.recipe.schema import Export, ExportFormat, ExportPrecision
from distill.run import Run
from students.asymmetric import check_side, own_side_pairs, pair_details
from students.calibrate import calibrate_export
from students.export.arithmetic import compare_arithmetics, greatest_code
from students.export.calibration import Sample, as_read, calibration_inputs
from students.export.float_layers import FFN_DOWN
from students.export.gate import (
    DEFAULT_THRESHOLDS,
    ParityReport,
    TextPairs,
    Thresholds,
    check_gate,
    compare,
    held_back_pairs,
    keep_worst,
    thresholds_of,
)
from students.export.graphs import Quantization, write_onnx_graph, write_openvino_graph
from students.export.recovery import recover_student
from students.export.rounding import SAFE_CODE
from students.export.search import Trial, fewest_float_layers, layer_errors
from students.export.weights import MOST_INPUTS, shrink

__all__ = [
    "DYNAMIC_WARNING",
    "FFN_DOWN",
    "export_model",
    "export_openvino",
    "export_student",
]

__getattr__ = moved_names(__name__)  # names from before the rename

log = logging.getLogger(__name__)

_CALIBRATED: tuple[ExportPrecision, ...] = ("int8", "int4_weights")
DYNAMIC_WARNING = (
    "dynamic int8 takes its ranges from each batch: the same text alone and beside others gets different results "
    "(cosine down to 0.96 measured); never build an index with it in batches and ask it one by one"
)


def export_student(run: Run) -> None:
    """Export the student of a run in every unfinished precision of the recipe.

    Every process of a launch calls this: one of them exports; if the student has to be recovered, all of them train.

    :raises GateFailed: if an export differs too much from torch; exports in other precisions are kept.
    """
    from accelerate import PartialState

    if run.student_section.static is not None:
        return  # a static student has no graph: see students.export.static
    for format, precision in run.recipe.export.wanted:
        if precision == "int8" and run.recipe.export.recover is not None:
            _export_or_recover(run, format)
        elif PartialState().is_main_process:
            _export(run, format, precision)
        calibrate_export(run, run.export(precision, format), format)


def _export_or_recover(run: Run, format: ExportFormat) -> None:
    """Export in int8; the first process checks whether recovery is needed, and all take part in it."""
    from accelerate import PartialState

    if not PartialState().is_main_process:
        if from_first_process(None):
            recover_student(run)
        return
    has_asked = False

    def recovered() -> Path:
        nonlocal has_asked
        has_asked = from_first_process(True)
        return recover_student(run)

    _export(run, format, "int8", recovered)
    if not has_asked:
        from_first_process(False)


def _export(
    run: Run, format: ExportFormat, precision: ExportPrecision, recovered: Callable[[], Path] | None = None
) -> None:
    settings, student = run.recipe.export, run.require(run.student, "train_student")
    described = run.split.describe()
    target, asymmetric = run.export(precision, format), run.student_section.asymmetric
    left_out = {"formats", "precisions"} if recovered is not None else {"formats", "precisions", "recover"}
    inputs = {
        "stage": "export",
        "format": format,
        "precision": precision,
        "student": student.revision,
        "export": settings.model_dump(mode="json", exclude=left_out),
        "seed": run.recipe.seed,
        "data": {part: described[part]["fingerprint"] for part in ("train", "validation")},
        **({} if asymmetric is None else {"asymmetric": asymmetric.model_dump(mode="json")}),
    }
    if run.is_finished(target, inputs):
        return
    card = run.card(student.kind, "export", inputs, {"student": student.revision}, pair_details(run))
    held_back = held_back_pairs(run)
    report = export_model(
        run.student,
        target,
        format=format,
        precision=precision,
        calibration=own_side_pairs(run, run.split.train),
        held_back=list(zip(held_back.queries, held_back.documents, strict=True)),
        n_calibration=settings.calibration_pairs,
        smooth_quant_alpha=settings.smooth_quant_alpha,
        keep_float=settings.keep_float,
        thresholds=thresholds_of(settings, precision),
        seed=run.recipe.seed,
        card=card,
        labels=held_back.labels,
        check=None if asymmetric is None else partial(_check_side, run),
        recovered=recovered,
        overwrite=True,
    )
    log.info("%s: %s", target, report.in_words)
    keep_worst(run, target, report)
    if precision == "int8_dynamic":
        log.warning("%s: %s", target, DYNAMIC_WARNING)


def _check_side(run: Run, exported: runtime.Scorer) -> dict[str, Any]:
    return {"compatibility": asdict(check_side(run, exported))}


def export_model(
    source: Path,
    target: Path,
    *,
    format: ExportFormat = "openvino",
    precision: ExportPrecision,
    held_back: TextPairs,
    calibration: TextPairs = (),
    n_calibration: int = 300,
    smooth_quant_alpha: float = 0.7,
    keep_float: Sequence[str] | Literal["ffn_down", "search"] | None = "ffn_down",
    thresholds: Thresholds | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    card: Artefact | None = None,
    check: Callable[[runtime.Scorer], dict[str, Any]] | None = None,
    labels: np.ndarray | None = None,
    recovered: Callable[[], Path] | None = None,
    may_search: bool = True,
    overwrite: bool = False,
    _overflow_safe: bool = True,
) -> ParityReport:
    """Export `source` to one graph, check it on held-out pairs, and write `target`.

    :param calibration: pairs of the user's own text for the int8 ranges and the fit of int4 weights; for a bi-encoder
        their texts are used singly.
    :param n_calibration: number of inputs drawn from them by `seed`, evenly over the lengths, one at a time and
        unpadded, because padding shifts the ranges.
    :param smooth_quant_alpha: how much of the activations' outliers is moved into the weights; -1 turns SmoothQuant
        off.
    :param keep_float: the matrix products that stay in float: regular expressions searched in the names of the graph's
        nodes, or "ffn_down" for the feed-forward down-projections, which cause almost all of the error, or "search" for
        the fewest that pass the gate (`students.export.search`). The search also runs if the gate fails.
    :param thresholds: limits for `held_back`; None is `DEFAULT_THRESHOLDS` of the precision.
    :param check: a further check of the export: returns details for its card, or raises `GateFailed`
    :param labels: of the held-out pairs, in [0, 1]: the metric on them is then part of the gate. *Shape:* (n_pairs,)
    :param recovered: returns the model after fine-tuning with simulated int8 (`students.export.recovery`). It is called
        if int8 fails the gate with `keep_float` ("search": with nothing in float). The result is exported instead of
        `source` and compared with `source`. Layers are searched for only if that fails as well.
    :param may_search: whether layers are searched for if int8 fails the gate; with False the export fails instead.
    :param card: entries on stage, recipe and data; kind, parents and details are filled in here.
    :param overwrite: replace an earlier export at the target; a folder of anything else is never replaced
    :raises BadInput: if the source is not a complete torch folder, the calibration that a precision needs is missing,
        or the target is an input, is in a model folder, or is not empty.
    :raises JobFailed: if the graph cannot be traced or quantized
    :raises GateFailed: with a table of the worst texts; nothing is put in place then.
    """
    kind = check_model_folder(source)
    check_output_folder(target, inputs=[source], ours=[CARD], overwrite=overwrite)
    _check_arguments(format, precision, held_back, calibration, n_calibration, smooth_quant_alpha)
    log.info("%s: writing a graph in %s and comparing it with torch", target, precision)
    reference = runtime.load(source, runtime="torch", precision="fp32", n_threads=n_threads, device="cpu")
    reference.side = None  # for an asymmetric student, pairs of its own side's texts are compared
    limits = DEFAULT_THRESHOLDS[precision] if thresholds is None else thresholds
    n_inputs = min(n_calibration, MOST_INPUTS) if precision == "int4_weights" else n_calibration
    sample = _calibration_inputs(reference, calibration, n_inputs, seed) if precision in _CALIBRATED else []
    quantization = Quantization(precision, sample, smooth_quant_alpha, overflow_safe=_overflow_safe)

    def judge(export: runtime.Scorer) -> ParityReport:
        report = compare(reference, export, held_back, labels, seed=seed)
        return _on_both(report, export, precision, format, held_back, n_threads)

    with output_folder(target, ours=[CARD], overwrite=overwrite) as folder:
        writer = _Writer(source, source, folder, target, format, quantization, judge, n_threads)
        if precision == "int8":
            attempt, trials, found = _int8(writer, limits, keep_float, recovered, may_search=may_search)
        else:
            attempt, found = _weights_or_float(writer, limits, "ffn_down" if keep_float == "search" else keep_float)
            trials = []
        check_gate(attempt.report, limits, source, precision)
        details = _details(attempt, format, calibration, seed, trials) | found
        details |= {} if check is None else check(attempt.exported)
        details |= {
            "runs_in": attempt.exported.precision,
            "exported_on": cpu_class(),
            "parity": attempt.report.numbers,
            "thresholds": asdict(limits),
        }
        _write_card(folder, kind, {source, writer.weights}, details, card)
    return attempt.report


def _on_both(
    report: ParityReport,
    exported: runtime.Scorer,
    precision: ExportPrecision,
    format: ExportFormat,
    held_back: TextPairs,
    n_threads: int | None,
) -> ParityReport:
    """Add the difference between the two classes of CPU, if there can be one."""
    if precision not in ("int8", "int8_dynamic"):
        return report
    arithmetic = compare_arithmetics(exported, format, held_back, n_threads)
    if arithmetic is None:
        log.warning("%s: everything is kept in float, nothing is multiplied in int8", exported.path)
        return report
    return replace(report, arithmetic=asdict(arithmetic))


@dataclass(frozen=True)
class _Attempt:
    """A graph that was written, and how close it came."""

    quantization: Quantization
    kept: Sequence[str]
    stored: Mapping[str, int]
    """How many matrix products have their weights in int4, int8 and float; known of int4_weights alone."""
    exported: runtime.Scorer
    report: ParityReport


@dataclass
class _Writer:
    """Writes attempts of one export into a folder; the folder has the last attempt."""

    source: Path
    weights: Path
    """The source, or what recovery made of it."""
    folder: Path
    target: Path
    """The final place of the folder, which messages name."""
    format: ExportFormat
    quantization: Quantization
    judge: Callable[[runtime.Scorer], ParityReport]
    n_threads: int | None

    def attempt(self, **changes: Any) -> _Attempt:
        """Write a graph of the weights and compare it; `changes` are fields of the quantization for this attempt."""
        nearest = self.weights != self.source  # recovery trains for weights of the nearest step
        quantization = replace(self.quantization, nearest=nearest, **changes)
        shutil.rmtree(self.folder)  # also the layers after the transformer, because they belong to the weights
        self.folder.mkdir()
        copy_without_weights(self.weights, self.folder)
        stored = dict[str, int]()
        try:
            if self.format == "openvino":
                kept, stored = write_openvino_graph(self.weights, self.folder, quantization)
            else:
                kept = write_onnx_graph(self.weights, self.folder, quantization)
        except Exception as error:  # a quantizer raises whatever it likes, about NaN in a layer's inputs for one
            if isinstance(error, MatchDistillError | OSError | MemoryError) or is_full_disk(error):
                raise
            log.debug("%s", self.weights, exc_info=error)
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise JobFailed(
                f"{self.weights} cannot be written in {quantization.precision} in {self.format}: {reason}; take another "
                "precision or format"
            ) from None
        exported = runtime.load(self.folder, runtime=self.format, n_threads=self.n_threads)
        if self.format == "onnx":
            write_tokenizer(self.weights, self.folder, max_length=exported.max_length)
        return _Attempt(quantization, kept, stored, exported, self.judge(exported))


def _int8(
    writer: _Writer,
    limits: Thresholds,
    keep_float: Sequence[str] | str | None,
    recovered: Callable[[], Path] | None,
    *,
    may_search: bool,
) -> tuple[_Attempt, list[Trial], dict[str, Any]]:
    """Write int8 as given; if the gate fails, recover the student, then search for layers to keep in float.

    Returns the attempt in the folder, the trials of the search, and the card's entry on recovery.
    """
    found = dict[str, Any]()
    attempt: _Attempt | None = None
    if keep_float != "search":
        attempt = writer.attempt(keep_float=keep_float)
    elif recovered is not None:
        attempt = writer.attempt()
    if recovered is not None and attempt is not None and (failures := attempt.report.failures(limits)):
        log.warning("%s: %s; recovering the student", writer.target, "; ".join(failures))
        attempt, found = _recover(writer, attempt, recovered(), limits)
    if attempt is not None:
        failures = attempt.report.failures(limits)
        # float layers do not help against weights that saturate
        if not (failures and may_search and writer.quantization.overflow_safe):
            return attempt, [], found
        log.warning("%s: %s; looking for what has to stay in float", writer.target, "; ".join(failures))
    attempt, trials = _search(writer, limits)
    if attempt.report.failures(limits) and writer.weights != writer.source:
        writer.weights = writer.source  # float layers cannot undo a change by recovery
        attempt, trials = _search(writer, limits)
        found["recovery"]["used"] = False
    return attempt, trials, found


def _weights_or_float(
    writer: _Writer, limits: Thresholds, keep_float: Sequence[str] | str | None
) -> tuple[_Attempt, dict[str, Any]]:
    """Write any other precision: int4 weights with the largest share that passes the gate, others once."""
    if writer.quantization.precision != "int4_weights":
        return writer.attempt(keep_float=keep_float), {}
    # without SmoothQuant: activations stay in float
    settings = {"smooth_quant_alpha": -1, "keep_float": None if keep_float == "ffn_down" else keep_float}
    shares = shrink(lambda share: writer.attempt(int4_share=share, **settings), limits)
    return shares[-1], _int4_card(shares, limits)


def _recover(writer: _Writer, before: _Attempt, recovered: Path, limits: Thresholds) -> tuple[_Attempt, dict[str, Any]]:
    """Export the recovered weights in the same way; keep them, also for a search, if they are closer to the source."""
    writer.weights = recovered
    after = writer.attempt(keep_float=before.quantization.keep_float)
    is_better = not after.report.failures(limits) or after.report.closeness > before.report.closeness
    parity = {"before": before.report.numbers, "after": after.report.numbers}
    details = {"recovery": {"revision": revision(recovered), "used": is_better, **parity}}
    log.info(
        "recovered with int8 simulated: %s before, %s after%s",
        before.report.in_words,
        after.report.in_words,
        "" if is_better else "; that is no gain, the student stays as it was",
    )
    if not is_better:
        writer.weights = writer.source
    return (after if is_better else before), details


def _search(writer: _Writer, limits: Thresholds) -> tuple[_Attempt, list[Trial]]:
    """Find the layers that have to stay in float; the folder then has the returned attempt."""
    attempt: _Attempt | None = None

    def judged(alpha: float, keep: tuple[str, ...]) -> ParityReport:
        nonlocal attempt
        attempt = writer.attempt(smooth_quant_alpha=alpha, keep_float=keep)
        return attempt.report

    def errors(alpha: float) -> dict[str, float]:
        transformer = transformer_of(load_model(writer.weights)).eval()
        return layer_errors(
            transformer,
            writer.quantization.sample,
            alpha=alpha,
            smooths_all=writer.format == "openvino",
            nearest=writer.weights != writer.source,
        )

    best, trials = fewest_float_layers(judged, errors, limits)
    if attempt is None or best is not trials[-1]:  # the folder has the last trial
        attempt = writer.attempt(smooth_quant_alpha=best.alpha, keep_float=best.keep_float)
    return attempt, trials


def _details(
    attempt: _Attempt, format: ExportFormat, calibration: TextPairs, seed: int, trials: Sequence[Trial]
) -> dict[str, Any]:
    precision = attempt.quantization.precision
    details: dict[str, Any] = {"format": format, "precision": precision}
    if precision in _CALIBRATED:
        details["calibration"] = _calibration_card(attempt, calibration, seed)
    if trials:
        details["search"] = {"kept_float": list(attempt.kept), "trials": [trial.described() for trial in trials]}
    if precision in ("int8", "int8_dynamic"):
        code = greatest_code(attempt.exported.path, format)
        details["overflow_safe"] = code is None or code <= SAFE_CODE
    if precision == "int8_dynamic":
        details["warning"] = DYNAMIC_WARNING
    return details


def _int4_card(attempts: Sequence[_Attempt], limits: Thresholds) -> dict[str, Any]:
    last_attempt = attempts[-1]
    trials = [
        {
            "int4_share": attempt.quantization.int4_share,
            "rank_agreement": attempt.report.rank_agreement,
            "mean_cosine": attempt.report.mean_cosine,
            "min_cosine": attempt.report.min_cosine,
            "holds": not attempt.report.failures(limits),
        }
        for attempt in attempts
    ]
    return {
        "weights": dict(last_attempt.stored),
        "search": {"int4_share": last_attempt.quantization.int4_share, "trials": trials},
    }


export_openvino = partial(export_model, format="openvino")
"""`export_model` to OpenVINO."""


def _check_arguments(
    format: ExportFormat,
    precision: ExportPrecision,
    held_back: TextPairs,
    calibration: TextPairs,
    n_calibration: int,
    smooth_quant_alpha: float,
) -> None:
    if format not in Export.PRECISIONS:
        raise BadInput(f"format {format!r} is not known; accepted: {', '.join(Export.PRECISIONS)}")
    if precision not in Export.PRECISIONS[format]:
        raise BadInput(
            f"precision {precision!r} is not known in {format}; accepted: {', '.join(Export.PRECISIONS[format])}"
        )
    if len(held_back) < 2:
        raise BadInput(f"{len(held_back)} held-back pairs; at least 2 (better 200) are needed to check the export")
    if precision in _CALIBRATED and (not calibration or n_calibration < 1):
        raise BadInput(
            f"{precision} needs calibration pairs: some hundred of the texts that the model will see; give them"
        )
    if not (smooth_quant_alpha == -1 or 0 <= smooth_quant_alpha <= 1):
        raise BadInput(f"smooth_quant_alpha {smooth_quant_alpha}; 0 to 1 is accepted, or -1 for no SmoothQuant")


# ---------------------------------------------------------------------------------------------------------------------
# The folder
# ---------------------------------------------------------------------------------------------------------------------


def _write_card(
    folder: Path, kind: ModelKind, sources: set[Path], details: dict[str, Any], card: Artefact | None
) -> None:
    parents = {source.name: revision(source) for source in sorted(sources)}
    inputs = {"parents": parents, **{name: details.get(name) for name in ("format", "precision", "calibration")}}
    base = card or Artefact(kind=kind, stage="export", fingerprint=content_hash(inputs))
    full_card = replace(base, kind=kind, parents={**parents, **base.parents}, details={**base.details, **details})
    write_card(folder, full_card)


def _calibration_inputs(reference: runtime.Scorer, pairs: TextPairs, n_inputs: int, seed: int) -> Sample:
    pairs = as_read(reference.kind, reference.path, pairs)
    return calibration_inputs(reference.kind, reference.tokenizer, reference.max_length, pairs, n_inputs, seed)


def _calibration_card(attempt: _Attempt, pairs: TextPairs, seed: int) -> dict[str, Any]:
    sample, keep_float = attempt.quantization.sample, attempt.quantization.keep_float
    lengths = [inputs["input_ids"].shape[1] for inputs in sample]
    return {
        "fingerprint": content_hash([inputs["input_ids"].tolist() for inputs in sample]),
        "n_pairs_given": len(pairs),
        "n_inputs": len(sample),
        "tokens": {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths)},
        "seed": seed,
        "smooth_quant_alpha": attempt.quantization.smooth_quant_alpha,
        "keep_float": keep_float if keep_float is None or isinstance(keep_float, str) else list(keep_float),
        "n_kept_float": len(attempt.kept),
    }
