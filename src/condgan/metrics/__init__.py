"""Fidelity, diversity and memorization of generated images, each compared with real images.

`evaluate` measures all three.
"""

from condgan.metrics.copying import CopyTest, DataCopying, authenticity, c_t, copy_test, own_radius
from condgan.metrics.crossfit import crossfit_extractor
from condgan.metrics.diversity import (
    ClassDiversity,
    Diversity,
    DiversityReport,
    DiversitySettings,
    MeanWithError,
    diversity_report,
    ms_ssim,
    ms_ssim_scales,
)
from condgan.metrics.evaluation import Evaluation, evaluate
from condgan.metrics.extractors import (
    CrossFit,
    Extracted,
    Extractor,
    ExtractorInfo,
    Fold,
    clip,
    dinov2,
    inception,
    module_extractor,
    to_features,
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
from condgan.metrics.fidelity_report import (
    FIDELITY_METRICS,
    FidelityComparison,
    FidelityReport,
    FidelitySettings,
    fidelity_report,
)
from condgan.metrics.judged import ImagesInfo
from condgan.metrics.membership import MembershipInference, membership_inference
from condgan.metrics.memorization import (
    ClassMemorization,
    MemorizationReport,
    MemorizationSettings,
    MemorizationVerdict,
    RemovedDuplicates,
    memorization_report,
)
from condgan.metrics.neighbors import (
    Duplicates,
    Neighbors,
    find_duplicates,
    nearest_neighbors,
    neighbor_grid,
    relative_distance,
)

__all__ = [
    "FIDELITY_METRICS",
    "ClassDiversity",
    "ClassMemorization",
    "CopyTest",
    "CrossFit",
    "DataCopying",
    "DensityCoverage",
    "Diversity",
    "DiversityReport",
    "DiversitySettings",
    "Duplicates",
    "Evaluation",
    "Extracted",
    "Extractor",
    "ExtractorInfo",
    "FidelityComparison",
    "FidelityReport",
    "FidelitySettings",
    "Fold",
    "ImagesInfo",
    "MeanWithError",
    "MembershipInference",
    "MemorizationReport",
    "MemorizationSettings",
    "MemorizationVerdict",
    "Neighbors",
    "PrecisionRecall",
    "RemovedDuplicates",
    "Score",
    "authenticity",
    "c_t",
    "clip",
    "copy_test",
    "crossfit_extractor",
    "density_coverage",
    "dinov2",
    "diversity_report",
    "evaluate",
    "fid",
    "fidelity_report",
    "find_duplicates",
    "inception",
    "inception_score",
    "kid",
    "membership_inference",
    "memorization_report",
    "module_extractor",
    "ms_ssim",
    "ms_ssim_scales",
    "nearest_neighbors",
    "neighbor_grid",
    "own_radius",
    "precision_recall",
    "relative_distance",
    "to_features",
    "weights_hash",
]
