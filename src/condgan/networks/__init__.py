"""Generators, critics, and the mixins that give a critic its heads."""

from condgan.networks.base import Critic, Generator
from condgan.networks.dcgan import (
    ACDCGANCritic,
    ConcatenationDCGANCritic,
    DCGANCritic,
    DCGANGenerator,
    ProjectionDCGANCritic,
)
from condgan.networks.freezing import freeze_lower_blocks
from condgan.networks.heads import AuxiliaryClassifierMixin, ConcatenationMixin, ProjectionMixin
from condgan.networks.resnet import (
    ACResNetCritic,
    ConcatenationResNetCritic,
    ProjectionResNetCritic,
    ResNetCritic,
    ResNetGenerator,
)

__all__ = [
    "ACDCGANCritic",
    "ACResNetCritic",
    "AuxiliaryClassifierMixin",
    "ConcatenationDCGANCritic",
    "ConcatenationMixin",
    "ConcatenationResNetCritic",
    "Critic",
    "DCGANCritic",
    "DCGANGenerator",
    "Generator",
    "ProjectionDCGANCritic",
    "ProjectionMixin",
    "ProjectionResNetCritic",
    "ResNetCritic",
    "ResNetGenerator",
    "freeze_lower_blocks",
]
