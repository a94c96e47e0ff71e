"""Teachers that read every training batch, and the texts for which they have the same tokens as the student.

The two models can be compared at a token only if both have that token. So a sequence is used if the teacher's
tokenizer, with its own prompt and `max_length`, gives the same token strings; ids may differ, as in a trimmed
vocabulary. The other sequences are left out of the objectives on layers, and counted.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from distill.data.pairs import Pairs
from distill.data.tokens import TokenTable, pad_token_id, tokenize
from distill.errors import BadInput
from distill.models.layers import EncoderLayers
from distill.models.modeling import is_generative, is_static, load_model, tokenizer_of, transformer_of
from distill.models.prompts import NO_PROMPTS, model_prompts
from distill.recipe.objectives import Objectives
from distill.run import Run
from distill.training.read_texts import are_read
from distill.training.trainset import TrainSet

__all__ = ["LiveTeacher", "live_teachers", "token_ids", "tokens_read_alike"]

log = logging.getLogger(__name__)
_LEAST_ALIKE = 0.5  # an objective on tokens is refused if it can use a smaller share of the texts
_ACROSS_TOKENIZERS = "score_match, embedding_match, rkd, similarity and cka work across tokenizers"


@dataclass(frozen=True)
class LiveTeacher:
    """A finished teacher whose layers are matched; it is loaded at its first use, and kept.

    :param precision: the precision of its computation, independent of the student's
    """

    name: str
    folder: Path
    max_length: int
    precision: Literal["bf16", "fp32"]
    scripts: tuple[str, ...] | None = None
    """The scripts of the texts that it is used for; None is all."""

    @cached_property
    def model(self) -> Any:
        """The sentence-transformers model, frozen and without dropout.

        :raises BadInput: if it has no layers, or formats pairs by its own template
        """
        model = load_model(self.folder)
        if is_static(model):
            raise BadInput(
                f"teacher {self.name} is a table of token vectors, which has no layers; name another teacher"
            )
        if is_generative(model):
            raise BadInput(
                f"teacher {self.name} is a generative reranker: it reads pairs in a template of its own, and no student reads its tokens; use score_match"
            )
        return model.requires_grad_(False).eval()

    @cached_property
    def layers(self) -> EncoderLayers:
        """Its layers."""
        return EncoderLayers(self.model, f"teacher {self.name}")

    def features(self, given: Mapping[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
        """Return the student's inputs for its encoder. *Shape:* values: (n, n_tokens); ids: (n_student_ids,)."""
        known_names = {"attention_mask", *tokenizer_of(self.model).model_input_names}
        shared = {
            name: given[name] for name in ("attention_mask", "token_type_ids") if name in given and name in known_names
        }
        return {"input_ids": ids[given["input_ids"]], **shared}

    def moved(self, device: torch.device) -> EncoderLayers:
        """Return its layers on a device."""
        encoder = self.layers.encoder
        if next(encoder.parameters()).device != device:
            transformer_of(self.model).to(device)
        return self.layers


def live_teachers(run: Run, objectives: Objectives) -> dict[str, LiveTeacher]:
    """Return the teachers whose layers objectives match, by name; they compute in `signals.precision`.

    :raises BadInput: if one is not trained yet
    """
    identities = {name: run.signal_identity(name) for name in objectives.live_teachers}
    return {
        name: LiveTeacher(
            name, run.teacher(name), identity.max_length, identity.precision, run.recipe.models[name].scripts
        )
        for name, identity in identities.items()
    }


def token_ids(student: Any, teacher: Any) -> np.ndarray:
    """Return for each token id of the student the teacher's id of the same token string; −1 if it has none.

    Padding tokens are mapped to each other, whatever their strings. *Shape:* (n_student_ids,)
    """
    student_vocabulary, teacher_vocabulary = student.get_vocab(), teacher.get_vocab()
    ids = np.full(max(student_vocabulary.values()) + 1, -1, dtype=np.int64)
    for token, number in student_vocabulary.items():
        ids[number] = teacher_vocabulary.get(token, -1)
    ids[pad_token_id(student)] = pad_token_id(teacher)
    return ids


def tokens_read_alike(
    name: str, teachers: Mapping[str, LiveTeacher], tokenizer: Any, units: TrainSet, pairs: Pairs
) -> np.ndarray:
    """Return the sequences for which all teachers have the student's tokens, and log how many differ.

    :param name: the model that is trained, for messages
    :raises BadInput: if this holds for fewer than half of the sequences for some teacher
    """
    alike = np.ones(len(units.tokens), dtype=bool)
    for teacher in teachers.values():
        teacher_tokens = _teacher_tokens(teacher, units, pairs)
        same_tokens = _read_alike(units.tokens, teacher_tokens, token_ids(tokenizer, tokenizer_of(teacher.model)))
        in_scripts = _read_scripts(name, teacher, units)
        _say(name, teacher, same_tokens[in_scripts])
        alike &= same_tokens & in_scripts
    return alike


def _teacher_tokens(teacher: LiveTeacher, units: TrainSet, pairs: Pairs) -> TokenTable:
    tokenizer, length = tokenizer_of(teacher.model), teacher.max_length
    if units.kind == "cross_encoder":
        return tokenize(tokenizer, pairs.queries, pairs.documents, max_length=length)
    prompts = model_prompts(teacher.model)
    # a translation's target is its source text, which has other tokens: it is left out
    texts = [prompts[role] + text for role, text in zip(units.roles, units.teacher_texts, strict=True)]
    return tokenize(tokenizer, texts, max_length=length)


def _read_scripts(name: str, teacher: LiveTeacher, units: TrainSet) -> np.ndarray:
    """Return which sequences are in the scripts that a teacher reads, and log how many. *Shape:* (n_sequences,)."""
    if teacher.scripts is None:
        return np.ones(len(units.tokens), dtype=bool)
    in_scripts = are_read(units.teacher_texts, teacher.scripts)
    scripts = ", ".join(teacher.scripts)
    log.info(
        "%s: layers of %s are trained on %d of %d texts, those in %s",
        name,
        teacher.name,
        in_scripts.sum(),
        len(in_scripts),
        scripts,
    )
    return in_scripts


def _read_alike(student: TokenTable, teacher: TokenTable, ids: np.ndarray) -> np.ndarray:
    """Return which sequences have the same tokens and the same segments of a pair. *Shape:* (n_sequences,)."""
    alike: np.ndarray = student.lengths == teacher.lengths
    rows = np.repeat(np.arange(len(student)), student.lengths)
    student_mask, teacher_mask = alike[rows], np.repeat(alike, teacher.lengths)
    differs = ids[student.ids[student_mask]] != teacher.ids[teacher_mask]
    if teacher.type_ids is not None:
        types = np.zeros_like(student.ids) if student.type_ids is None else student.type_ids
        differs |= types[student_mask] != teacher.type_ids[teacher_mask]
    alike[rows[student_mask][differs]] = False
    return alike


def _say(name: str, teacher: LiveTeacher, alike: np.ndarray) -> None:
    n_other = int((~alike).sum())
    if not n_other:
        return
    prompts = "" if model_prompts(teacher.model) == NO_PROMPTS else f", prompts {list(model_prompts(teacher.model))}"
    message = f"{name}: of {n_other} of {len(alike)} texts teacher {teacher.name} reads other tokens (its tokenizer, max_length {teacher.max_length}{prompts})"
    if n_other > (1 - _LEAST_ALIKE) * len(alike):
        raise BadInput(
            f"{message}; hidden_match and relation_match compare token by token: give the student the teacher's tokenizer, max_length and prompts, or leave them out; {_ACROSS_TOKENIZERS}"
        )
    log.warning("%s; hidden_match and relation_match leave these out", message)
