"""Candidate students of a plan: which shapes there are, and their fp32 and int8 exports with random weights.

A candidate is built like a real student: the encoder's config with the shape's numbers, the recipe's kind, pooling and
head, and the export stage's fp32 and int8. Only its weights are random instead of learned; speed does not depend on
them.
"""

import copy
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.files.artefact import content_hash
from distill.models.modeling import bi_encoder, build_model, prepared, quiet, save_model
from distill.recipe.schema import LayerChoice, TeacherBackbone
from distill.run import Run
from distill.scorers.black_box import open_asked
from students.cut.bases import Base, base_of, cut_bases, fresh_bases
from students.cut.depth import cut_config, layers_by_rule
from students.cut.structure import can_be_read
from students.export.gate import Thresholds
from students.export.stage import export_openvino
from students.plan.cost_model import PRECISIONS, Shape
from students.plan.floor import cut_backbone, fresh_shapes, length_of
from students.plan.floor import heads_of as heads_of  # it was defined here
from students.plan.measuring import texts_of_length

__all__ = ["Candidates", "kept_layers", "shaped"]

log = logging.getLogger(__name__)
_CUT_KEPT = {"vocabulary", "width", "embedding_rank"}
_KEPT = {"pooling", "head", "dimensions", "prompts", "asymmetric", "control"}
_STARTS_WITH_ITS_FIRST = {"modernbert"}  # model types whose first layer lacks a norm that the others have
_CALIBRATION_WORDS = 8  # the shortest calibration is enough: quantization ranges do not affect speed


def kept_layers(config: Any, n_layers: int, n_kept: int) -> tuple[int, ...]:
    """Return the layers that a cut encoder keeps: those of `student.layers: {spread: n_kept}`.

    A single layer is the last one, but the first one of a ModernBERT: its later layers cannot come first.

    :param n_layers: number of layers of the uncut encoder
    """
    if n_kept == 1 and config.model_type in _STARTS_WITH_ITS_FIRST:
        return (0,)
    return layers_by_rule(LayerChoice(spread=n_kept), n_layers)


class Candidates:
    """The candidates of a plan; each is written when it is first needed.

    :param folder: the folder they are written to, one subfolder for each shape and precision
    """

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.plan, self.folder = run, run.recipe.plan, folder
        self.cut = cut_backbone(run)
        student = run.recipe.student
        self.kind = self.plan.kind or (student.kind if student is not None else "bi_encoder")
        self.length = length_of(run)
        self.max_length = self.length if student is None else student.max_length

    @property
    def cut_name(self) -> str | None:
        """The teacher or encoder that is cut."""
        return self.cut.teacher if isinstance(self.cut, TeacherBackbone) else self.cut

    def shapes(self) -> list[Shape]:
        """Return all shapes to choose from.

        :raises BadInput: if the plan asks for more layers than the encoder has
        """
        if self.cut is None:
            return fresh_shapes(self.plan, sorted({base.sizes[0] for base in self._bases}), self.length)
        n_layers = self._any_base.n_layers
        wanted = self.plan.layers or tuple(range(1, n_layers + 1))
        if max(wanted) > n_layers:
            raise BadInput(f"plan.layers: {max(wanted)} of {self.cut_name}, which has {n_layers}")
        readable = self._readable(wanted)
        sizes = sorted({base.sizes for base in self._bases})
        return [
            Shape(layers, width, feed_forward, heads, vocabulary, self.length)
            for vocabulary, width, feed_forward, heads in sizes
            for layers in readable
        ]

    def _readable(self, wanted: Sequence[int]) -> list[int]:
        """Return the numbers of layers with which transformers can read the encoder again, and log the others.

        :raises BadInput: if there is none
        """
        config, n_layers = self._any_base.config, self._any_base.n_layers
        readable = [n for n in wanted if can_be_read(cut_config(config, kept_layers(config, n_layers, n)))]
        left_out = ", ".join(str(n) for n in wanted if n not in readable)
        if not readable:
            raise BadInput(
                f"plan.layers: {left_out} of {self.cut_name}; transformers cannot read a {config.model_type} of these layers again, allow others"
            )
        if left_out:
            log.warning(
                "plan: %s layers of %s are left out, transformers cannot read such a %s again",
                left_out,
                self.cut_name,
                config.model_type,
            )
        return readable

    def _base(self, shape: Shape) -> Base:
        """Return the base that a shape is derived from: by its vocabulary and, for a cut encoder, also by its width."""
        sizes = (shape.vocabulary, shape.width, shape.feed_forward, shape.heads)
        n_same = 1 if self.cut is None else len(sizes)
        return next(base for base in self._bases if base.sizes[:n_same] == sizes[:n_same])

    @property
    def _any_base(self) -> Base:
        """The base of the largest vocabulary."""
        return max(self._bases, key=lambda base: base.sizes[0])

    def identity(self) -> dict[str, Any]:
        """Return everything that determines a measurement besides shape, machine and versions."""
        export, student = self.run.recipe.export, self.run.recipe.student
        return {
            "kind": self.kind,
            "encoder": self._encoder_identity(),
            "max_length": self.max_length,
            "length": self.length,
            "keep_float": export.keep_float,
            "smooth_quant_alpha": export.smooth_quant_alpha,
            "head": None if student is None else student.head,
            "pooling": self._pooling,
            "output_width": self._output_width,
        }

    def _encoder_identity(self) -> str:
        if self.cut is None:
            return self.plan.family or "bert"
        size_keys = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")
        return content_hash({**self._any_base.config.to_dict(), **dict.fromkeys(size_keys)})

    @property
    def _pooling(self) -> Any:
        return None if self.run.recipe.student is None else self.run.recipe.student.pooling

    def section(self, shape: Shape) -> dict[str, Any]:
        """Return the recipe's `student` section for a shape; settings outside the shape stay the recipe's."""
        backbone: dict[str, Any]
        student = self.run.recipe.student
        names = _KEPT if self.cut is None else _KEPT | _CUT_KEPT
        kept = {} if student is None else student.model_dump(mode="json", include=names & student.model_fields_set)
        if self.cut is None:
            family = "unigram" if self.plan.family == "xlm-roberta" else "wordpiece"
            backbone = {
                "tokenizer": family,
                "vocabulary": shape.vocabulary,
                "layers": shape.layers,
                "width": shape.width,
                "heads": shape.heads,
                "feed_forward": shape.feed_forward,
                "max_length": self.max_length,
            }
            return {"kind": self.kind, "backbone": backbone, "max_length": self.max_length, **kept}
        cut = self.cut if isinstance(self.cut, str) else self.cut.model_dump()
        return {
            "kind": self.kind,
            "backbone": cut,
            "layers": list(kept_layers(self._any_base.config, self._any_base.n_layers, shape.layers)),
            "max_length": self.max_length,
            **kept,
            **self._base(shape).section,
        }

    def texts(self) -> tuple[list[str], list[str]]:
        """Return queries and documents with the plan's number of tokens; for a bi-encoder both are the same texts."""
        return texts_of_length(self._any_base.tokenizer, self._sources, self.length, self.kind)

    def write(self, shape: Shape) -> dict[str, Path]:
        """Return the exported folder of a shape in each precision; missing ones are made."""
        name = f"shape-{content_hash([asdict(shape), self.identity()])}"
        targets = {precision: self.folder / f"{name}-{precision}" for precision in PRECISIONS}
        if all(target.exists() for target in targets.values()):
            return targets
        with tempfile.TemporaryDirectory(prefix="shape-", dir=self.folder) as scratch:
            source = self._write_torch(shape, Path(scratch))
            for precision, target in targets.items():
                if not target.exists():
                    self._export(source, target, precision)
        return targets

    def _export(self, source: Path, target: Path, precision: str) -> None:
        export = self.run.recipe.export
        snippets = [" ".join(text.split()[:_CALIBRATION_WORDS]) for text in self._sources[:4]]
        pairs = list(zip(snippets[::2], snippets[1::2], strict=False))
        export_openvino(
            source,
            target,
            precision="int8" if precision == "int8" else "fp32",
            held_back=pairs,
            calibration=pairs,
            n_calibration=2,
            thresholds=Thresholds(),
            smooth_quant_alpha=export.smooth_quant_alpha,
            keep_float=export.keep_float,
            seed=self.run.recipe.seed,
        )

    def _write_torch(self, shape: Shape, folder: Path) -> Path:
        import torch
        from transformers import AutoModel

        base = self._base(shape)
        config = shaped(base.config, shape, base.n_layers)
        student, seed = self.run.recipe.student, self.run.recipe.seed
        torch.manual_seed(seed)
        with quiet():
            AutoModel.from_config(config, dtype=torch.float32).save_pretrained(folder / "encoder")
            base.tokenizer.save_pretrained(folder / "encoder")
            model = build_model(
                self.kind,
                folder / "encoder",
                pooling=self._pooling,
                head=None if student is None else student.head,
                max_length=self.max_length,
                seed=seed,
            )
            if self._output_width not in (None, shape.width):
                model = prepared(
                    bi_encoder(list(model), None, self._output_width), max_length=self.max_length, prompts=None
                )
            save_model(model, folder / "model")
        return folder / "model"

    @cached_property
    def _output_width(self) -> int | None:
        """The width that the recipe gives a bi-encoder's vectors: `dimensions`, or that of the matched teachers."""
        student = self.run.recipe.student
        if self.kind != "bi_encoder":
            return None
        if student is not None and student.dimensions is not None:
            return student.dimensions
        return sum(map(self._width_of, self.run.space)) or None

    def _width_of(self, teacher: str) -> int:
        if teacher in self.run.recipe.black_boxes:
            text = self.run.split.train.queries[0]
            return int(open_asked(self.run, teacher).encode_queries([text]).shape[1])
        return base_of(self.run, TeacherBackbone(teacher=teacher), self._sources).sizes[1]

    @cached_property
    def _bases(self) -> list[Base]:
        """The bases: one for each vocabulary and, for a cut encoder, for each width."""
        if self.cut is None:
            return fresh_bases(self.run, self._sources, self.max_length)
        return cut_bases(self.run, self.cut, self._sources)

    @cached_property
    def _sources(self) -> list[str]:
        return self.run.learned.training_texts


def shaped(config: Any, shape: Shape, n_layers: int) -> Any:
    """Return the config with a shape's numbers; where they already agree, the config is left unchanged.

    :param n_layers: number of layers of the uncut encoder, from which the shape's layers are chosen
    """
    config = copy.deepcopy(config)
    config.num_hidden_layers = shape.layers
    if config.hidden_size != shape.width:
        config.hidden_size, config.num_attention_heads = shape.width, shape.heads
        config.intermediate_size = shape.feed_forward
    elif getattr(config, "intermediate_size", shape.feed_forward) != shape.feed_forward:
        config.intermediate_size = shape.feed_forward
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:  # local and global attention by layer, as in ModernBERT
        config.layer_types = [kinds[place] for place in kept_layers(config, n_layers, shape.layers)]
    return config
