"""One function for each published method: networks, terms and optimizers, put together as a `Trainer`.

Every recipe takes the data set that will be fitted, which gives shape and classes. Networks given as `generator` and
`critic` replace the recipe's own (both of the data's shape and classes), so that a recipe also runs on vectors with
small networks of yours. Further keywords go to the `Trainer` and override the recipe's. The initial weights depend on
`seed` alone and leave PyTorch's default generator as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from condgan.augmentation import DiffAugment
from condgan.losses import AuxiliaryClassifierLoss, MinimaxLoss, RelativisticLoss, WassersteinLoss
from condgan.networks import (
    ACDCGANCritic,
    ACResNetCritic,
    ConcatenationDCGANCritic,
    Critic,
    DCGANCritic,
    DCGANGenerator,
    Generator,
    ProjectionDCGANCritic,
    ResNetCritic,
    ResNetGenerator,
)
from condgan.regularizers import R1, R2, GradientPenalty
from condgan.training import OptimizerConfig, Trainer
from condgan.types import ImageShape, LabelledData

_DCGAN_ADAM = OptimizerConfig(lr=2e-4, betas=(0.5, 0.999))
_WGAN_GP_ADAM = OptimizerConfig(lr=2e-4, betas=(0.0, 0.9))


def dcgan(
    data: LabelledData,
    *,
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    """Unconditional DCGAN: non-saturating minimax loss, batch norm in both networks, Adam(2e-4, 0.5, 0.999).

    Deviations: resize-convolutions for transposed ones (no checkerboard), an averaged generator on the side.

    References:
        Radford et al. 2016, arXiv:1511.06434.
    """
    return _trainer(
        data,
        generator,
        critic,
        _dcgan_networks(DCGANCritic, None, base_channels),
        trainer_options,
        loss=MinimaxLoss(),
        generator_optimizer=_DCGAN_ADAM,
        critic_optimizer=_DCGAN_ADAM,
    )


def cgan(
    data: LabelledData,
    *,
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    """Conditional GAN: the label is an input of both networks, joined with `z` and with the critic's features.

    Deviations: the networks and the optimizer are DCGAN's, which came later than the paper's perceptrons; the labels
    of generated images are those of the real batch.

    References:
        Mirza and Osindero 2014, arXiv:1411.1784.
    """
    return _trainer(
        data,
        generator,
        critic,
        _dcgan_networks(ConcatenationDCGANCritic, data.num_classes, base_channels),
        trainer_options,
        loss=MinimaxLoss(),
        generator_optimizer=_DCGAN_ADAM,
        critic_optimizer=_DCGAN_ADAM,
        label_law="paired",
    )


def acgan(
    data: LabelledData,
    *,
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""ACGAN: the critic maximizes $L_S + L_C$, the generator $L_C - L_S$, with unit weights.

    $$ L_S = \mathbb{E}\log\sigma(D(x)) + \mathbb{E}\log(1 - \sigma(D(\tilde x))), \qquad
       L_C = \mathbb{E}\log p(y \mid x) + \mathbb{E}\log p(\tilde y \mid \tilde x) $$

    The class loss is taken on real and generated images in the critic; a class embedding joins `z`; the critic has
    batch norm; Adam(2e-4, 0.5, 0.999); uniform labels.

    Deviations: the generator maximizes $\log\sigma(D(\tilde x))$, as is usual, instead of
    minimizing $L_S$ (pass `loss=MinimaxLoss(saturating=True)` for the letter of the paper); resize-convolutions for
    transposed ones; an averaged generator on the side; no dropout in the critic, where the paper has 0.5: on chest
    X-rays at 32 pixels a critic of this width with it let the generator collapse to one image a class.

    References:
        Odena et al. 2017, arXiv:1610.09585.
    """
    return _trainer(
        data,
        generator,
        critic,
        _dcgan_networks(ACDCGANCritic, data.num_classes, base_channels),
        trainer_options,
        loss=MinimaxLoss(),
        auxiliary=AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=1.0, generator_weight=1.0),
        generator_optimizer=_DCGAN_ADAM,
        critic_optimizer=_DCGAN_ADAM,
        label_law="uniform",
    )


def wgan_gp(
    data: LabelledData,
    *,
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""Unconditional WGAN-GP on residual networks: gradient penalty of weight 10, five critic steps for each step.

    Adam(2e-4, 0, 0.9) with linear decay to 0; real images are dequantized. The reference's batches are 64 for the
    critic and 128 for the generator: `fit(data, steps=..., batch_size=64, generator_batch_size=128)`.

    Deviation: an averaged generator on the side.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028.
    """
    return _trainer(
        data,
        generator,
        critic,
        _resnet_networks(ResNetCritic, None, base_channels),
        trainer_options,
        **_wgan_gp_terms(),
    )


def acwgan_gp(
    data: LabelledData,
    *,
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""ACWGAN-GP: WGAN-GP with an auxiliary classifier, as in the conditional experiment of its authors.

    $$ \min_D \; \mathbb{E} D(\tilde x) - \mathbb{E} D(x) + 10\, \mathbb{E}(\lVert\nabla D(\hat x)\rVert - 1)^2
       + \mathrm{CE}(x, y), \qquad \min_G \; -\mathbb{E} D(\tilde x) + 0.1\, \mathrm{CE}(\tilde x, \tilde y) $$

    The class loss of the critic sees real images only. Five critic steps; Adam(2e-4, 0, 0.9) with linear decay to 0;
    conditional batch norm in the generator, none in the critic; in the critic's steps generated images carry the labels
    of the real batch, in the generator's uniform ones; real images are dequantized. The reference's batches are 64 for
    the critic and 128 for the generator: `fit(data, steps=..., batch_size=64, generator_batch_size=128)`.

    Deviations: blocks and widths are those of `ResNetGenerator` and `ResNetCritic` (the reference's CIFAR-10 networks
    have 128 channels throughout and pool by mean); an averaged generator on the side.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028, section 5.3 and the authors' code.
    """
    return _trainer(
        data,
        generator,
        critic,
        _resnet_networks(ACResNetCritic, data.num_classes, base_channels),
        trainer_options,
        auxiliary=AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=0.0, generator_weight=0.1),
        label_law="paired",
        **_wgan_gp_terms(),
    )


def small_data(
    data: LabelledData,
    *,
    base_channels: int = 32,
    penalty_weight: float | None = None,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""A few hundred to a few thousand images of imbalanced classes: a relativistic loss under R1 and R2.

    $$ \min_D \; \mathbb{E}\, f\big(D(\tilde x, y) - D(x, y)\big) + \tfrac{\gamma}{2}\, \mathbb{E}
       \big(\lVert\nabla_x D(x, y)\rVert^2 + \lVert\nabla_{\tilde x} D(\tilde x, y)\rVert^2\big), \qquad
       \min_G \; \mathbb{E}\, f\big(D(x, y) - D(\tilde x, y)\big), \qquad f(t) = \log(1 + e^t) $$

    Each generated image is compared with a real one of its class. The critic has a projection head and no norm, the
    generator conditional batch norm. Real images are drawn class by class in equal numbers, whatever their counts.
    Real and generated images pass `DiffAugment(policy="translation,cutout")` in front of the critic, without changes
    of brightness and contrast, which carry the class of a radiograph. Adam(2e-4, 0, 0.9); an averaged generator of
    decay 0.99, for trainings of some thousand steps; bfloat16. Batches of 32 suffice:
    `fit(data, steps=4_500, batch_size=32)`.

    The parts are those of R3GAN on DCGAN's small networks; the combination is our own. Samples that are no images are
    not augmented.

    Args:
        data: The data set to be fitted.
        base_channels: Width of the networks.
        penalty_weight: Coefficient $\gamma$ of both penalties. By default 0.05 for 32 x 32 pixels, and in proportion
            to the number of pixels: at twice the height and width the gradient is a quarter in each of four times as
            many pixels.
        generator: In place of the recipe's own.
        critic: In place of the recipe's own.
        trainer_options: Of the `Trainer`, in place of the recipe's.

    References:
        Huang et al. 2024, arXiv:2501.05441 (R3GAN); Jolicoeur-Martineau 2018, arXiv:1807.00734 (relativistic loss);
        Mescheder et al. 2018, arXiv:1801.04406 (R1, R2); Miyato and Koyama 2018, arXiv:1802.05637 (projection);
        Zhao et al. 2020, arXiv:2006.10738 (DiffAugment).
    """
    images = len(data.image_shape) == 3
    pixels = math.prod(data.image_shape[1:]) if images else 32**2
    weight = 0.05 * pixels / 32**2 if penalty_weight is None else penalty_weight

    def make_networks(shape: ImageShape) -> tuple[Generator, Critic]:
        options: dict[str, Any] = {
            "num_classes": data.num_classes,
            "image_shape": shape,
            "base_channels": base_channels,
        }
        return DCGANGenerator(conditioning="batch_norm", **options), ProjectionDCGANCritic(**options)

    return _trainer(
        data,
        generator,
        critic,
        make_networks,
        trainer_options,
        loss=RelativisticLoss(),
        regularizers=[R1(weight), R2(weight)],
        augment=DiffAugment(policy="translation,cutout") if images else None,
        generator_optimizer=_WGAN_GP_ADAM,
        critic_optimizer=_WGAN_GP_ADAM,
        ema_decay=0.99,
        label_law="paired",
        sampling="balanced",
        precision="bf16",
    )


RECIPES: dict[str, Callable[..., Trainer]] = {
    recipe.__name__: recipe for recipe in (dcgan, cgan, acgan, wgan_gp, acwgan_gp, small_data)
}
"""Recipes by name."""

CONDITIONAL = tuple(name for name in RECIPES if name not in ("dcgan", "wgan_gp"))
"""Names of the recipes whose generators take labels."""


def _wgan_gp_terms() -> dict[str, Any]:
    return {
        "loss": WassersteinLoss(),
        "regularizers": [GradientPenalty(weight=10.0)],
        "critic_steps": 5,
        "generator_optimizer": _WGAN_GP_ADAM,
        "critic_optimizer": _WGAN_GP_ADAM,
        "schedule": "linear",
        "dequantize": True,
    }


_MakeNetworks = Callable[[ImageShape], tuple[Generator, Critic]]


def _dcgan_networks(critic: type[DCGANCritic], num_classes: int | None, base_channels: int) -> _MakeNetworks:
    def make(shape: ImageShape) -> tuple[Generator, Critic]:
        options: dict[str, Any] = {"num_classes": num_classes, "image_shape": shape, "base_channels": base_channels}
        return DCGANGenerator(**options), critic(batch_norm=True, **options)

    return make


def _resnet_networks(critic: type[ResNetCritic], num_classes: int | None, base_channels: int) -> _MakeNetworks:
    def make(shape: ImageShape) -> tuple[Generator, Critic]:
        options: dict[str, Any] = {"num_classes": num_classes, "image_shape": shape, "base_channels": base_channels}
        return ResNetGenerator(**options), critic(**options)

    return make


def _trainer(
    data: LabelledData,
    generator: Generator | None,
    critic: Critic | None,
    make_networks: _MakeNetworks,
    options: dict[str, Any],
    **defaults: Any,
) -> Trainer:
    if generator is None or critic is None:
        shape = tuple(data.image_shape)
        if len(shape) != 3:
            raise ValueError(
                f"the recipe's own networks are for images of shape (C, H, W), got samples of shape {shape}. "
                "Pass a generator and a critic of yours."
            )
        with torch.random.fork_rng(devices=[]):
            # The generator of the CPU alone, unlike torch.manual_seed.
            torch.default_generator.manual_seed(options.get("seed", 0))
            own_generator, own_critic = make_networks((shape[0], shape[1], shape[2]))
        generator = own_generator if generator is None else generator
        critic = own_critic if critic is None else critic
    return Trainer(generator, critic, **{**defaults, **options})
