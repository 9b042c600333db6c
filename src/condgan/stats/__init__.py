"""Statistics of classifiers: scores, intervals over patients and training seeds, and their comparison.

Results are frozen dataclasses: `condgan.files.to_json` and `from_json` write and read them.
"""

from condgan.stats.classification import (
    OVERALL_METRICS,
    ClassificationReport,
    DecisionScores,
    ThresholdReport,
    auroc,
    best_threshold,
    classification_report,
    confusion_matrix,
    decision_scores,
    precision_of,
    recall_of,
    score_functions,
)
from condgan.stats.estimates import (
    Estimate,
    Interval,
    bootstrap_replicates,
    group_bootstrap,
    holm,
    logit_limits,
    off_the_boundary,
    percentile_estimate,
)
from condgan.stats.seeds import (
    SeedCounts,
    SeedDifference,
    SeedEstimate,
    VarianceComponents,
    mover_limits,
    paired_difference,
    seed_interval,
)

__all__ = [
    "OVERALL_METRICS",
    "ClassificationReport",
    "DecisionScores",
    "Estimate",
    "Interval",
    "SeedCounts",
    "SeedDifference",
    "SeedEstimate",
    "ThresholdReport",
    "VarianceComponents",
    "auroc",
    "best_threshold",
    "bootstrap_replicates",
    "classification_report",
    "confusion_matrix",
    "decision_scores",
    "group_bootstrap",
    "holm",
    "logit_limits",
    "mover_limits",
    "off_the_boundary",
    "paired_difference",
    "percentile_estimate",
    "precision_of",
    "recall_of",
    "score_functions",
    "seed_interval",
]
