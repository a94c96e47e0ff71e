"""A narrower hidden size: write an encoder's hidden states in fewer coordinates z = Uᵀx, and adapt its weights.

    tables, maps that write   W → Uᵀ W               into the new coordinates
    norms                     γ, β → γ', β'          one scale and shift for each coordinate, fitted
    maps that read            W → W B, b → b + W c   where x ≈ B z + c predicts the old state from the new one

U has orthonormal columns: the directions of largest variance of the hidden states, or some of the old dimensions. All
layers share one U, so the residual stream needs no map of its own. (SliceGPT of Ashkboos et al. 2024 has one U per
layer, and its own model class.) The scales of the old norms do not apply to rotated coordinates, so new ones are
fitted. With old dimensions the norms keep theirs. Everything is computed from the encoder's own states on a sample of
text; nothing is trained.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from distill.models.layers import hooked, layer_stack
from students.cut.structure import Layer

__all__ = ["choose_dimensions", "last_states", "prediction", "principal_directions", "project_hidden", "ridge"]

HiddenBy = Literal["pca", "dimensions"]
TensorFeatures = Mapping[str, Tensor]
_RIDGE = 1e-3  # share of the mean variance: keeps the system solvable if the states have lower rank
_PRE_NORM_TOLERANCE = 1e-6  # difference between a layer's input and output while its parts write zeros: rounding


@torch.no_grad()
def project_hidden(
    transformer: Any,
    layers: Sequence[Layer],
    weights: Mapping[str, Tensor],
    stock: Any,
    batches: Sequence[TensorFeatures],
    by: HiddenBy,
) -> tuple[dict[str, Tensor], float]:
    """Return an encoder's weights in fewer hidden dimensions, and the share of the states' variance that these keep.

    :param weights: the encoder's weights, without the removed heads and neurons
    :param stock: the class built from the new config (on any device): its shapes show which weights become narrower
    :param batches: token ids and masks of the sample
    """
    norms = _norms(transformer, stock)
    sources = _sources(transformer, layers, norms, batches[0])
    only_read = _only_read(transformer, layers, norms, batches[0])
    spread = _spread(transformer, norms, only_read, batches)
    width = stock.config.hidden_size
    basis, share = principal_directions(spread, width) if by == "pca" else choose_dimensions(spread, width)
    moments = {name: _Moments() for name in norms}
    for features in batches:
        with _norm_rows(transformer, norms, features) as rows:
            transformer(**features)
        for name, (state_before, state_after) in rows.items():
            moments[name].add(_normalised(stock.get_submodule(name), state_before @ basis), state_after)
    fits = {
        name: _fit(moments[name], basis, only_read=name in only_read, has_shift=f"{name}.bias" in weights)
        for name in norms
    }
    return _projected(weights, stock, basis, fits, sources), share


def _projected(
    weights: Mapping[str, Tensor],
    stock: nn.Module,
    basis: Tensor,
    fits: Mapping[str, "_Fit"],
    sources: Mapping[str, str],
) -> dict[str, Tensor]:
    shapes = {name: weight.shape for name, weight in stock.state_dict().items()}
    new = {}
    for name, weight in weights.items():
        owner, _, suffix = name.rpartition(".")
        if owner in fits:
            new[name] = fits[owner].scale if suffix == "weight" else fits[owner].shift
        elif owner in sources:
            fit, has_bias = fits[sources[owner]], f"{owner}.bias" in weights
            if suffix == "weight":
                new[name] = weight @ (fit.back if has_bias else fit.back_through_zero)
            else:
                new[name] = weight + weights[f"{owner}.weight"] @ fit.offset
        else:
            for place, (old_size, size) in enumerate(zip(weight.shape, shapes[name], strict=True)):
                if old_size != size:
                    weight = torch.tensordot(weight, basis, dims=([place], [0])).movedim(-1, place)
            new[name] = weight
    return {name: weight.to(weights[name].dtype) for name, weight in new.items()}


def _norms(transformer: Any, stock: nn.Module) -> list[str]:
    """Return the modules that scale hidden states: their weight has one number per hidden dimension."""
    shapes = {name: weight.shape for name, weight in stock.state_dict().items()}
    return [
        name.removesuffix(".weight")
        for name, weight in transformer.state_dict().items()
        if name.endswith(".weight") and weight.dim() == 1 and weight.shape != shapes[name]
    ]


@contextmanager
def _norm_rows(
    transformer: Any, norms: Sequence[str], features: TensorFeatures
) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Collect the input and output of every norm. *Shape:* (n_tokens, hidden_size), without padding."""
    rows: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rows[name] = _rows(inputs[0], features), _rows(output, features)

    with hooked({name: transformer.get_submodule(name) for name in norms}, note):
        yield rows


def _rows(values: Tensor, features: TensorFeatures) -> Tensor:
    mask = features["attention_mask"]
    return values[mask.bool()] if values.shape[:-1] == mask.shape else values.reshape(-1, values.shape[-1])


def _sources(
    transformer: Any, layers: Sequence[Layer], norms: Sequence[str], features: TensorFeatures
) -> dict[str, str]:
    """Return, for every map that reads hidden states, the norm whose output it reads: the norm with the same values."""
    names = [name for layer in layers for name in (*layer.attention_in, *layer.position_in, *layer.feed_forward_in)]
    inputs_by_name: dict[str, Tensor] = {}

    def note(name: str, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        inputs_by_name.setdefault(name, _rows(inputs[0], features))

    with (
        _norm_rows(transformer, norms, features) as rows,
        hooked({name: transformer.get_submodule(name) for name in names}, note),
    ):
        transformer(**features)
    return {
        name: norm
        for name, values in inputs_by_name.items()
        for norm, (_, state_after) in rows.items()
        if values.shape == state_after.shape and torch.equal(values, state_after)
    }


def _only_read(transformer: Any, layers: Sequence[Layer], norms: Sequence[str], features: TensorFeatures) -> set[str]:
    """Return the norms whose output is not itself the hidden state: those inside the layers of a pre-norm encoder.

    A pre-norm layer returns its input unchanged if its output maps write zeros.
    """
    path, stack = layer_stack(transformer)
    writing = {name: transformer.get_submodule(name) for name in (layers[0].attention_out, layers[0].feed_forward_out)}
    states: list[Tensor] = []

    def silence(_: str, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    def note(_: str, inputs: tuple[Tensor, ...], output: Any) -> None:
        states.extend((inputs[0], output if isinstance(output, Tensor) else output[0]))

    with hooked(writing, silence), hooked({path: stack[0]}, note):
        transformer(**features)
    passes_through = torch.allclose(states[0], states[1], atol=_PRE_NORM_TOLERANCE)
    return {name for name in norms if passes_through and name.startswith(f"{path}.")}


def _spread(transformer: Any, norms: Sequence[str], only_read: set[str], batches: Sequence[TensorFeatures]) -> Tensor:
    """Return the mean covariance of the hidden states of all norms, each scaled to the same total variance.

    *Shape:* (hidden_size, hidden_size)
    """
    moments = {name: _Moments() for name in norms}
    for features in batches:
        with _norm_rows(transformer, norms, features) as rows:
            transformer(**features)
        for name, (state_before, state_after) in rows.items():
            state = state_before if name in only_read else state_after
            moments[name].add(state, state[:, :0])
    covariances = [
        norm_moments.new_new / norm_moments.n - torch.outer(norm_moments.mean_new, norm_moments.mean_new)
        for norm_moments in moments.values()
    ]
    return torch.stack([covariance / covariance.trace() for covariance in covariances]).mean(dim=0)


def principal_directions(covariance: Tensor, n: int) -> tuple[Tensor, float]:
    """Return the n directions of largest variance, and the share of the total variance that they hold.

    *Shape:* (width, width) → (width, n)

    >>> principal_directions(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 1)[1]
    0.75
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    largest = vectors[:, -n:].flip(1)
    signs = largest.gather(0, largest.abs().argmax(dim=0, keepdim=True)).sign()  # makes the largest entry positive
    return (largest * signs).float(), float(values[-n:].sum() / values.sum())


def choose_dimensions(covariance: Tensor, n: int) -> tuple[Tensor, float]:
    """Choose n dimensions, each time the one that linearly predicts most of the variance still unexplained.

    :return: a basis of unit vectors in the old order, and the share of the variance that the chosen dimensions predict

    *Shape:* (width, width) → (width, n)
    """
    residual, chosen = covariance.double().clone(), list[int]()
    total = float(residual.trace())
    for _ in range(n):
        variances = residual.diagonal().clamp_min(1e-12)
        gains = residual.square().sum(dim=0) / variances
        gains[chosen] = -1.0
        best = int(gains.argmax())
        chosen.append(best)
        residual = residual - torch.outer(residual[:, best], residual[best]) / variances[best]
    basis = torch.zeros(len(covariance), n)
    basis[torch.tensor(sorted(chosen)), torch.arange(n)] = 1.0
    return basis.to(covariance.device), 1 - max(0.0, float(residual.trace())) / total


def _normalised(norm: nn.Module, states: Tensor) -> Tensor:
    """Return the output of a norm before its scale and shift."""
    neutral = {
        name: torch.full((states.shape[1],), 1.0 if name == "weight" else 0.0, dtype=states.dtype, device=states.device)
        for name, _ in norm.named_parameters()
    }
    normalised: Tensor = functional_call(norm, neutral, (states,))
    return normalised


@dataclass
class _Moments:
    """Sums over tokens of the new and the old coordinates."""

    n: int = 0
    sums: list[Tensor] = field(default_factory=list)

    def add(self, new: Tensor, old: Tensor) -> None:
        """Add a batch of tokens. *Shape:* (n_tokens, new_width), (n_tokens, old_width)."""
        self.n += len(new)
        added = [new.sum(dim=0), old.sum(dim=0), new.T @ new, new.T @ old]
        added = [values.double() for values in added]
        self.sums = [total + addend for total, addend in zip(self.sums, added, strict=True)] if self.sums else added

    @property
    def mean_new(self) -> Tensor:
        """The mean of the new coordinates. *Shape:* (new_width,)."""
        return self.sums[0] / self.n

    @property
    def mean_old(self) -> Tensor:
        """The mean of the old coordinates. *Shape:* (old_width,)."""
        return self.sums[1] / self.n

    @property
    def new_new(self) -> Tensor:
        """The sum of z zᵀ. *Shape:* (new_width, new_width)."""
        return self.sums[2]

    @property
    def new_old(self) -> Tensor:
        """The sum of z xᵀ. *Shape:* (new_width, old_width)."""
        return self.sums[3]


@dataclass(frozen=True)
class _Fit:
    """A norm's scale and shift of the new coordinates z, and the prediction of the old state: x ≈ back z + offset.

    *Shape:* scale, shift: (new_width,); back, back_through_zero: (old_width, new_width); offset: (old_width,)
    """

    scale: Tensor
    shift: Tensor
    back: Tensor
    offset: Tensor
    back_through_zero: Tensor
    """For a map without a bias, which cannot hold the offset."""


def _fit(moments: _Moments, basis: Tensor, *, only_read: bool, has_shift: bool) -> _Fit:
    """Fit scale and shift to the old states' coordinates Uᵀx, one regression per coordinate; then fit the map back."""
    n, mean_new, mean_old, directions = moments.n, moments.mean_new, moments.mean_old, basis.double()
    new_new, new_old = moments.new_new / n, moments.new_old / n
    centred_new = new_new - torch.outer(mean_new, mean_new)
    centred_old = new_old - torch.outer(mean_new, mean_old)
    scale, shift = torch.ones_like(mean_new), torch.zeros_like(mean_new)
    if not only_read and has_shift:
        scale = (centred_old @ directions).diagonal() / centred_new.diagonal().clamp_min(1e-12)
        shift = mean_old @ directions - scale * mean_new
    elif not only_read:
        scale = (new_old @ directions).diagonal() / new_new.diagonal().clamp_min(1e-12)
    mean = scale * mean_new + shift
    covariance, cross = scale[:, None] * centred_new * scale, scale[:, None] * centred_old
    back = ridge(covariance, cross)
    through_zero = ridge(covariance + torch.outer(mean, mean), cross + torch.outer(mean, mean_old))
    parts = (scale, shift, back, mean_old - back @ mean, through_zero)
    return _Fit(*(part.to(basis.dtype) for part in parts))


def ridge(covariance: Tensor, cross: Tensor) -> Tensor:
    """Return the map that predicts y from z, given Σ z zᵀ and Σ z yᵀ (or their means).

    *Shape:* (n_in, n_in), (n_in, n_out) → (n_out, n_in)

    >>> ridge(torch.tensor([[2.0]]), torch.tensor([[4.0, 6.0]])).round(decimals=1).tolist()
    [[2.0], [3.0]]
    """
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    solved: Tensor = torch.linalg.solve(covariance + _RIDGE * covariance.diagonal().mean() * eye, cross)
    return solved.T


@torch.no_grad()
def last_states(transformer: Any, features: TensorFeatures) -> Tensor:
    """Return an encoder's token embeddings. *Shape:* (n_tokens, hidden_size), without padding."""
    states: Tensor = transformer(**features)[0]
    return _rows(states, features)


def prediction(new: Iterable[Tensor], old: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return B and c of old ≈ B new + c, by least squares (with a small ridge) over batches of rows.

    *Shape:* each (n_rows, new_width) and (n_rows, old_width) → (old_width, new_width), (old_width,)
    """
    moments = _Moments()
    for new_states, old_states in zip(new, old, strict=True):
        moments.add(new_states, old_states)
    n, mean_new, mean_old = moments.n, moments.mean_new, moments.mean_old
    covariance = moments.new_new / n - torch.outer(mean_new, mean_new)
    back = ridge(covariance, moments.new_old / n - torch.outer(mean_new, mean_old))
    return back.float(), (mean_old - back @ mean_new).float()
