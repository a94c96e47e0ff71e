"""The encoders that a plan's shapes are derived from: a config and a tokenizer for each vocabulary size.

A fresh encoder's tokenizer is trained on the recipe's text, as the student's will be. A teacher or a named encoder gets
the recipe's changes of vocabulary and width, applied once to a single layer with random weights.
"""

import copy
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distill.errors import BadInput
from distill.files.trust import check_source, load_auto
from distill.models.backbone import fresh_backbone, resolve_name
from distill.models.modeling import build_model, loading, quiet, tokenizer_of, transformer_of
from distill.recipe.schema import (
    PLANNED_VOCABULARY,
    Backbone,
    FreshBackbone,
    Student,
    TeacherBackbone,
    Trim,
    Vocabulary,
    Width,
)
from distill.run import Run
from students.cut.importance import pair_batches
from students.cut.width import narrow
from students.vocabulary.corpus import change_vocabulary, factorise, student_corpus

__all__ = ["Base", "base_of", "cut_bases", "fresh_bases"]


@dataclass(frozen=True)
class Base:
    """A config and a tokenizer; `section` holds the recipe's settings of its vocabulary and width."""

    config: Any
    tokenizer: Any
    n_layers: int
    section: dict[str, Any] = field(default_factory=dict)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Vocabulary, width, feed-forward and heads."""
        config = self.config
        feed_forward = int(getattr(config, "intermediate_size", 0) or getattr(config, "hidden_dim", 0))
        return int(config.vocab_size), int(config.hidden_size), feed_forward, int(config.num_attention_heads)


def fresh_bases(run: Run, texts: Sequence[str], max_length: int) -> list[Base]:
    """Return a fresh encoder for each vocabulary of the plan; a vocabulary may stay smaller if the texts are few."""
    plan, bases = run.recipe.plan, []
    for size in plan.vocabulary or (PLANNED_VOCABULARY,):
        settings = FreshBackbone(
            tokenizer="unigram" if plan.family == "xlm-roberta" else "wordpiece",
            vocabulary=size,
            layers=1,
            width=16,
            heads=1,
            max_length=max_length,
        )
        base = base_of(run, settings, texts)
        if run.recipe.data.train == "bundled":  # in place of a text that would fill the vocabulary
            base = replace(base, tokenizer=_filled(base.tokenizer, size))
        base.config.vocab_size = len(base.tokenizer)
        bases.append(base)
    return bases


def cut_bases(run: Run, backbone: str | TeacherBackbone, texts: Sequence[str]) -> list[Base]:
    """Return an encoder to cut layers from, for each vocabulary and width of the plan or the student's section."""
    whole, student, plan = base_of(run, backbone, texts), run.recipe.student, run.recipe.plan
    section = Student(kind="bi_encoder", backbone=backbone) if student is None else student
    vocabularies, widths = [section.vocabulary], [section.width]
    if plan.vocabulary is not None:
        corpus = () if section.vocabulary is None else section.vocabulary.texts
        vocabularies = [Vocabulary(trim=Trim(size=size), texts=corpus) for size in plan.vocabulary]
    if plan.widths is not None or plan.feed_forward is not None:
        sizes = itertools.product(plan.widths or (None,), plan.feed_forward or (None,))
        widths = [_width(whole, hidden, share) for hidden, share in sizes]
    return [
        _changed(run, whole, section.model_copy(update={"vocabulary": vocabulary, "width": width}))
        for vocabulary in vocabularies
        for width in widths
    ]


def _width(whole: Base, hidden: int | None, share: float | None) -> Width | None:
    """Return the recipe's section for this width and feed-forward share; None if nothing is cut.

    :raises BadInput: if the encoder is smaller
    """
    if hidden is not None and hidden > whole.config.hidden_size:
        raise BadInput(
            f"plan.widths: {hidden} of an encoder that is {whole.config.hidden_size} wide; a cut one is no wider"
        )
    if share is not None and share > 1:
        raise BadInput(f"plan.feed_forward: {share:g}; of an encoder that is cut a share, as 0.5, is expected")
    hidden = None if hidden == whole.config.hidden_size else hidden
    share = None if share == 1 else share
    return None if hidden is None and share is None else Width(hidden=hidden, feed_forward=share)


def _changed(run: Run, whole: Base, section: Student) -> Base:
    """Apply to one random layer of the encoder the changes that build_student would apply to the whole."""
    if section.vocabulary is None and section.width is None and section.embedding_rank is None:
        return whole
    seed = run.recipe.seed
    model = _few_layers(whole, section.max_length, seed)
    with quiet():
        if section.width is not None:
            batches = pair_batches(model, "bi_encoder", run.split.train, max_length=section.max_length, seed=seed)
            narrow(model, "bi_encoder", section.width, batches)
        if section.vocabulary is not None:
            change_vocabulary(model, section.vocabulary, student_corpus(run, section), seed=seed)
        if section.embedding_rank is not None:
            factorise(model, section.embedding_rank, student_corpus(run, section))
    stated_section = section.model_dump(
        mode="json", include={"vocabulary", "width"}, exclude_none=True, exclude_defaults=True
    )
    config = transformer_of(model).config
    if getattr(config, "layer_types", None) is not None:  # from which a shape takes those of its layers
        config.num_hidden_layers, config.layer_types = whole.n_layers, whole.config.layer_types
    return Base(config, tokenizer_of(model), whole.n_layers, stated_section)


def _few_layers(whole: Base, max_length: int, seed: int) -> Any:
    """Build the encoder with one random layer, or one of each kind: a ModernBERT of one kind cannot be read again."""
    import torch
    from transformers import AutoModel

    config = copy.deepcopy(whole.config)
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = list(dict.fromkeys(config.layer_types))
        config.num_hidden_layers = len(config.layer_types)
    torch.manual_seed(seed)
    with quiet(), TemporaryDirectory() as folder:
        AutoModel.from_config(config, dtype=torch.float32).save_pretrained(folder)
        whole.tokenizer.save_pretrained(folder)
        return build_model("bi_encoder", Path(folder), max_length=max_length, seed=seed)


def base_of(run: Run, backbone: Backbone, texts: Sequence[str]) -> Base:
    """Return an encoder's config and tokenizer; for a teacher, trained or not, those of its backbone."""
    from transformers import AutoConfig, AutoTokenizer

    name = _encoder_of(run, backbone, texts)
    with quiet(), loading(name):
        check_source(name)
        config = load_auto(AutoConfig, name)
        return Base(config, load_auto(AutoTokenizer, name), int(config.num_hidden_layers))


def _encoder_of(run: Run, backbone: Backbone, texts: Sequence[str]) -> str:
    if isinstance(backbone, str):
        return resolve_name(backbone)
    if isinstance(backbone, FreshBackbone):
        with quiet():
            return str(fresh_backbone(backbone, texts, seed=run.recipe.seed, folder=run.work / "backbones"))
    return _encoder_of(run, run.recipe.models[backbone.teacher].backbone, texts)


def _filled(tokenizer: Any, n_pieces: int) -> Any:
    """Fill a vocabulary up with pieces that no text contains, so that its file has the size of a full one."""
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
