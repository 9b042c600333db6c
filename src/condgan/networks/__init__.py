"""Generators, critics, and the mixins that give a critic its heads."""

from condgan.networks.base import Critic, Generator
from condgan.networks.dcgan import (
    ACDCGANCritic,
    ConcatenationDCGANCritic,
    DCGANCritic,
    DCGANGenerator,
    ProjectionDCGANCritic,
)
from condgan.networks.heads import AuxiliaryClassifierMixin, ConcatenationMixin, ProjectionMixin
from condgan.networks.r3gan import (
    ACR3GANCritic,
    ConcatenationR3GANCritic,
    ProjectionR3GANCritic,
    R3GANCritic,
    R3GANGenerator,
)
from condgan.networks.resnet import (
    ACResNetCritic,
    ConcatenationResNetCritic,
    ProjectionResNetCritic,
    ResNetCritic,
    ResNetGenerator,
)

__all__ = [
    "ACDCGANCritic",
    "ACR3GANCritic",
    "ACResNetCritic",
    "AuxiliaryClassifierMixin",
    "ConcatenationDCGANCritic",
    "ConcatenationMixin",
    "ConcatenationR3GANCritic",
    "ConcatenationResNetCritic",
    "Critic",
    "DCGANCritic",
    "DCGANGenerator",
    "Generator",
    "ProjectionDCGANCritic",
    "ProjectionMixin",
    "ProjectionR3GANCritic",
    "ProjectionResNetCritic",
    "R3GANCritic",
    "R3GANGenerator",
    "ResNetCritic",
    "ResNetGenerator",
]
