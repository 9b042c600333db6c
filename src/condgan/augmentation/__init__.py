"""Differentiable augmentation of the images in front of the critic."""

from condgan.augmentation.adaptive import AdaptiveAugment
from condgan.augmentation.diffaugment import DiffAugment
from condgan.augmentation.pseudo import AdaptivePseudoAugment
from condgan.augmentation.strength import AdaptiveStrength

__all__ = ["AdaptiveAugment", "AdaptivePseudoAugment", "AdaptiveStrength", "DiffAugment"]
