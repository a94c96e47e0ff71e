"""The metrics' names, and properties of their values. This module imports nothing, so that a report opens fast."""

__all__ = ["LOWER_IS_BETTER", "METRIC_NAMES", "NO_SHARE"]

METRIC_NAMES = {
    "spearman": "Spearman",
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
    "ndcg_at_10": "nDCG@10",
    "ablation_mse": "Ablation MSE",
    "teacher_spearman": "Teacher ρ",
    "teacher_kendall": "Teacher τ-b",
}
"""The name of each metric, by key, for all tables, pictures and messages, in the order of a report."""
LOWER_IS_BETTER = frozenset({"ablation_mse"})
NO_SHARE = frozenset({"ablation_mse", "teacher_spearman", "teacher_kendall"})
"""Metrics for which a share of the teacher's value is meaningless."""
