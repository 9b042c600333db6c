"""Weighted loss terms: adversarial ones on scores, auxiliary ones on the other outputs of a critic."""

from condgan.losses.adversarial import HingeLoss, LeastSquaresLoss, MinimaxLoss, RelativisticLoss, WassersteinLoss
from condgan.losses.auxiliary import AuxiliaryClassifierLoss

__all__ = [
    "AuxiliaryClassifierLoss",
    "HingeLoss",
    "LeastSquaresLoss",
    "MinimaxLoss",
    "RelativisticLoss",
    "WassersteinLoss",
]
