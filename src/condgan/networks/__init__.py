"""Generators, critics, and the mixins that give a critic its heads."""

from condgan.networks.base import Critic, Generator
from condgan.networks.dcgan import (
    ACDCGANCritic,
    ACProjectionDCGANCritic,
    ADCDCGANCritic,
    ConcatenationDCGANCritic,
    ContrastiveDCGANCritic,
    DCGANCritic,
    DCGANGenerator,
    ProjectionDCGANCritic,
    TACDCGANCritic,
)
from condgan.networks.heads import (
    AuxiliaryClassifierMixin,
    ConcatenationMixin,
    ContrastiveMixin,
    DiscriminativeClassifierMixin,
    ProjectionMixin,
    TwinAuxiliaryClassifierMixin,
)
from condgan.networks.resnet import (
    ACProjectionResNetCritic,
    ACResNetCritic,
    ADCResNetCritic,
    ConcatenationResNetCritic,
    ContrastiveResNetCritic,
    ProjectionResNetCritic,
    ResNetCritic,
    ResNetGenerator,
    TACResNetCritic,
)

__all__ = [
    "ACDCGANCritic",
    "ACProjectionDCGANCritic",
    "ACProjectionResNetCritic",
    "ACResNetCritic",
    "ADCDCGANCritic",
    "ADCResNetCritic",
    "AuxiliaryClassifierMixin",
    "ConcatenationDCGANCritic",
    "ConcatenationMixin",
    "ConcatenationResNetCritic",
    "ContrastiveDCGANCritic",
    "ContrastiveMixin",
    "ContrastiveResNetCritic",
    "Critic",
    "DCGANCritic",
    "DCGANGenerator",
    "DiscriminativeClassifierMixin",
    "Generator",
    "ProjectionDCGANCritic",
    "ProjectionMixin",
    "ProjectionResNetCritic",
    "ResNetCritic",
    "ResNetGenerator",
    "TACDCGANCritic",
    "TACResNetCritic",
    "TwinAuxiliaryClassifierMixin",
]
