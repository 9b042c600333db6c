"""Measures of classifiers and of images, and their uncertainty."""

from condgan.metrics.classification import ClassificationReport, ThresholdReport, classification_report
from condgan.metrics.comparison import delong, holm, mcnemar
from condgan.metrics.copying import CopyTest, DataCopying, authenticity, c_t, copy_test
from condgan.metrics.diversity import ClassDiversity, Diversity, DiversityReport, MeanWithError, diversity_report
from condgan.metrics.features import (
    CrossFit,
    Extracted,
    Extractor,
    ExtractorInfo,
    Fold,
    module_extractor,
    weights_hash,
)
from condgan.metrics.fidelity import (
    DensityCoverage,
    PrecisionRecall,
    Score,
    density_coverage,
    fid,
    inception_score,
    kid,
    precision_recall,
)
from condgan.metrics.fidelity_report import FidelityReport, fidelity_report
from condgan.metrics.floor import FIDELITY_METRICS, FidelityComparison
from condgan.metrics.membership import MembershipInference, membership_inference
from condgan.metrics.memorization import ClassMemorization, MemorizationReport, memorization_report
from condgan.metrics.neighbors import (
    Duplicates,
    Neighbors,
    find_duplicates,
    nearest_neighbors,
    neighbor_grid,
    relative_distance,
    to_features,
)
from condgan.metrics.pretrained import clip, dinov2, inception
from condgan.metrics.scores import auroc, best_threshold, confusion_matrix
from condgan.metrics.seeds import SeedDifference, SeedEstimate, paired_difference, seed_interval
from condgan.metrics.similarity import ms_ssim, ms_ssim_scales
from condgan.metrics.statistics import Estimate, group_bootstrap, group_weights, percentile_estimate

__all__ = [
    "FIDELITY_METRICS",
    "ClassDiversity",
    "ClassMemorization",
    "ClassificationReport",
    "CopyTest",
    "CrossFit",
    "DataCopying",
    "DensityCoverage",
    "Diversity",
    "DiversityReport",
    "Duplicates",
    "Estimate",
    "Extracted",
    "Extractor",
    "ExtractorInfo",
    "FidelityComparison",
    "FidelityReport",
    "Fold",
    "MeanWithError",
    "MembershipInference",
    "MemorizationReport",
    "Neighbors",
    "PrecisionRecall",
    "Score",
    "SeedDifference",
    "SeedEstimate",
    "ThresholdReport",
    "auroc",
    "authenticity",
    "best_threshold",
    "c_t",
    "classification_report",
    "clip",
    "confusion_matrix",
    "copy_test",
    "delong",
    "density_coverage",
    "dinov2",
    "diversity_report",
    "fid",
    "fidelity_report",
    "find_duplicates",
    "group_bootstrap",
    "group_weights",
    "holm",
    "inception",
    "inception_score",
    "kid",
    "mcnemar",
    "membership_inference",
    "memorization_report",
    "module_extractor",
    "ms_ssim",
    "ms_ssim_scales",
    "nearest_neighbors",
    "neighbor_grid",
    "paired_difference",
    "percentile_estimate",
    "precision_recall",
    "relative_distance",
    "seed_interval",
    "to_features",
    "weights_hash",
]
