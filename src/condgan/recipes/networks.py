"""The networks of recipes: critics of every head in every family, and their making from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal, get_args

from condgan.files import check_names
from condgan.networks import (
    ACDCGANCritic,
    ACR3GANCritic,
    ACResNetCritic,
    ADCDCGANCritic,
    ADCR3GANCritic,
    ADCResNetCritic,
    ConcatenationDCGANCritic,
    ConcatenationR3GANCritic,
    ConcatenationResNetCritic,
    ContrastiveDCGANCritic,
    ContrastiveR3GANCritic,
    ContrastiveResNetCritic,
    Critic,
    DCGANCritic,
    DCGANGenerator,
    Generator,
    ProjectionDCGANCritic,
    ProjectionR3GANCritic,
    ProjectionResNetCritic,
    R3GANCritic,
    R3GANGenerator,
    ResNetCritic,
    ResNetGenerator,
    TACDCGANCritic,
    TACR3GANCritic,
    TACResNetCritic,
)
from condgan.networks.base import seeded_weights
from condgan.networks.dcgan import Upsampling
from condgan.training import Trainer
from condgan.training.checks import check_labelled
from condgan.types import LabelledData

NetworkFamily = Literal["dcgan", "resnet", "r3gan"]
"""DCGAN's small and fast networks, residual ones, or those of R3GAN, which have no normalization."""

Critics = dict[NetworkFamily, type[Critic]]
"""Critics with the same heads, one of each family."""

GENERATORS: dict[NetworkFamily, type[Generator]] = {
    "dcgan": DCGANGenerator,
    "resnet": ResNetGenerator,
    "r3gan": R3GANGenerator,
}
PLAIN: Critics = {"dcgan": DCGANCritic, "resnet": ResNetCritic, "r3gan": R3GANCritic}
CONCATENATION: Critics = {
    "dcgan": ConcatenationDCGANCritic,
    "resnet": ConcatenationResNetCritic,
    "r3gan": ConcatenationR3GANCritic,
}
PROJECTION: Critics = {
    "dcgan": ProjectionDCGANCritic,
    "resnet": ProjectionResNetCritic,
    "r3gan": ProjectionR3GANCritic,
}
AUXILIARY_CLASSIFIER: Critics = {"dcgan": ACDCGANCritic, "resnet": ACResNetCritic, "r3gan": ACR3GANCritic}
TWIN_CLASSIFIER: Critics = {"dcgan": TACDCGANCritic, "resnet": TACResNetCritic, "r3gan": TACR3GANCritic}
DISCRIMINATIVE_CLASSIFIER: Critics = {"dcgan": ADCDCGANCritic, "resnet": ADCResNetCritic, "r3gan": ADCR3GANCritic}
CONTRASTIVE: Critics = {
    "dcgan": ContrastiveDCGANCritic,
    "resnet": ContrastiveResNetCritic,
    "r3gan": ContrastiveR3GANCritic,
}


@dataclass(frozen=True)
class OwnNetworks:
    """The networks of a recipe.

    Args:
        data: The data set to be fitted, which determines shape and classes.
        family: The requested family.
        base_channels: Width of both networks.
        critics: The critic in each family.
        conditional: Whether there are classes.
        batch_norm: Make DCGANs as in their paper: batch norm in the critic, a class embedding concatenated with `z`.
            Otherwise, for gradient penalties, the critic has no norm and the generator conditional batch norms.
        spectral_norm: Divide each of the critic's weights by its largest singular value, but in the family "r3gan",
            whose residual branches begin at zero, a matrix without a direction to be normalized.
        upsampling: How a DCGAN's generator enlarges feature maps.
        dropout: Probability of dropping a feature in a DCGAN's critic.
        generator: Makes the generator, in place of the family's.

    Raises:
        TypeError: If the data do not know their shape and classes.
        ValueError: If the family is unknown.
    """

    data: LabelledData
    family: NetworkFamily
    base_channels: int
    critics: Critics
    _: KW_ONLY
    conditional: bool = True
    batch_norm: bool = False
    spectral_norm: bool = False
    upsampling: Upsampling = "nearest"
    dropout: float = 0.0
    generator: Callable[..., Generator] | None = None

    def __post_init__(self) -> None:
        check_labelled(self.data)
        check_names("networks", [self.family], get_args(NetworkFamily))

    def make(self, seed: int) -> tuple[Generator, Critic]:
        """Return a new generator and critic.

        Args:
            seed: Seed of the initial weights.

        Raises:
            ValueError: If the samples are no images.
        """
        shape = tuple(self.data.image_shape)
        if len(shape) != 3:
            raise ValueError(
                f"the recipe's own networks are for images of shape (C, H, W), got samples of shape {shape}. "
                "Pass your own generator and critic."
            )
        common: dict[str, Any] = {
            "num_classes": self.data.num_classes if self.conditional else None,
            "image_shape": shape,
            "base_channels": self.base_channels,
        }
        of_generator, of_critic = self._options()
        with seeded_weights(seed):
            make = partial(GENERATORS[self.family], **of_generator) if self.generator is None else self.generator
            return make(**common), self.critics[self.family](**common, **of_critic)

    def _options(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the options of the generator and of the critic that not every family has."""
        spectral_norm = {"spectral_norm": self.spectral_norm}
        if self.family != "dcgan":
            return {}, spectral_norm if self.family == "resnet" else {}
        conditioning = "concatenation" if self.batch_norm else "batch_norm"
        of_critic = {"batch_norm": self.batch_norm, "dropout": self.dropout, **spectral_norm}
        return {"conditioning": conditioning, "upsampling": self.upsampling}, of_critic


def number_of_pixels(data: LabelledData, default: int) -> int:
    """Return the height times the width of the images, or `default` for samples that are no images.

    Raises:
        TypeError: If the data do not know their shape and classes.
    """
    check_labelled(data)
    return math.prod(data.image_shape[1:]) if len(data.image_shape) == 3 else default


def make_trainer(
    own: OwnNetworks,
    given: tuple[Generator | None, Critic | None],
    options: dict[str, Any],
    **defaults: Any,
) -> Trainer:
    """Return a trainer with the user's networks and options, and those of the recipe for what is not given.

    Args:
        own: Networks of the recipe.
        given: The user's generator and critic, or None.
        options: The user's keywords of the `Trainer`.
        defaults: Those of the recipe.
    """
    generator, critic = given
    if generator is None or critic is None:
        own_generator, own_critic = own.make(options.get("seed", 0))
        generator = own_generator if generator is None else generator
        critic = own_critic if critic is None else critic
    return Trainer(generator, critic, **{**defaults, **options})
