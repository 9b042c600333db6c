"""Weighted penalties on the critic or the generator."""

from condgan.regularizers.base import CriticRegularizer, GeneratorObjective, GeneratorRegularizer
from condgan.regularizers.consistency import ConsistencyRegularizer
from condgan.regularizers.flow_matching import FlowMatching
from condgan.regularizers.gradient import R1, R2, DraganPenalty, GradientPenalty
from condgan.regularizers.group_spectral import GroupSpectralRegularizer
from condgan.regularizers.lecam import LeCam

__all__ = [
    "R1",
    "R2",
    "ConsistencyRegularizer",
    "CriticRegularizer",
    "DraganPenalty",
    "FlowMatching",
    "GeneratorObjective",
    "GeneratorRegularizer",
    "GradientPenalty",
    "GroupSpectralRegularizer",
    "LeCam",
]
