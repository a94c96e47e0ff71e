"""What the training loop asks of a task: units to draw steps from, and a module that turns a pass into losses.

Matching (`trainset.TrainSet`, `objectives.Step`) and masked-language modelling (`mlm.PackedText`, `mlm.MlmStep`) are the
two tasks. The loop knows neither: it plans by length, adds up named losses, and keeps the weights of the highest value.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.tokens import TokenTable

__all__ = ["Pass", "TaskStep", "Units"]


class Pass(Protocol):
    """One forward pass of a step."""

    @property
    def inputs(self) -> list[dict[str, Tensor]]:
        """Padded parts of the sequences. *Shape:* each value (n_part, n_tokens)."""

    @property
    def rows(self) -> np.ndarray:
        """What the outputs of a prediction are about: pairs, or blocks of text. *Shape:* (n_outputs,)."""

    def to(self, device: torch.device) -> "Pass":
        """Move every tensor to a device."""


class Units(Protocol):
    """What can be drawn into a step."""

    coupled: bool
    """The loss compares the units of a step with each other, so that it is computed on all outputs of a step together."""
    valued_at_start: bool
    """Evaluate before the first step too: how far training moved the value is part of the result."""

    @property
    def tokens(self) -> TokenTable:
        """All token ids."""

    @property
    def cannot_rank(self) -> str | None:
        """Why, as validation units, they cannot tell good weights from bad ones; None where they can."""

    def __len__(self) -> int: ...
    @property
    def unit_lengths(self) -> np.ndarray:
        """Tokens of each unit's longest sequence. *Shape:* (n_units,)."""

    @property
    def unit_sequences(self) -> np.ndarray:
        """Sequences of each unit. *Shape:* (n_units,)."""

    def unit_sequences_of(self, units: np.ndarray) -> int:
        """Return the number of sequences in the given units."""

    def counts(self, units: np.ndarray) -> Mapping[Any, int]:
        """Return how much of everything that a loss is a mean over the given units hold."""

    def batch(self, units: np.ndarray, *, totals: Mapping[Any, int], n_processes: int = 1) -> Pass:
        """Build the pass over the given units of a step with the given totals."""

    def value(self, rows: np.ndarray, outputs: np.ndarray) -> float:
        """Return what picks the best checkpoint from all predictions: higher is better, NaN where it is undefined."""


class TaskStep(nn.Module):
    """`forward(batch)` returns named losses, "nothing" among them; `forward(batch, predict=True)` {"scores": …} by row.

    Where the units are coupled, `forward(batch, outputs_only=True)` returns {"outputs": …} of the model, `losses_of` the losses of
    all outputs of a step, and `forward(batch, pulls=…)` a number whose gradient is the given one of the outputs, times them.
    """

    model: Any
    """The sentence-transformers model that is trained and saved."""
    is_static: bool = False
    """Whether it is a table of token vectors."""
    scale_and_bias: nn.Parameter | None
    """Turns a bi-encoder's cosine into a logit, where a loss needs one."""

    details: Mapping[str, Any]
    """What the card says of how the step began."""

    def __init__(self) -> None:
        super().__init__()
        self.details = {}
        self.register_parameter("scale_and_bias", None)

    def beside_the_model(self) -> list[nn.Parameter]:
        """Return parameters that are learned beside the model, from nothing: they move faster and are not saved."""
        return []

    def factors(self, share: float) -> Mapping[str, float]:
        """Return what scheduled losses are multiplied by, by name, after a share of the steps (0 the first, 1 the last)."""
        return {}

    def learns_from(self, totals: Mapping[Any, int], factors: Mapping[str, float]) -> bool:
        """Tell whether a step that holds this much, by `Units.counts`, has a loss at all, with these factors."""
        return True

    def losses_of(self, batch: Any, outputs: Tensor) -> dict[str, Tensor]:
        """Return the named losses of the model's outputs for a batch."""
        raise NotImplementedError("a task whose units are coupled has losses of outputs")

    def metrics(self, values: Sequence[float]) -> dict[str, float]:
        """Say in the task's own terms what the validation values mean, for the card.

        :param values: in the order of training, the one before the first step included where the units ask for it
        """
        return {}
