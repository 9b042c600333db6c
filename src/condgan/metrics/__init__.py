"""Measures of classifiers and of samples, and their uncertainty."""

from condgan.metrics.classification import ClassificationReport, ThresholdReport, classification_report
from condgan.metrics.scores import auroc, best_threshold, confusion_matrix
from condgan.metrics.statistics import Estimate, group_bootstrap, group_weights, percentile_estimate

__all__ = [
    "ClassificationReport",
    "Estimate",
    "ThresholdReport",
    "auroc",
    "best_threshold",
    "classification_report",
    "confusion_matrix",
    "group_bootstrap",
    "group_weights",
    "percentile_estimate",
]
