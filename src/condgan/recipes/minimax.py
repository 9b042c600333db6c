"""Recipes of the original adversarial loss: DCGAN, the conditional GAN, ACGAN."""

from __future__ import annotations

from typing import Any

from condgan.auxiliary import AuxiliaryClassifierLoss
from condgan.losses import MinimaxLoss
from condgan.networks import Critic, Generator
from condgan.recipes.networks import (
    AUXILIARY_CLASSIFIER,
    CONCATENATION,
    PLAIN,
    NetworkFamily,
    OwnNetworks,
    make_trainer,
)
from condgan.training import OptimizerConfig, Trainer
from condgan.types import LabelledData

_ADAM = OptimizerConfig(lr=2e-4, betas=(0.5, 0.999))


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

    Images are drawn as they are in the data, whatever their classes.

    Deviations: resize-convolutions in place of transposed ones (no checkerboard); an averaged generator in addition.

    References:
        Radford et al. 2016, arXiv:1511.06434.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, PLAIN, conditional=False, batch_norm=True),
        (generator, critic),
        trainer_options,
        loss=MinimaxLoss(),
        generator_optimizer=_ADAM,
        critic_optimizer=_ADAM,
        sampling="natural",
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

    Deviations: the networks and the optimizer are DCGAN's, which came later than the paper's perceptrons; all classes
    are drawn equally often; generated images have the labels of the real batch.

    References:
        Mirza and Osindero 2014, arXiv:1411.1784.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, CONCATENATION, batch_norm=True),
        (generator, critic),
        trainer_options,
        loss=MinimaxLoss(),
        generator_optimizer=_ADAM,
        critic_optimizer=_ADAM,
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
    r"""ACGAN for imbalanced classes: the critic maximizes $L_S + L_C$, the generator $L_C - L_S$, with unit weights.

    $$ L_S = \mathbb{E}\log\sigma(D(x)) + \mathbb{E}\log(1 - \sigma(D(\tilde x))), \qquad
       L_C = \mathbb{E}\log p(y \mid x) + \mathbb{E}\log p(\tilde y \mid \tilde x) $$

    The critic's class loss is on real and generated images; a class embedding is concatenated with `z`; the critic has
    batch norm; Adam(2e-4, 0.5, 0.999). Real images are drawn class by class in equal numbers, and so are labels: the
    score does not see labels, and with real classes as they come and uniform labels the generator is paid for
    turning a rare class into a common one.

    Deviations from the paper, whose method is `acgan_2017`: that distribution of the classes; no dropout in the
    critic, where the paper has 0.5: on chest X-rays at 32 pixels, with dropout in a critic of this width, the
    generator collapsed to one image per class; resize-convolutions in place of transposed ones (no checkerboard). And,
    as in `acgan_2017`, the generator maximizes $\log\sigma(D(\tilde x))$ instead of minimizing $L_S$, and is
    averaged in addition.

    References:
        Odena et al. 2017, arXiv:1610.09585.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, AUXILIARY_CLASSIFIER, batch_norm=True),
        (generator, critic),
        trainer_options,
        **_acgan_terms(),
    )


def acgan_2017(
    data: LabelledData,
    *,
    networks: NetworkFamily = "dcgan",
    base_channels: int = 96,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""ACGAN as published: `acgan` with dropout, transposed convolutions, and classes as they come.

    The critic drops each feature with probability 0.5; the generator has transposed 5x5 convolutions; real images
    are drawn as they are in the data, and labels from $p_c$, the proportions of the classes there. With 96 base
    channels the generator has the paper's 384, 192 and 96 channels for 32 x 32 pixels. Residual networks have neither
    transposed convolutions nor dropout.

    Deviations: the generator maximizes $\log\sigma(D(\tilde x))$, as is usual, instead of minimizing $L_S$, which
    stops learning as soon as the critic wins (pass `loss=MinimaxLoss(saturating=True)` for the paper's loss to the
    letter); the critic has DCGAN's convolutions, all of stride two, and as many channels as the generator, where the
    paper's has six of strides two and one with 16 to 512 channels; batch norm after the generator's first layer too;
    128 latents and an embedding of the class instead of 110 numbers, the class among them; an averaged generator in
    addition.

    References:
        Odena et al. 2017, arXiv:1610.09585, appendix A, the networks for CIFAR-10.
    """
    return make_trainer(
        OwnNetworks(
            data,
            networks,
            base_channels,
            AUXILIARY_CLASSIFIER,
            batch_norm=True,
            upsampling="transposed",
            dropout=0.5,
        ),
        (generator, critic),
        trainer_options,
        **_acgan_terms(),
        label_distribution="empirical",
        sampling="natural",
    )


def _acgan_terms() -> dict[str, Any]:
    return {
        "loss": MinimaxLoss(),
        "auxiliary": AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=1.0, generator_weight=1.0),
        "generator_optimizer": _ADAM,
        "critic_optimizer": _ADAM,
    }
