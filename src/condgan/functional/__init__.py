"""The mathematics of losses and penalties, unweighted, as functions of tensors.

Every function returns a scalar unless it says otherwise, and reduces in
`torch.promote_types(dtype, torch.float32)`: bfloat16 scores are averaged in float32, float64 stays float64. The
weighted terms that a trainer adds up are in `condgan.losses` and `condgan.regularizers`.
"""

from condgan.functional.adversarial import (
    hinge_critic,
    hinge_generator,
    least_squares_critic,
    least_squares_generator,
    minimax_critic,
    minimax_generator,
    relativistic_critic,
    relativistic_generator,
    wasserstein_critic,
    wasserstein_generator,
)
from condgan.functional.auxiliary import class_cross_entropy
from condgan.functional.penalties import CriticFunction, dragan_penalty, gradient_penalty, interpolate, r1, r2

__all__ = [
    "CriticFunction",
    "class_cross_entropy",
    "dragan_penalty",
    "gradient_penalty",
    "hinge_critic",
    "hinge_generator",
    "interpolate",
    "least_squares_critic",
    "least_squares_generator",
    "minimax_critic",
    "minimax_generator",
    "r1",
    "r2",
    "relativistic_critic",
    "relativistic_generator",
    "wasserstein_critic",
    "wasserstein_generator",
]
