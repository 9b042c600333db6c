"""Recipes of the hinge loss under spectral norm: the projection GAN, TAC-GAN, ADC-GAN, ReACGAN."""

from __future__ import annotations

import math
from typing import Any

from condgan.auxiliary import DataToDataCrossEntropyLoss, DiscriminativeClassifierLoss, TwinAuxiliaryClassifierLoss
from condgan.losses import HingeLoss
from condgan.networks import Critic, Generator
from condgan.recipes.networks import (
    CONTRASTIVE,
    DISCRIMINATIVE_CLASSIFIER,
    PROJECTION,
    TWIN_CLASSIFIER,
    NetworkFamily,
    OwnNetworks,
    make_trainer,
)
from condgan.training import OptimizerConfig, Trainer
from condgan.types import LabelledData

_SNGAN_ADAM = OptimizerConfig(lr=2e-4, betas=(0.0, 0.9))
_BIGGAN_ADAM = OptimizerConfig(lr=2e-4, betas=(0.0, 0.999))


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
    Adam(2e-4, 0, 0.9) with linear decay to 0; all classes are drawn equally often. Batches of the authors' CIFAR-10
    experiment are 64 for the critic and 128 for the generator:
    `fit(data, steps=50_000, batch_size=64, generator_batch_size=128)`.

    Deviations: widths are those of `ResNetGenerator` and `ResNetCritic` (the reference's CIFAR-10 networks have 256
    channels throughout in the generator and 128 in the critic, and two more blocks there); the score has a bias; an
    averaged generator in addition.

    References:
        Miyato and Koyama 2018, arXiv:1802.05637; Miyato et al. 2018, arXiv:1802.05957; the authors' code.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, PROJECTION, spectral_norm=True),
        (generator, critic),
        trainer_options,
        loss=HingeLoss(),
        critic_steps=5,
        generator_optimizer=_SNGAN_ADAM,
        critic_optimizer=_SNGAN_ADAM,
        schedule="linear",
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
    generator, spectral norm in the critic; two critic steps; Adam(2e-4, 0, 0.999); all classes are drawn equally often;
    averaged generator with decay 0.9999. The batches of the authors' CIFAR-10 script are of 100 images.

    Deviations: widths are those of `ResNetGenerator` and `ResNetCritic` (the reference uses BigGAN's CIFAR-10 networks,
    with 256 channels throughout, and spectral norm in the generator too); initial weights are Glorot's; the average
    begins at once, where the reference's begins after 10 000 steps.

    References:
        Gong et al. 2019, arXiv:1907.02690, and the authors' code.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, TWIN_CLASSIFIER, spectral_norm=True),
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
    critic steps; Adam(2e-4, 0, 0.999); all classes are drawn equally often; averaged generator with decay 0.9999. The
    batches of the authors' CIFAR-10 script are of 50 images.

    Deviations: as those of `tacgan`, but for the start of the average, which is after 1 000 steps in the reference.

    References:
        Hou et al. 2022, arXiv:2107.10060, and the authors' code.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, DISCRIMINATIVE_CLASSIFIER, spectral_norm=True),
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
    batch norm in the generator, spectral norm in the critic; five critic steps; Adam(2.83e-4, 0.5, 0.999); all
    classes are drawn equally often; averaged generator with decay 0.9999. The batches of the authors' CIFAR-10
    configuration are of 128 images.

    Deviations: widths are those of `ResNetGenerator` and `ResNetCritic` (BigGAN's networks, which the reference uses,
    are built on 96 channels, with self-attention, and with spectral norm in the generator too); `z` has 128 features
    instead of 80; the average begins at once, where the reference's begins after 1 000 steps.

    References:
        Kang et al. 2021, arXiv:2111.01118, and the authors' code.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, CONTRASTIVE, spectral_norm=True),
        (generator, critic),
        trainer_options,
        auxiliary=DataToDataCrossEntropyLoss(weight=0.5, margin=0.98, temperature=0.5),
        critic_steps=5,
        **_biggan_terms(OptimizerConfig(lr=2e-4 * math.sqrt(2), betas=(0.5, 0.999))),
    )


def _biggan_terms(adam: OptimizerConfig) -> dict[str, Any]:
    return {
        "loss": HingeLoss(),
        "generator_optimizer": adam,
        "critic_optimizer": adam,
        "ema_decay": 0.9999,
    }
