"""Recipes of the Wasserstein loss: WGAN with clipped weights, WGAN-GP, ACWGAN-GP."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from condgan.auxiliary import AuxiliaryClassifierLoss
from condgan.losses import WassersteinLoss
from condgan.networks import Critic, Generator
from condgan.recipes.networks import AUXILIARY_CLASSIFIER, PLAIN, NetworkFamily, OwnNetworks, make_trainer
from condgan.regularizers import GradientPenalty
from condgan.training import OptimizerConfig, Trainer, WeightClipping
from condgan.types import LabelledData

_ADAM = OptimizerConfig(lr=2e-4, betas=(0.0, 0.9))


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
    return make_trainer(
        OwnNetworks(data, networks, base_channels, PLAIN, conditional=False, batch_norm=True),
        (generator, critic),
        trainer_options,
        loss=WassersteinLoss(),
        critic_steps=5,
        generator_optimizer=rmsprop,
        critic_optimizer=WeightClipping(rmsprop, limit=0.01),
        sampling="natural",
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

    Adam(2e-4, 0, 0.9) with linear decay to 0; real images are dequantized, and drawn as they are in the data, whatever
    their classes. The reference's batches are 64 for the
    critic and 128 for the generator: `fit(data, steps=..., batch_size=64, generator_batch_size=128)`.

    Deviation: an averaged generator in addition.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, PLAIN, conditional=False),
        (generator, critic),
        trainer_options,
        **_wgan_gp_terms(),
        sampling="natural",
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
    r"""ACWGAN-GP for imbalanced classes: WGAN-GP with an auxiliary classifier.

    $$ \min_D \; \mathbb{E} D(\tilde x) - \mathbb{E} D(x) + 10\, \mathbb{E}(\lVert\nabla D(\hat x)\rVert - 1)^2
       + \mathrm{CE}(x, y), \qquad \min_G \; -\mathbb{E} D(\tilde x) + \mathrm{CE}(\tilde x, \tilde y) $$

    The class loss of the critic sees real images only. Five critic steps; Adam(2e-4, 0, 0.9) with linear decay to 0;
    conditional batch norm in the generator, none in the critic; all classes are drawn equally often; in the critic's
    steps generated images carry the labels of the real batch; real images are dequantized. The reference's batches are
    64 for the critic and 128 for the generator: `fit(data, steps=..., batch_size=64, generator_batch_size=128)`.

    Deviations from the authors' method, which is `acwgan_gp_2017`: the generator's class loss has weight 1, not 0.1,
    and classes are balanced. With 0.1 and classes as they come, short trainings leak labels: after five minutes
    on one core, on chest X-rays at 32 pixels with one normal image in four, 29 % of the images asked for as normal
    were recognized as such; with weight 1 it was 78 %, with balanced classes too 89 % (one seed each). And, as in
    `acwgan_gp_2017`, the networks are not quite the reference's, and the generator is averaged in addition.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028, section 5.3 and the authors' code.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, AUXILIARY_CLASSIFIER),
        (generator, critic),
        trainer_options,
        **_acwgan_gp_terms(generator_weight=1.0),
    )


def acwgan_gp_2017(
    data: LabelledData,
    *,
    networks: NetworkFamily = "resnet",
    base_channels: int = 64,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""ACWGAN-GP as in its authors' experiment: `acwgan_gp` with class weight 0.1, and classes as they come.

    $$ \min_G \; -\mathbb{E} D(\tilde x) + 0.1\, \mathrm{CE}(\tilde x, \tilde y) $$

    Real images are drawn as they are in the data. What this leads to in short trainings, see `acwgan_gp`.

    Deviations: the labels of the generator's steps have the proportions of the real classes, where the reference draws
    uniform ones, which is the same for the equal classes of CIFAR-10; blocks and widths are those of `ResNetGenerator`
    and `ResNetCritic` (the reference's CIFAR-10 networks have 128 channels throughout and pool by mean); an averaged
    generator in addition.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028, section 5.3 and the authors' code.
    """
    return make_trainer(
        OwnNetworks(data, networks, base_channels, AUXILIARY_CLASSIFIER),
        (generator, critic),
        trainer_options,
        **_acwgan_gp_terms(generator_weight=0.1),
        sampling="natural",
    )


def _wgan_gp_terms() -> dict[str, Any]:
    return {
        "loss": WassersteinLoss(),
        "regularizers": [GradientPenalty(10.0)],
        "critic_steps": 5,
        "generator_optimizer": _ADAM,
        "critic_optimizer": _ADAM,
        "schedule": "linear",
        "dequantize": True,
    }


def _acwgan_gp_terms(*, generator_weight: float) -> dict[str, Any]:
    return {
        **_wgan_gp_terms(),
        "auxiliary": AuxiliaryClassifierLoss(real_weight=1.0, fake_weight=0.0, generator_weight=generator_weight),
        "label_distribution": "paired",
    }
