"""Metrics with intervals, comparisons of two models, and how a model stands to teacher, control and floor.

It runs no model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.metrics.measures import (
        METRICS,
        AblationMse,
        AveragePrecision,
        Estimate,
        NdcgAt10,
        RocAuc,
        Spearman,
        TeacherKendall,
        TeacherSpearman,
        evaluate_scores,
        paired_difference,
        paired_samples,
        primary_metric,
        retention,
    )

__all__ = [
    "METRICS",
    "AblationMse",
    "AveragePrecision",
    "Estimate",
    "NdcgAt10",
    "RocAuc",
    "Spearman",
    "TeacherKendall",
    "TeacherSpearman",
    "evaluate_scores",
    "paired_difference",
    "paired_samples",
    "primary_metric",
    "retention",
]
__getattr__ = public(
    __name__,
    {
        "AblationMse": "measures",
        "AveragePrecision": "measures",
        "Estimate": "measures",
        "METRICS": "measures",
        "NdcgAt10": "measures",
        "RocAuc": "measures",
        "Spearman": "measures",
        "TeacherKendall": "measures",
        "TeacherSpearman": "measures",
        "evaluate_scores": "measures",
        "paired_difference": "measures",
        "paired_samples": "measures",
        "primary_metric": "measures",
        "retention": "measures",
    },
)
