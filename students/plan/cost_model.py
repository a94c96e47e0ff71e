"""A cost model: latency and size of a student from its shape, fitted to a few measured students.

Every cost (p50, p95, time per text in a batch, size) is a sum of terms with non-negative coefficients,

    cost(shape) = Σ_t c_t · t(shape),   c = argmin_{c ≥ 0} Σ_i ((cost(shape_i) − y_i) / y_i)²

by non-negative least squares (Lawson & Hanson 1974) on relative errors, so that small students count as much as large
ones. The terms of time follow an encoder's arithmetic at n tokens: the projections n·layers·width², the feed-forward
n·layers·width·feed_forward, the attention n²·layers·width and its softmax n²·layers·heads, elementwise operations
n·layers·width, the embedding n·width, a fixed cost per layer, and a constant (tokenisation, the call). The terms of
size are vocabulary·width, the matrices, a fixed cost per layer and per piece, and a constant. Each precision has its
own fit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "COSTS",
    "PRECISIONS",
    "CostLimits",
    "CostModel",
    "Measurement",
    "Shape",
    "best_by_depth",
    "describe",
    "fit_cost_model",
    "held_out_errors",
    "nearest",
]

PRECISIONS = ("fp32", "int8")  # every shape is measured in both
COSTS = ("p50_ms", "p95_ms", "text_ms", "size_mb")
_Costs = Mapping[str, float]


@dataclass(frozen=True, order=True)
class Shape:
    """The numbers that determine an encoder's cost; `length` is the number of tokens per input."""

    layers: int
    width: int
    feed_forward: int
    heads: int
    vocabulary: int
    length: int

    @property
    def encoder_parameters(self) -> int:
        """Parameters outside the embeddings, for a BERT or XLM-R: the measure of 'largest'.

        Per layer: four projections of width × width, two of width × feed_forward, their biases, two LayerNorms.

        >>> Shape(layers=6, width=384, feed_forward=1536, heads=12, vocabulary=30522, length=256).encoder_parameters
        10646784
        """
        matrices = 4 * self.width**2 + 2 * self.width * self.feed_forward
        vectors = 4 * self.width + (self.feed_forward + self.width) + 4 * self.width
        return self.layers * (matrices + vectors)

    @property
    def capacity(self) -> tuple[int, int, int]:
        """The order of 'larger': encoder parameters first, then vocabulary size, then layers."""
        return self.encoder_parameters, self.vocabulary, self.layers

    def __str__(self) -> str:
        layers = f"{self.layers} layer{'s' * (self.layers > 1)}"
        pieces = f", {self.vocabulary:,} pieces" if self.vocabulary else ""  # 0 before the vocabulary is known
        return f"{layers} × {self.width}, feed-forward {self.feed_forward}{pieces}"


@dataclass(frozen=True)
class Measurement:
    """The measured costs of a shape in one precision; `text_ms` is the time per text (or pair) in batches."""

    shape: Shape
    p50_ms: float
    p95_ms: float
    text_ms: float
    size_mb: float

    def costs(self) -> dict[str, float]:
        """Return the costs by name."""
        return {name: float(getattr(self, name)) for name in COSTS}


@dataclass(frozen=True)
class CostLimits:
    """Upper limits of a student's costs; None means no limit."""

    p95_ms: float | None
    size_mb: float | None

    def excess(self, costs: _Costs) -> float:
        """Return the largest ratio of a cost to its limit: at most 1 if all limits are met.

        >>> CostLimits(p95_ms=5.0, size_mb=40.0).excess({"p95_ms": 4.0, "size_mb": 44.0})
        1.1
        """
        limits = {"p95_ms": self.p95_ms, "size_mb": self.size_mb}
        return max((costs[name] / limit for name, limit in limits.items() if limit is not None), default=0.0)

    def fits(self, costs: _Costs) -> bool:
        """Return whether all limits are met."""
        return self.excess(costs) <= 1

    def __str__(self) -> str:
        parts = [
            None if self.p95_ms is None else f"p95 ≤ {self.p95_ms:g} ms",
            None if self.size_mb is None else f"size ≤ {self.size_mb:g} MB",
        ]
        return " and ".join(part for part in parts if part)


_TIME_TERMS: Mapping[str, Callable[[Shape], float]] = {
    "projections": lambda s: s.length * s.layers * s.width**2,
    "feed_forward": lambda s: s.length * s.layers * s.width * s.feed_forward,
    "attention": lambda s: s.length**2 * s.layers * s.width,
    "softmax": lambda s: s.length**2 * s.layers * s.heads,
    "elementwise": lambda s: s.length * s.layers * s.width,
    "embedding": lambda s: s.length * s.width,
    "layer": lambda s: s.layers,
    "constant": lambda s: 1,
}
_SIZE_TERMS: Mapping[str, Callable[[Shape], float]] = {
    "embedding": lambda s: s.vocabulary * s.width,
    "projections": lambda s: s.layers * s.width**2,
    "feed_forward": lambda s: s.layers * s.width * s.feed_forward,
    "layer": lambda s: s.layers,
    "piece": lambda s: s.vocabulary,
    "constant": lambda s: 1,
}


def _terms(cost: str) -> Mapping[str, Callable[[Shape], float]]:
    return _SIZE_TERMS if cost == "size_mb" else _TIME_TERMS


def _design(shapes: Sequence[Shape], cost: str) -> np.ndarray:
    """Return the terms of each shape. *Shape:* (n_shapes, n_terms)."""
    return np.array([[term(shape) for term in _terms(cost).values()] for shape in shapes], dtype=np.float64)


@dataclass(frozen=True)
class CostModel:
    """Coefficients of each cost's terms."""

    coefficients: Mapping[str, Mapping[str, float]]

    def predict(self, shape: Shape) -> dict[str, float]:
        """Return every cost of a shape."""
        return {
            cost: float(sum(coefficients[name] * term(shape) for name, term in _terms(cost).items()))
            for cost, coefficients in self.coefficients.items()
        }


def fit_cost_model(measurements: Sequence[Measurement]) -> CostModel:
    """Fit every cost by non-negative least squares on relative errors."""
    return CostModel({cost: _fit_one(measurements, cost) for cost in COSTS})


def _fit_one(measurements: Sequence[Measurement], cost: str) -> dict[str, float]:
    from scipy.optimize import nnls

    values = np.array([getattr(measurement, cost) for measurement in measurements], dtype=np.float64)
    rows = _design([measurement.shape for measurement in measurements], cost) / values[:, None]
    scale = rows.max(axis=0)  # scales each term: n²·layers·width and 1 differ too much in size for one solve
    solution, _ = nnls(rows / scale, np.ones(len(values)))
    return dict(zip(_terms(cost), (solution / scale).tolist(), strict=True))


def held_out_errors(measurements: Sequence[Measurement]) -> dict[str, float] | None:
    """Return each cost's median relative error when predicted from the other measurements; None for fewer than two."""
    if len(measurements) < 2:
        return None
    errors: dict[str, list[float]] = {cost: [] for cost in COSTS}
    for place, held_out in enumerate(measurements):
        predicted = fit_cost_model([*measurements[:place], *measurements[place + 1 :]]).predict(held_out.shape)
        for cost, value in held_out.costs().items():
            errors[cost].append(abs(predicted[cost] / value - 1))
    return {cost: float(np.median(values)) for cost, values in errors.items()}


def best_by_depth(costs: Mapping[Shape, _Costs], budget: CostLimits) -> list[Shape]:
    """Return, for each number of layers, the largest shape within the budget; the largest of these first.

    There is one shape per depth: at equal parameters wide and shallow is faster, and deep and narrow often better.
    The user makes that choice.
    """
    best: dict[int, Shape] = {}
    for shape in costs:
        if budget.fits(costs[shape]):
            previous = best.get(shape.layers)
            best[shape.layers] = (
                shape if previous is None else max(shape, previous, key=lambda candidate: candidate.capacity)
            )
    return sorted(best.values(), key=lambda shape: shape.capacity, reverse=True)


def nearest(costs: Mapping[Shape, _Costs], budget: CostLimits) -> Shape:
    """Return the shape with the smallest ratio of cost to budget."""
    return min(costs, key=lambda shape: (budget.excess(costs[shape]), shape))


def describe(model: CostModel) -> dict[str, Any]:
    """Return the coefficients that are not zero."""
    return {
        cost: {name: value for name, value in coefficients.items() if value}
        for cost, coefficients in model.coefficients.items()
    }
