"""Ask the teachers once for all that the student needs, and cache what they say.

Any number of processes may label side by side; each takes its part of what is missing and writes its own shards.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill.cut_texts import sample_cut_texts
from distill.data import Pairs, batched
from distill.errors import JobFailed
from distill.modeling import quiet
from distill.openvino import GraphPrecision, export_graph
from distill.progress import progress
from distill.recipe import Teacher
from distill.run import Run
from distill.runtime import Scorer, load
from distill.signals import SignalCache, SignalKind, describe_scores, pair_keys, text_keys

__all__ = ["cache_signals"]

log = logging.getLogger(__name__)
_LEAST_SPREAD = 1e-4  # of scores in logits or cosines: below it a teacher says the same of everything


def cache_signals(run: Run) -> None:
    """Fill the cache of every teacher that an objective names; what is cached already is not asked again."""
    if run.recipe.signals.live:
        log.info("signals.live is set: the teachers are asked during training, nothing is cached")
        return
    for name, needs in run.recipe.objectives.teachers().items():
        _label(run, name, run.recipe.teachers[name], needs)


def _label(run: Run, name: str, teacher: Teacher, needs: set[str]) -> None:
    from accelerate import PartialState

    began, state, pairs = time.monotonic(), PartialState(), run.split.train
    cache = SignalCache(run.signals(name), run.signal_identity(name))
    items = _items(run, teacher, needs)
    cut = cache.summary("cut_texts")
    todo = {kind: rows for kind, (keys, _) in items.items() if len(rows := cache.missing(kind, keys))}
    state.wait_for_everyone()  # all have looked before the first writes
    if todo:
        scorer = _load_teacher(run, name)
        cut = _cut_texts(name, scorer, items, say=state.is_main_process)
        for kind, rows in todo.items():
            _fill(run, cache, kind, rows, items[kind], scorer, title=f"{name}: {kind}")
    state.wait_for_everyone()
    cache.refresh()
    if state.is_main_process:
        scores = (
            cache.read("scores", cache.find("scores", pair_keys(pairs.queries, pairs.documents), "scores"))
            if "scores" in needs
            else None
        )
        summary = {"scores": _described(name, scores, pairs, teacher)} if scores is not None else {}
        summary |= {} if cut is None else {"cut_texts": cut}
        cache.finish(summary, time.monotonic() - began)
        log.info("signals of %s: %s", name, cache.folder)


def _items(run: Run, teacher: Teacher, needs: set[str]) -> dict[SignalKind, tuple[np.ndarray, Any]]:
    """Return keys and inputs of every item: pairs for scores, prompted texts for embeddings."""
    pairs, prompts = run.taught_pairs, teacher.prompts or ("", "")
    items: dict[SignalKind, tuple[np.ndarray, Any]] = {}
    if "scores" in needs:
        items["scores"] = (pair_keys(pairs.queries, pairs.documents), pairs)
    if "embeddings" in needs:
        own_role = _own_role(run)
        queries = [prompts[0] + text for text in pairs.queries]
        documents = [prompts[1] + text for text in pairs.documents]
        sources = (source for source, _ in run.split.parallel)  # their translations are to match the same embedding
        lone = [prompts[1 if own_role is None else own_role] + text for text in (*run.split.unlabelled, *sources)]
        if own_role is not None:  # one side is learned, and validated, against the teacher's vectors of the other
            queries += [prompts[0] + text for text in run.split.validation.queries]
            documents += [prompts[1] + text for text in run.split.validation.documents]
        texts = list(dict.fromkeys([*queries, *documents, *lone]))
        items["embeddings"] = (text_keys(texts), texts)
    return items


def _cut_texts(name: str, scorer: Scorer, items: Mapping[SignalKind, tuple[np.ndarray, Any]], *, say: bool) -> Any:
    """Return, by kind of signal, how much of what the teacher is asked its `max_length` cuts off."""
    counted = {}
    for kind, (_, inputs) in items.items():
        texts = (inputs.queries, inputs.documents) if kind == "scores" else (inputs,)
        cut = sample_cut_texts(scorer.tokenizer, *texts, max_length=scorer.max_length)
        counted[kind] = cut.to_json()
        if say:
            cut.say(f"{name}: {kind}")
    return counted


def _own_role(run: Run) -> int | None:
    student = run.recipe.student
    return None if student is None or student.asymmetric is None else student.asymmetric.role


def _load_teacher(run: Run, name: str) -> Scorer:
    """Load a teacher for labelling; for OpenVINO its graph is made in the work folder first."""
    import torch
    from accelerate import PartialState

    signals, teacher, state = run.recipe.signals, run.recipe.teachers[name], PartialState()
    precision = run.signal_identity(name).precision
    with quiet():
        if signals.runtime == "openvino" and not torch.cuda.is_available():
            with state.main_process_first():
                folder = _graph(run, name, precision)
            return load(folder, runtime="openvino", precision=precision, max_length=teacher.max_length)
        device = str(state.device)
        return load(
            run.teacher(name),
            runtime="torch",
            precision=precision,
            max_length=teacher.max_length,
            device=device,
        )


def _graph(run: Run, name: str, precision: GraphPrecision) -> Path:
    """Return the teacher as an OpenVINO folder; it is made once for each of its revisions."""
    revision = run.require(run.teacher(name), "train_teacher").revision
    target = run.work / f"graph-{name}-{revision}-{precision}"
    if not target.exists():
        export_graph(run.teacher(name), target, precision)
    return target


def _fill(
    run: Run,
    cache: SignalCache,
    kind: SignalKind,
    rows: np.ndarray,
    items: tuple[np.ndarray, Any],
    scorer: Scorer,
    title: str,
) -> None:
    from accelerate import PartialState

    state, (keys, inputs) = PartialState(), items
    mine = rows[state.process_index :: state.num_processes]
    with progress(title, len(keys), start=len(keys) - len(rows), show=state.is_main_process) as report:
        for chunk in batched(mine.tolist(), run.recipe.signals.shard_size):
            values = _ask(scorer, kind, inputs, np.asarray(chunk), lambda n: report(n * state.num_processes))
            if not np.isfinite(values).all():
                raise JobFailed(
                    f"{title}: the teacher says NaN or infinity of {int((~np.isfinite(values)).sum())} items; set signals.precision=fp32, or train it again"
                )
            cache.write(kind, keys[chunk], values)


def _ask(scorer: Scorer, kind: SignalKind, inputs: Any, rows: np.ndarray, report: Any) -> np.ndarray:
    if kind == "scores":
        chosen: Pairs = inputs.select(rows.tolist())
        return scorer.score(chosen.queries, chosen.documents, progress=report)
    return scorer.encode([inputs[row] for row in rows], progress=report)


def _described(name: str, scores: np.ndarray, pairs: Pairs, teacher: Teacher) -> dict[str, Any]:
    """Describe the scores, say so, and refuse those that teach nothing."""
    described = describe_scores(scores, pairs.labels, teacher.model_kind)
    log.info(
        "%s scores: %s",
        name,
        ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in described.items()
        ),
    )
    if described["std"] < _LEAST_SPREAD:
        raise JobFailed(
            f"the scores of teacher {name} are all but equal (std {described['std']:.2g}): a student learns nothing from them; train the teacher longer or with another learning rate"
        )
    if described["share_saturated"] > 0.9:
        log.warning(
            "%.0f %% of the scores of teacher %s are saturated: match logits (score_match.loss logit_mse or kl), or raise score_match.temperature",
            100 * described["share_saturated"],
            name,
        )
    return described
