"""What the shapes of a plan are variations of: an encoder's config and tokenizer, for each size of the vocabulary.

A fresh encoder's tokenizer is trained on the recipe's text, as the student's will be. A teacher's, or a named encoder's,
is what the recipe's vocabulary surgery makes of it; the surgery is done once on a single layer with random weights.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distill.backbone import fresh_backbone, resolve_name
from distill.modeling import build_model, loading, quiet, tokenizer_of, transformer_of
from distill.recipe import Backbone, FreshBackbone, Student, TeacherBackbone, Vocabulary
from distill.run import Run
from students.corpus import change_vocabulary, factorise, student_corpus

__all__ = ["Base", "base_of", "cut_bases", "fresh_bases"]

_VOCABULARY = (32000,)


@dataclass(frozen=True)
class Base:
    """A config and a tokenizer; `section` is what the recipe's student says of this vocabulary."""

    config: Any
    tokenizer: Any
    n_layers: int
    section: dict[str, Any] = field(default_factory=dict)


def fresh_bases(run: Run, texts: Sequence[str], max_length: int) -> dict[int, Base]:
    """Return a fresh encoder for each vocabulary of the plan, by the size that it reaches on these texts."""
    plan, bases = run.recipe.plan, {}
    for wanted in plan.vocabulary or _VOCABULARY:
        settings = FreshBackbone(
            tokenizer="unigram" if plan.family == "xlm-roberta" else "wordpiece", vocabulary=wanted,
            layers=1, width=16, heads=1, max_length=max_length,
        )  # fmt: skip
        base = base_of(run, settings, texts)
        if run.recipe.data.train == "bundled":  # stands in for a text that would fill it
            base = replace(base, tokenizer=_filled(base.tokenizer, wanted))
        base.config.vocab_size = len(base.tokenizer)
        bases[len(base.tokenizer)] = base
    return bases


def cut_bases(run: Run, backbone: str | TeacherBackbone, texts: Sequence[str]) -> dict[int, Base]:
    """Return an encoder to cut layers from, for each vocabulary that the plan, or the student's section, makes of its own."""
    whole, student, sizes = base_of(run, backbone, texts), run.recipe.student, run.recipe.plan.vocabulary
    own = None if student is None else student.vocabulary
    wanted: list[Vocabulary | None] = [own]
    if sizes is not None:
        corpus = () if own is None else own.texts
        wanted = [Vocabulary.model_validate({"trim": {"size": size}, "texts": corpus}) for size in sizes]
    rank = None if student is None else student.embedding_rank
    changed = [_changed(run, backbone, whole, vocabulary, rank) for vocabulary in wanted]
    return {int(base.config.vocab_size): base for base in changed}


def _changed(run: Run, backbone: Backbone, whole: Base, vocabulary: Vocabulary | None, rank: int | None) -> Base:
    """Do to one random layer of the encoder what the stage build_student would do to the whole."""
    if vocabulary is None and rank is None:
        return whole
    section = {"backbone": backbone, "vocabulary": vocabulary, "embedding_rank": rank}
    student = run.recipe.student or Student(kind="bi_encoder", backbone=backbone)
    planned = Run(run.recipe.model_copy(update={"student": student.model_copy(update=section)}))
    planned.split = run.split
    model, corpus = _one_layer(whole, student.max_length, run.recipe.seed), student_corpus(planned)
    with quiet():
        if vocabulary is not None:
            change_vocabulary(model, vocabulary, corpus, seed=run.recipe.seed)
        if rank is not None:
            factorise(model, rank, corpus)
    stated = {} if vocabulary is None else {"vocabulary": vocabulary.model_dump(mode="json", exclude_defaults=True)}
    return Base(transformer_of(model).config, tokenizer_of(model), whole.n_layers, stated)


def _one_layer(whole: Base, max_length: int, seed: int) -> Any:
    import torch
    from transformers import AutoModel

    config = copy.deepcopy(whole.config)
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:1]
    torch.manual_seed(seed)
    with quiet(), TemporaryDirectory() as folder:
        AutoModel.from_config(config, dtype=torch.float32).save_pretrained(folder)
        whole.tokenizer.save_pretrained(folder)
        return build_model("bi_encoder", Path(folder), max_length=max_length, seed=seed)


def base_of(run: Run, backbone: Backbone, texts: Sequence[str]) -> Base:
    """Return an encoder's config and tokenizer; a teacher, trained or not, has the shape of its own backbone."""
    from transformers import AutoConfig, AutoTokenizer

    name = _encoder_of(run, backbone, texts)
    with quiet(), loading(name):
        config = AutoConfig.from_pretrained(name)
        return Base(config, AutoTokenizer.from_pretrained(name), int(config.num_hidden_layers))


def _encoder_of(run: Run, backbone: Backbone, texts: Sequence[str]) -> str:
    if isinstance(backbone, str):
        return resolve_name(backbone)
    if isinstance(backbone, FreshBackbone):
        with quiet():
            return str(fresh_backbone(backbone, texts, seed=run.recipe.seed, folder=run.work / "backbones"))
    return _encoder_of(run, run.recipe.teachers[backbone.teacher].backbone, texts)


def _filled(tokenizer: Any, n_pieces: int) -> Any:
    """Fill a vocabulary up with pieces that no text has: its file then weighs what a full one would."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, n_missing = state["model"]["vocab"], n_pieces - len(tokenizer)
    fillers = [f"##쓰임{place:05}" for place in range(max(n_missing, 0))]
    if isinstance(vocabulary, dict):
        vocabulary |= {piece: len(tokenizer) + place for place, piece in enumerate(fillers)}
    else:
        lowest = min(score for _, score in vocabulary)
        vocabulary += [[piece, lowest] for piece in fillers]
    filled = copy.deepcopy(tokenizer)
    filled._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(state))
    return filled
