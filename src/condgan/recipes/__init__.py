"""One function for each method: networks, terms and optimizers, put together as a `Trainer`.

Real classes and the labels of generated images have the same distribution: all classes are drawn equally often, except
in the published forms, whose names end in a year, and in unconditional recipes, which draw them as they come.

Every recipe takes the data set that will be fitted, which determines shape and classes, and

- `networks`: the family of its networks, `"dcgan"`, `"resnet"` or `"r3gan"`; by default the one closest to the paper
  (`small_data`: the family of its critic);
- `base_channels`: the width of these networks;
- `generator`, `critic`: your own networks instead (both of the data's shape and classes), so that a recipe also runs on
  vectors;
- further keywords of the `Trainer`, which override the recipe's.

The initial weights depend on `seed` only, and making them does not advance PyTorch's default random generator.
"""

from collections.abc import Callable

from condgan.recipes.hinge import adcgan, reacgan, sngan_projection, tacgan
from condgan.recipes.minimax import acgan, acgan_2017, cgan, dcgan
from condgan.recipes.networks import NetworkFamily
from condgan.recipes.relativistic import r3gan, small_data
from condgan.recipes.wasserstein import acwgan_gp, acwgan_gp_2017, wgan, wgan_gp
from condgan.training import Trainer

__all__ = [
    "CONDITIONAL",
    "RECIPES",
    "WITH_CLASSIFIER",
    "NetworkFamily",
    "acgan",
    "acgan_2017",
    "acwgan_gp",
    "acwgan_gp_2017",
    "adcgan",
    "cgan",
    "dcgan",
    "r3gan",
    "reacgan",
    "small_data",
    "sngan_projection",
    "tacgan",
    "wgan",
    "wgan_gp",
]

RECIPES: dict[str, Callable[..., Trainer]] = {
    recipe.__name__: recipe
    for recipe in (
        *(dcgan, cgan, acgan, acgan_2017),
        *(wgan, wgan_gp, acwgan_gp, acwgan_gp_2017),
        *(sngan_projection, tacgan, adcgan, reacgan),
        *(r3gan, small_data),
    )
}
"""Recipes by name."""

CONDITIONAL = tuple(name for name in RECIPES if name not in ("dcgan", "wgan", "wgan_gp"))
"""Names of the recipes whose generators take labels."""

WITH_CLASSIFIER = ("acgan", "acgan_2017", "acwgan_gp", "acwgan_gp_2017")
"""Names of the recipes whose class loss is an `AuxiliaryClassifierLoss`."""
