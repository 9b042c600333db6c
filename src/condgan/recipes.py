"""One function for each published method: networks, terms and optimizers, put together as a `Trainer`.

Every recipe takes the data set that will be fitted, which determines shape and classes, and

- `networks`: the family of its networks, `"dcgan"` or `"resnet"`; by default the one closest to the paper;
- `base_channels`: the width of these networks;
- `generator`, `critic`: your own networks instead (both of the data's shape and classes), so that a recipe also runs on
  vectors;
- further keywords of the `Trainer`, which override the recipe's.

The initial weights depend on `seed` only, and making them does not advance PyTorch's default random generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch

from condgan.augmentation import DiffAugment
from condgan.auxiliary import (
    AuxiliaryClassifierLoss,
    DataToDataCrossEntropyLoss,
    DiscriminativeClassifierLoss,
    TwinAuxiliaryClassifierLoss,
)
from condgan.files import check_names
from condgan.losses import HingeLoss, MinimaxLoss, RelativisticLoss, WassersteinLoss
from condgan.networks import (
    ACDCGANCritic,
    ACResNetCritic,
    ADCDCGANCritic,
    ADCResNetCritic,
    ConcatenationDCGANCritic,
    ConcatenationResNetCritic,
    ContrastiveDCGANCritic,
    ContrastiveResNetCritic,
    Critic,
    DCGANCritic,
    DCGANGenerator,
    Generator,
    ProjectionDCGANCritic,
    ProjectionResNetCritic,
    ResNetCritic,
    ResNetGenerator,
    TACDCGANCritic,
    TACResNetCritic,
)
from condgan.networks.base import Conditioning, seeded_weights
from condgan.regularizers import R1, R2, GradientPenalty
from condgan.training import OptimizerConfig, Trainer, WeightClipping
from condgan.types import LabelledData

NetworkFamily = Literal["dcgan", "resnet"]
"""DCGAN's small and fast networks, or residual ones."""

_DCGAN_ADAM = OptimizerConfig(lr=2e-4, betas=(0.5, 0.999))
_WGAN_GP_ADAM = OptimizerConfig(lr=2e-4, betas=(0.0, 0.9))
_BIGGAN_ADAM = OptimizerConfig(lr=2e-4, betas=(0.0, 0.999))


def dcgan(
    data: LabelledData,
    *,
    networks: NetworkFamily = "dcgan",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    """Unconditional DCGAN: non-saturating minimax loss, batch norm in both networks, Adam(2e-4, 0.5, 0.999).

    Deviations: resize-convolutions in place of transposed ones (no checkerboard); an averaged generator in addition.

    References:
        Radford et al. 2016, arXiv:1511.06434.
    """
    return _trainer(
        data,
        _OwnNetworks(networks, base_channels, None, dcgan=DCGANCritic, resnet=ResNetCritic, batch_norm=True),
        (generator, critic),
        trainer_options,
        loss=MinimaxLoss(),
        generator_optimizer=_DCGAN_ADAM,
        critic_optimizer=_DCGAN_ADAM,
    )


def cgan(
    data: LabelledData,
    *,
    networks: NetworkFamily = "dcgan",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    """Conditional GAN: the label is an input of both networks, concatenated with `z` and with the critic's features.

    Deviations: the networks and the optimizer are DCGAN's, which came later than the paper's perceptrons; generated
    images have the labels of the real batch.

    References:
        Mirza and Osindero 2014, arXiv:1411.1784.
    """
    return _trainer(
        data,
        _OwnNetworks(
            networks,
            base_channels,
            data.num_classes,
            dcgan=ConcatenationDCGANCritic,
            resnet=ConcatenationResNetCritic,
            batch_norm=True,
        ),
        (generator, critic),
        trainer_options,
        loss=MinimaxLoss(),
        generator_optimizer=_DCGAN_ADAM,
        critic_optimizer=_DCGAN_ADAM,
        label_distribution="paired",
    )


def acgan(
    data: LabelledData,
    *,
    networks: NetworkFamily = "dcgan",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""ACGAN: the critic maximizes $L_S + L_C$, the generator $L_C - L_S$, with unit weights.

    $$ L_S = \mathbb{E}\log\sigma(D(x)) + \mathbb{E}\log(1 - \sigma(D(\tilde x))), \qquad
       L_C = \mathbb{E}\log p(y \mid x) + \mathbb{E}\log p(\tilde y \mid \tilde x) $$

    The critic's class loss is on real and generated images; a class embedding is concatenated with `z`; the critic has
    batch norm; Adam(2e-4, 0.5, 0.999); uniform labels.

    Deviations: the generator maximizes $\log\sigma(D(\tilde x))$, as is usual, instead of
    minimizing $L_S$ (pass `loss=MinimaxLoss(saturating=True)` for the paper's loss); resize-convolutions in place of
    transposed ones; an averaged generator in addition; no dropout in the critic, where the paper has 0.5: on chest
    X-rays at 32 pixels, with dropout in a critic of this width, the generator collapsed to one image per class.

    References:
        Odena et al. 2017, arXiv:1610.09585.
    """
    return _trainer(
        data,
        _OwnNetworks(
            networks, base_channels, data.num_classes, dcgan=ACDCGANCritic, resnet=ACResNetCritic, batch_norm=True
        ),
        (generator, critic),
        trainer_options,
        loss=MinimaxLoss(),
        auxiliary=AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=1.0, generator_weight=1.0),
        generator_optimizer=_DCGAN_ADAM,
        critic_optimizer=_DCGAN_ADAM,
        label_distribution="balanced",
    )


def wgan(
    data: LabelledData,
    *,
    networks: NetworkFamily = "dcgan",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    """Unconditional WGAN on DCGAN's networks: the critic's weights are clipped to [-0.01, 0.01] after each update.

    Batch norm in both networks; five critic steps; RMSprop(5e-5); batches of 64.

    Deviations: always five critic steps, where the authors' code has 100 in the first 25 generator steps and in every
    500th; resize-convolutions in place of transposed ones; an averaged generator in addition.

    References:
        Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1 and the authors' code.
    """
    rmsprop = partial(torch.optim.RMSprop, lr=5e-5)
    return _trainer(
        data,
        _OwnNetworks(networks, base_channels, None, dcgan=DCGANCritic, resnet=ResNetCritic, batch_norm=True),
        (generator, critic),
        trainer_options,
        loss=WassersteinLoss(),
        critic_steps=5,
        generator_optimizer=rmsprop,
        critic_optimizer=WeightClipping(rmsprop, limit=0.01),
    )


def wgan_gp(
    data: LabelledData,
    *,
    networks: NetworkFamily = "resnet",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""Unconditional WGAN-GP on residual networks: gradient penalty of weight 10, five critic steps per generator step.

    Adam(2e-4, 0, 0.9) with linear decay to 0; real images are dequantized. The reference's batches are 64 for the
    critic and 128 for the generator: `fit(data, steps=..., batch_size=64, generator_batch_size=128)`.

    Deviation: an averaged generator in addition.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028.
    """
    return _trainer(
        data,
        _OwnNetworks(networks, base_channels, None, dcgan=DCGANCritic, resnet=ResNetCritic),
        (generator, critic),
        trainer_options,
        **_wgan_gp_terms(),
    )


def acwgan_gp(
    data: LabelledData,
    *,
    networks: NetworkFamily = "resnet",
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
    have 128 channels throughout and pool by mean); an averaged generator in addition.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028, section 5.3 and the authors' code.
    """
    return _trainer(
        data,
        _OwnNetworks(networks, base_channels, data.num_classes, dcgan=ACDCGANCritic, resnet=ACResNetCritic),
        (generator, critic),
        trainer_options,
        auxiliary=AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=0.0, generator_weight=0.1),
        label_distribution="paired",
        **_wgan_gp_terms(),
    )


def sngan_projection(
    data: LabelledData,
    *,
    networks: NetworkFamily = "resnet",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    """Projection GAN: hinge loss, spectral norm, and the inner product of features and class embedding in the score.

    Residual networks; conditional batch norm in the generator, spectral norm in the critic; five critic steps;
    Adam(2e-4, 0, 0.9) with linear decay to 0; uniform labels. Batches of the authors' CIFAR-10 experiment are 64 for
    the critic and 128 for the generator: `fit(data, steps=50_000, batch_size=64, generator_batch_size=128)`.

    Deviations: widths are those of `ResNetGenerator` and `ResNetCritic` (the reference's CIFAR-10 networks have 256
    channels throughout in the generator and 128 in the critic, and two more blocks there); the score has a bias; an
    averaged generator in addition.

    References:
        Miyato and Koyama 2018, arXiv:1802.05637; Miyato et al. 2018, arXiv:1802.05957; the authors' code.
    """
    return _trainer(
        data,
        _OwnNetworks(
            networks,
            base_channels,
            data.num_classes,
            dcgan=ProjectionDCGANCritic,
            resnet=ProjectionResNetCritic,
            spectral_norm=True,
        ),
        (generator, critic),
        trainer_options,
        loss=HingeLoss(),
        critic_steps=5,
        generator_optimizer=_WGAN_GP_ADAM,
        critic_optimizer=_WGAN_GP_ADAM,
        schedule="linear",
        label_distribution="balanced",
    )


def tacgan(
    data: LabelledData,
    *,
    networks: NetworkFamily = "resnet",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    """TAC-GAN: a class head for real images, a twin head for generated ones, and a generator that pits them.

    Hinge loss without projection, as in the authors' code; class terms of weight 1; conditional batch norm in the
    generator, spectral norm in the critic; two critic steps; Adam(2e-4, 0, 0.999); uniform labels; averaged generator
    with decay 0.9999. The batches of the authors' CIFAR-10 script are of 100 images.

    Deviations: widths are those of `ResNetGenerator` and `ResNetCritic` (the reference uses BigGAN's CIFAR-10 networks,
    with 256 channels throughout, and spectral norm in the generator too); initial weights are Glorot's; the average
    begins at once, where the reference's begins after 10 000 steps.

    References:
        Gong et al. 2019, arXiv:1907.02690, and the authors' code.
    """
    return _trainer(
        data,
        _OwnNetworks(
            networks, base_channels, data.num_classes, dcgan=TACDCGANCritic, resnet=TACResNetCritic, spectral_norm=True
        ),
        (generator, critic),
        trainer_options,
        auxiliary=TwinAuxiliaryClassifierLoss(weight=1.0),
        critic_steps=2,
        **_biggan_terms(_BIGGAN_ADAM),
    )


def adcgan(
    data: LabelledData,
    *,
    networks: NetworkFamily = "resnet",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    """ADC-GAN: a classifier that tells the real images of each class from the generated ones, beside the score.

    Hinge loss; class terms of weight 1; conditional batch norm in the generator, spectral norm in the critic; four
    critic steps; Adam(2e-4, 0, 0.999); uniform labels; averaged generator with decay 0.9999. The batches of the
    authors' CIFAR-10 script are of 50 images.

    Deviations: as those of `tacgan`, but for the start of the average, which is after 1 000 steps in the reference.

    References:
        Hou et al. 2022, arXiv:2107.10060, and the authors' code.
    """
    return _trainer(
        data,
        _OwnNetworks(
            networks, base_channels, data.num_classes, dcgan=ADCDCGANCritic, resnet=ADCResNetCritic, spectral_norm=True
        ),
        (generator, critic),
        trainer_options,
        auxiliary=DiscriminativeClassifierLoss(weight=1.0),
        critic_steps=4,
        **_biggan_terms(_BIGGAN_ADAM),
    )


def reacgan(
    data: LabelledData,
    *,
    networks: NetworkFamily = "resnet",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    """ReACGAN: unit embeddings, pulled to the proxies of their classes and pushed off those of other classes.

    Hinge loss; data-to-data cross entropy of weight 0.5, margin 0.98 and temperature 0.5 on 512 features; conditional
    batch norm in the generator, spectral norm in the critic; five critic steps; Adam(2.83e-4, 0.5, 0.999); uniform
    labels; averaged generator with decay 0.9999. The batches of the authors' CIFAR-10 configuration are of 128 images.

    Deviations: widths are those of `ResNetGenerator` and `ResNetCritic` (BigGAN's networks, which the reference uses,
    are built on 96 channels, with self-attention, and with spectral norm in the generator too); `z` has 128 features
    instead of 80; the average begins at once, where the reference's begins after 1 000 steps.

    References:
        Kang et al. 2021, arXiv:2111.01118, and the authors' code.
    """
    return _trainer(
        data,
        _OwnNetworks(
            networks,
            base_channels,
            data.num_classes,
            dcgan=ContrastiveDCGANCritic,
            resnet=ContrastiveResNetCritic,
            spectral_norm=True,
        ),
        (generator, critic),
        trainer_options,
        auxiliary=DataToDataCrossEntropyLoss(weight=0.5, margin=0.98, temperature=0.5),
        critic_steps=5,
        **_biggan_terms(OptimizerConfig(lr=2e-4 * math.sqrt(2), betas=(0.5, 0.999))),
    )


def small_data(
    data: LabelledData,
    *,
    networks: NetworkFamily = "dcgan",
    base_channels: int = 32,
    penalty_weight: float | None = None,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""For a few hundred to a few thousand images of imbalanced classes: a relativistic loss with R1 and R2.

    $$ \min_D \; \mathbb{E}\, f\big(D(\tilde x, y) - D(x, y)\big) + \tfrac{\gamma}{2}\, \mathbb{E}
       \big(\lVert\nabla_x D(x, y)\rVert^2 + \lVert\nabla_{\tilde x} D(\tilde x, y)\rVert^2\big), \qquad
       \min_G \; \mathbb{E}\, f\big(D(x, y) - D(\tilde x, y)\big), \qquad f(t) = \log(1 + e^t) $$

    Each generated image is compared with a real one of its class. The critic has a projection head and no norm, the
    generator conditional batch norm. Real images are drawn class by class in equal numbers, whatever their counts.
    In front of the critic real and generated images are augmented by `DiffAugment("translation,cutout")`, without
    changes of brightness and contrast, which carry the class of a radiograph. Adam(2e-4, 0, 0.9); an averaged generator
    with decay 0.99, for a few thousand steps of training; bfloat16. Batches of 32 suffice:
    `fit(data, steps=4_500, batch_size=32)`.

    The parts are those of R3GAN on DCGAN's small networks; the combination is our own. Samples that are not
    images are not augmented.

    Args:
        data: The data set to be fitted.
        networks: Family of the networks.
        base_channels: Width of the networks.
        penalty_weight: Coefficient $\gamma$ of both penalties. By default 0.05 for 32 x 32 pixels, and in proportion
            to the number of pixels: at twice the height and width there are four times as many pixels, each with a
            quarter of the gradient.
        generator: Used instead of the recipe's own.
        critic: Used instead of the recipe's own.
        trainer_options: Keywords of the `Trainer`, which override the recipe's.

    References:
        Huang et al. 2024, arXiv:2501.05441 (R3GAN); Jolicoeur-Martineau 2018, arXiv:1807.00734 (relativistic loss);
        Mescheder et al. 2018, arXiv:1801.04406 (R1, R2); Miyato and Koyama 2018, arXiv:1802.05637 (projection);
        Zhao et al. 2020, arXiv:2006.10738 (DiffAugment).
    """
    images = len(data.image_shape) == 3
    pixels = math.prod(data.image_shape[1:]) if images else 32**2
    weight = 0.05 * pixels / 32**2 if penalty_weight is None else penalty_weight
    return _trainer(
        data,
        _OwnNetworks(
            networks, base_channels, data.num_classes, dcgan=ProjectionDCGANCritic, resnet=ProjectionResNetCritic
        ),
        (generator, critic),
        trainer_options,
        loss=RelativisticLoss(),
        regularizers=[R1(weight), R2(weight)],
        augment=DiffAugment("translation,cutout") if images else None,
        generator_optimizer=_WGAN_GP_ADAM,
        critic_optimizer=_WGAN_GP_ADAM,
        ema_decay=0.99,
        label_distribution="paired",
        sampling="balanced",
        precision="bf16",
    )


RECIPES: dict[str, Callable[..., Trainer]] = {
    recipe.__name__: recipe
    for recipe in (
        *(dcgan, cgan, acgan, wgan, wgan_gp, acwgan_gp),
        *(sngan_projection, tacgan, adcgan, reacgan),
        small_data,
    )
}
"""Recipes by name."""

CONDITIONAL = tuple(name for name in RECIPES if name not in ("dcgan", "wgan", "wgan_gp"))
"""Names of the recipes whose generators take labels."""


def _wgan_gp_terms() -> dict[str, Any]:
    return {
        "loss": WassersteinLoss(),
        "regularizers": [GradientPenalty(10.0)],
        "critic_steps": 5,
        "generator_optimizer": _WGAN_GP_ADAM,
        "critic_optimizer": _WGAN_GP_ADAM,
        "schedule": "linear",
        "dequantize": True,
    }


def _biggan_terms(adam: OptimizerConfig) -> dict[str, Any]:
    return {
        "loss": HingeLoss(),
        "generator_optimizer": adam,
        "critic_optimizer": adam,
        "ema_decay": 0.9999,
        "label_distribution": "balanced",
    }


@dataclass(frozen=True)
class _OwnNetworks:
    """The networks of a recipe, in either family.

    Args:
        family: The requested family.
        base_channels: Width of both networks.
        num_classes: Classes K, or None without classes.
        dcgan: The critic in the family "dcgan".
        resnet: The critic in the family "resnet".
        batch_norm: Make DCGANs as in their paper: batch norm in the critic, a class embedding concatenated with `z`.
            Otherwise, for gradient penalties, the critic has no norm and the generator conditional batch norms.
        spectral_norm: Divide each of the critic's weights by its largest singular value.
    """

    family: NetworkFamily
    base_channels: int
    num_classes: int | None
    _: KW_ONLY
    dcgan: type[DCGANCritic]
    resnet: type[ResNetCritic]
    batch_norm: bool = False
    spectral_norm: bool = False

    def __post_init__(self) -> None:
        check_names("networks", [self.family], get_args(NetworkFamily))

    def make(self, shape: tuple[int, ...], seed: int) -> tuple[Generator, Critic]:
        if len(shape) != 3:
            raise ValueError(
                f"the recipe's own networks are for images of shape (C, H, W), got samples of shape {shape}. "
                "Pass your own generator and critic."
            )
        options: dict[str, Any] = {
            "num_classes": self.num_classes,
            "image_shape": shape,
            "base_channels": self.base_channels,
        }
        normed = {**options, "spectral_norm": self.spectral_norm}
        with seeded_weights(seed):
            if self.family == "resnet":
                return ResNetGenerator(**options), self.resnet(**normed)
            conditioning: Conditioning = "concatenation" if self.batch_norm else "batch_norm"
            generator = DCGANGenerator(conditioning=conditioning, **options)
            return generator, self.dcgan(batch_norm=self.batch_norm, **normed)


def _trainer(
    data: LabelledData,
    own: _OwnNetworks,
    given: tuple[Generator | None, Critic | None],
    options: dict[str, Any],
    **defaults: Any,
) -> Trainer:
    generator, critic = given
    if generator is None or critic is None:
        own_generator, own_critic = own.make(tuple(data.image_shape), options.get("seed", 0))
        generator = own_generator if generator is None else generator
        critic = own_critic if critic is None else critic
    return Trainer(generator, critic, **{**defaults, **options})
