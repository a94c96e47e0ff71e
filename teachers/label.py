"""Run the teachers once over all texts and pairs that the student needs, and cache their signals.

Any number of processes may label at the same time; each computes its part of the missing signals and writes its own
shards.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.cut_texts import sample_cut_texts
from distill.data.pairs import Pairs, batched, pairs_of
from distill.diagnosis.scores import check_scale
from distill.diagnosis.teachers import check_tokens
from distill.errors import JobFailed
from distill.files.artefact import read_card, revision
from distill.graphs.openvino import GraphPrecision, export_graph
from distill.models.modeling import quiet
from distill.progress import progress, reaching
from distill.ray.cluster import Actors
from distill.ray.labelling import TeacherFolder, ask, ask_on_ray
from distill.recipe.objectives import SignalKind
from distill.run import Run
from distill.runtime.opening import LoadArguments, load
from distill.runtime.scorer import Scorer
from distill.scorers.black_box import BlackBoxScorer, open_asked
from distill.scorers.token_scorer import TokenScorer
from distill.signals import SignalCache, describe_scores, pair_keys, text_keys
from distill.training.learnable import LEAST_SPREAD, all_alike, unrelated
from distill.training.read_texts import are_read
from distill.training.unlabelled import taught_pairs
from distill.wording import in_dollars
from teachers.black_boxes import check_black_box, describe_black_box, is_trained, mapped_range

__all__ = ["cache_signals"]

log = logging.getLogger(__name__)
_COMPARED_TEXTS = 4096  # whose embeddings are compared


def cache_signals(run: Run, actors: Actors | None = None) -> None:
    """Fill the signal cache of every teacher that an objective names; cached signals are not computed again.

    :param actors: processes of a Ray cluster that run the models and can read the run's folder; None is this process
    """
    if run.recipe.signals.live:
        log.info("signals.live is set: the teachers are asked during training, nothing is cached")
        return
    names = dict.fromkeys(name for stage in run.stages for name in stage.recipe.objectives.teachers())
    _describe_black_boxes(run, list(names))
    for name in names:
        _label(run, name, actors)


def _describe_black_boxes(run: Run, names: Sequence[str]) -> None:
    """Check black boxes that the run does not hold yet, and write their folders: there is nothing to train in them."""
    from accelerate import PartialState

    state = PartialState()
    new = [name for name in names if name in run.recipe.black_boxes and read_card(run.teacher(name)) is None]
    state.wait_for_everyone()  # all have looked before the first one writes
    for name in new:
        if state.is_main_process:
            check_black_box(run, name)
        describe_black_box(run.for_teachers, name)


def _asking(run: Run, name: str, kind: SignalKind) -> list[Run]:
    """Return the stages that need signals of this kind from a teacher."""
    return [stage for stage in run.stages if kind in stage.recipe.objectives.teachers().get(name, set())]


def _label(run: Run, name: str, actors: Actors | None) -> None:
    from accelerate import PartialState

    began, state = time.monotonic(), PartialState()
    cache = SignalCache(run.signals(name), run.signal_identity(name))
    if any(prompts := run.teacher_prompts(name)):
        log.info("teacher %s: %r before queries, %r before documents", name, *prompts)
    items = _items(run, name)
    cut, cost = cache.summary("cut_texts"), cache.summary("cost")
    todo = {kind: rows for kind, (keys, _) in items.items() if len(rows := cache.missing(kind, keys))}
    state.wait_for_everyone()  # all have listed what is missing before the first one writes
    if todo:
        scorer = _load_teacher(run, name)
        if not isinstance(scorer, BlackBoxScorer):
            cut = _cut_texts(name, scorer, items, say=state.is_main_process)
            if state.is_main_process:
                _say_what_it_cannot_read(name, scorer, items)
        on_actors = None if actors is None else _teacher_on_actors(run, name, scorer, actors)
        for kind, rows in todo.items():
            missing, title, size = _Missing(kind, *items[kind], rows), f"{name}: {kind}", run.recipe.signals.shard_size
            if on_actors is None:
                _fill(cache, missing, scorer, title, size)
            else:
                _fill_on_ray(cache, missing, on_actors, title, size)
        cost = scorer.cost() if isinstance(scorer, BlackBoxScorer) else None
    state.wait_for_everyone()
    cache.refresh()
    if state.is_main_process:
        summary = {}
        for stage in _asking(run, name, "scores"):  # the last stage's description is kept
            train = stage.split.train
            rows = cache.find("scores", pair_keys(train.queries, train.documents), "scores")
            summary["scores"] = _described(stage, name, cache.read("scores", rows))
        if "embeddings" in items:
            keys = items["embeddings"][0][:_COMPARED_TEXTS]
            if len(keys) and all_alike(cache.read("embeddings", cache.find("embeddings", keys, "embeddings"))):
                raise JobFailed(
                    f"teacher {name} gives every text the same embedding: a student learns nothing from it; take another teacher, "
                    f"and remove {run.signals(name)}"
                )
        summary |= {key: value for key, value in {"cut_texts": cut, "cost": cost}.items() if value is not None}
        if cost is not None:
            log.info("teacher %s: %s spent so far, %d requests", name, in_dollars(cost["dollars"]), cost["requests"])
        cache.finish(summary, time.monotonic() - began)
        log.info("signals of %s: %s", name, cache.folder)


@dataclass(frozen=True)
class _Texts:
    """Texts to embed and their roles: 0 for a query, 1 for a document."""

    roles: list[int]
    texts: list[str]

    @classmethod
    def once(cls, parts: Iterable[tuple[int, Iterable[str]]]) -> "_Texts":
        """Return each text of a role once, in order of first occurrence."""
        seen: tuple[set[str], set[str]] = (set(), set())
        roles, texts = list[int](), list[str]()
        for role, part_texts in parts:
            for text in part_texts:
                if text not in seen[role]:
                    seen[role].add(text)
                    roles.append(role)
                    texts.append(text)
        return cls(roles, texts)

    def only(self, wanted: np.ndarray) -> "_Texts":
        """Return some of them. *Shape:* wanted: (n_texts,) bool."""
        return _Texts(list(compress(self.roles, wanted)), list(compress(self.texts, wanted)))


def _items(run: Run, name: str) -> dict[SignalKind, tuple[np.ndarray, Pairs | _Texts]]:
    """Return keys and inputs of every item: pairs for scores, texts for embeddings."""
    items: dict[SignalKind, tuple[np.ndarray, Pairs | _Texts]] = {}
    if stages := _asking(run, name, "scores"):
        parts = [_pairs(stage, name) for stage in stages]
        pairs = parts[0] if len(parts) == 1 else pairs_of(pair for part in parts for pair in _tuples(part))
        items["scores"] = (pair_keys(pairs.queries, pairs.documents), pairs)
    if stages := _asking(run, name, "embeddings"):
        texts = _Texts.once(part for stage in stages for part in _texts_to_embed(stage, name))
        texts = texts.only(are_read(texts.texts, run.recipe.teachers[name].scripts))
        prompts = run.teacher_prompts(name)
        # if both roles have the same prompt, a text has one key in both, and is computed once
        prompted = [prompts[role] + text for role, text in zip(texts.roles, texts.texts, strict=True)]
        items["embeddings"] = (text_keys(prompted), texts)
    return items


def _pairs(run: Run, name: str) -> Pairs:
    """Return the pairs of one stage, including those on which a mixture is calibrated."""
    pairs = taught_pairs(run)
    if name in run.recipe.objectives.mixed_teachers:
        validation = run.split.validation
        pairs = Pairs([*pairs.queries, *validation.queries], [*pairs.documents, *validation.documents])
    return pairs


def _tuples(pairs: Pairs) -> list[tuple[str, str]]:
    return list(zip(pairs.queries, pairs.documents, strict=True))


def _texts_to_embed(run: Run, name: str) -> list[tuple[int, Iterable[str]]]:
    """Return the texts of one stage by their roles."""
    pairs, own_role = _pairs(run, name), _own_role(run)
    lone_role = 1 if own_role is None else own_role
    sources = (source for source, _ in run.split.parallel)  # a translation matches the embedding of its source
    texts: list[tuple[int, Iterable[str]]] = [(0, pairs.queries), (1, pairs.documents)]
    if own_role is not None:  # one side is learned, and validated, against the teacher's vectors of the other
        validation = run.split.validation
        texts = [(0, chain(pairs.queries, validation.queries)), (1, chain(pairs.documents, validation.documents))]
    return [*texts, (lone_role, run.split.unlabelled), (lone_role, sources)]


def _cut_texts(
    name: str,
    scorer: Scorer | TokenScorer,
    items: Mapping[SignalKind, tuple[np.ndarray, Pairs | _Texts]],
    *,
    say: bool,
) -> Any:
    """Return by kind of signal how much of the teacher's input its `max_length` cuts off."""
    counts = {}
    for kind, (_, inputs) in items.items():
        cuts = scorer.cut_texts(*_sides(inputs)) if isinstance(scorer, TokenScorer) else {}
        if isinstance(scorer, Scorer):
            texts = _read_texts(inputs)
            room = scorer.max_length - scorer.n_template_tokens
            cuts = {"": sample_cut_texts(scorer.tokenizer, *texts, max_length=room)}
        for side, cut in cuts.items():
            counts[f"{kind} {side}".strip()] = cut.to_json()
            if say:
                cut.say(f"{name}: {kind} {side}".strip())
    return counts


def _say_what_it_cannot_read(
    name: str, scorer: Scorer | TokenScorer, items: Mapping[SignalKind, tuple[np.ndarray, Pairs | _Texts]]
) -> None:
    """Warn of a script that the teacher's tokenizer does not know: its signals for such texts mean little."""
    texts = [text for _, inputs in items.values() for side in _read_texts(inputs) for text in side]
    for finding in check_tokens(f"teacher {name}", scorer.tokenizer, texts):
        log.warning("%s", finding.line)


def _read_texts(inputs: Pairs | _Texts) -> tuple[Sequence[str], ...]:
    """Return the queries and documents of pairs, or single texts, as they are; `_sides` removes repeats."""
    return (inputs.queries, inputs.documents) if isinstance(inputs, Pairs) else (inputs.texts,)


def _sides(inputs: Pairs | _Texts) -> tuple[list[str], list[str]]:
    """Return the distinct queries and documents of a teacher's input."""
    if isinstance(inputs, Pairs):
        return list(dict.fromkeys(inputs.queries)), list(dict.fromkeys(inputs.documents))
    is_document = np.array(inputs.roles, dtype=bool)
    return inputs.only(~is_document).texts, inputs.only(is_document).texts


def _own_role(run: Run) -> int | None:
    student = run.recipe.student
    return None if student is None or student.asymmetric is None else student.asymmetric.role


def _load_teacher(run: Run, name: str) -> Scorer | BlackBoxScorer | TokenScorer:
    """Load a teacher for labelling."""
    from accelerate import PartialState

    if name in run.recipe.black_boxes:
        with quiet():
            return open_asked(run, name, device=str(PartialState().device))
    with quiet():
        folder, opening = _opening(run, name)
        opening["device"] = str(PartialState().device) if opening["runtime"] == "torch" else None
        return load(folder, **opening)


def _opening(run: Run, name: str) -> tuple[Path, LoadArguments]:
    """Return a teacher's folder and the arguments to load it; for OpenVINO the graph is first made in `.work`."""
    from accelerate import PartialState

    identity = run.signal_identity(name)
    opening = LoadArguments(
        runtime="openvino" if identity.runtime == "openvino" else "torch",
        precision=identity.precision,
        max_length=run.recipe.models[name].max_length,
    )
    if opening["runtime"] == "torch":
        return run.teacher(name), opening
    with PartialState().main_process_first():
        return _graph(run, name, identity.precision), opening


def _teacher_on_actors(
    run: Run, name: str, scorer: Scorer | BlackBoxScorer | TokenScorer, actors: Actors
) -> "_TeacherOnActors | None":
    """Return the teacher in the form that actors open; None if this process has to compute its signals (logged)."""
    if not isinstance(scorer, Scorer):
        log.info("teacher %s is asked by this process: actors open models of embeddings or pairs alone", name)
        return None
    folder, opening = _opening(run, name)
    return _TeacherOnActors(TeacherFolder(folder.absolute(), revision(folder), opening), actors)


def _graph(run: Run, name: str, precision: GraphPrecision) -> Path:
    """Return the teacher as an OpenVINO folder, which is made once per revision."""
    revision = run.require(run.teacher(name), "train_teacher").revision
    target = run.work / f"graph-{name}-{revision}-{precision}"
    if not target.exists():
        export_graph(run.teacher(name), target, precision)
    return target


@dataclass(frozen=True)
class _Missing:
    """The signals of one kind that a cache lacks."""

    kind: SignalKind
    keys: np.ndarray
    inputs: Pairs | _Texts
    """The keys of all items; `rows` are the missing ones."""
    rows: np.ndarray

    def columns(self, rows: Sequence[int]) -> dict[str, list[Any]]:
        """Return the inputs of some rows as columns: query and document of pairs, or role and text."""
        inputs = self.inputs
        if isinstance(inputs, Pairs):
            return {
                "query": [inputs.queries[row] for row in rows],
                "document": [inputs.documents[row] for row in rows],
            }
        return {"role": [inputs.roles[row] for row in rows], "text": [inputs.texts[row] for row in rows]}


def _fill(
    cache: SignalCache, missing: _Missing, scorer: Scorer | BlackBoxScorer | TokenScorer, title: str, shard_size: int
) -> None:
    from accelerate import PartialState

    state, n_items, n_left = PartialState(), len(missing.keys), len(missing.rows)
    n_asking, own_rows = state.num_processes, missing.rows[state.process_index :: state.num_processes]
    if isinstance(scorer, BlackBoxScorer):  # only one process calls a server, within one budget
        n_asking, own_rows = 1, missing.rows[: n_left * state.is_main_process]
        if scorer.runtime == "file":  # a file is read once for all items
            shard_size = max(n_left, 1)
    with progress(title, n_items, start=n_items - n_left, show=state.is_main_process) as report:
        for chunk in batched(own_rows.tolist(), shard_size):
            n_done = min(n_left, len(chunk) * n_asking)  # the other processes are about as far
            n_left -= n_done
            with reaching(report, n_done) as count:
                values = _ask(scorer, missing, np.asarray(chunk), lambda n: count(n * n_asking))
            _store(cache, missing, chunk, values, title)


@dataclass(frozen=True)
class _TeacherOnActors:
    """A teacher, and the actors of a cluster that run it."""

    teacher: TeacherFolder
    actors: Actors


def _fill_on_ray(
    cache: SignalCache, missing: _Missing, on_actors: _TeacherOnActors, title: str, shard_size: int
) -> None:
    """Fill a cache with the same shards that one process writes."""
    parts = list(batched(missing.rows.tolist(), shard_size))
    chunks = [missing.columns(part) for part in parts]
    n_items = len(missing.keys)
    with progress(title, n_items, start=n_items - len(missing.rows)) as report:
        for number, values in ask_on_ray(on_actors.teacher, missing.kind, chunks, on_actors.actors):
            _store(cache, missing, parts[number], values, title)
            report(len(parts[number]))


def _store(cache: SignalCache, missing: _Missing, rows: Sequence[int], values: np.ndarray, title: str) -> None:
    if not np.isfinite(values).all():
        raise JobFailed(
            f"{title}: the teacher gives NaN or infinity for {int((~np.isfinite(values)).sum())} items; set signals.precision=fp32, or train it again"
        )
    cache.write(missing.kind, missing.keys[np.asarray(rows)], values)


def _ask(scorer: Scorer | BlackBoxScorer | TokenScorer, missing: _Missing, rows: np.ndarray, report: Any) -> np.ndarray:
    columns = missing.columns(rows.tolist())
    if missing.kind == "embeddings" and isinstance(scorer, BlackBoxScorer):
        return scorer.encode_by_role(columns["text"], columns["role"], report)
    return ask(scorer, missing.kind, columns, report)


def _described(run: Run, name: str, scores: np.ndarray) -> dict[str, Any]:
    """Describe and log the scores, and refuse scores that teach nothing."""
    labels = run.split.train.labels
    described = describe_scores(scores, labels, run.recipe.teachers[name].model_kind)
    log.info(
        "%s scores: %s",
        name,
        ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in described.items()
        ),
    )
    if described["std"] < LEAST_SPREAD:
        raise JobFailed(
            f"the scores of teacher {name} are nearly equal (std {described['std']:.2g}): a student learns nothing from them; train the teacher longer or with another learning rate"
        )
    kind, score_range = run.recipe.teachers[name].model_kind, mapped_range(run, name)
    is_known = is_trained(run, name)
    for finding in check_scale(f"signals of {name}", scores, kind, score_range=score_range, is_known=is_known):
        log.warning("%s", finding.line)
    problem = unrelated(f"the scores of teacher {name}", scores, labels)
    if problem is not None:
        if not run.recipe.signals.allow_unrelated:
            raise JobFailed(problem)
        log.warning("%s (signals.allow_unrelated is set)", problem)
    if described["share_saturated"] > 0.9:
        log.warning(
            "%.0f %% of the scores of teacher %s are saturated: match logits (score_match.loss logit_mse or kl), or raise score_match.temperature",
            100 * described["share_saturated"],
            name,
        )
    return described
