"""Recipes of the relativistic loss under R1 and R2: R3GAN, and ours for small data."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from condgan.augmentation import DiffAugment
from condgan.losses import RelativisticLoss
from condgan.networks import Critic, FlowGenerator, Generator
from condgan.recipes.networks import PROJECTION, NetworkFamily, OwnNetworks, make_trainer, number_of_pixels
from condgan.regularizers import R1, R2, FlowMatching
from condgan.schedules import CosineSchedule, PiecewiseLinearSchedule
from condgan.training import OptimizerConfig, Trainer
from condgan.training.checks import check_share
from condgan.types import LabelledData

_R3GAN_ADAM = OptimizerConfig(lr=2e-4, betas=(0.0, CosineSchedule(0.9, 0.99)))
_R3GAN_PENALTIES = {32**2: 0.05, 64**2: 2.0, 256**2: 150.0}  # first weight of R1 and R2, by number of pixels


def r3gan(
    data: LabelledData,
    *,
    networks: NetworkFamily = "r3gan",
    base_channels: int = 64,
    penalty_weight: float | None = None,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""R3GAN: a relativistic loss with R1 and R2 on networks without normalization.

    $$ \min_D \; \mathbb{E}\, f\big(D(\tilde x, y) - D(x, y)\big) + \tfrac{\gamma}{2}\, \mathbb{E}
       \big(\lVert\nabla_x D(x, y)\rVert^2 + \lVert\nabla_{\tilde x} D(\tilde x, y)\rVert^2\big), \qquad
       \min_G \; \mathbb{E}\, f\big(D(x, y) - D(\tilde x, y)\big), \qquad f(t) = \log(1 + e^t) $$

    Each generated image is compared with a real one of its class. In the course of training $\gamma$ falls to a tenth,
    the learning rate of Adam from 2e-4 to 5e-5, and its $\beta_2$ rises from 0.9 to 0.99 ($\beta_1$ is 0), each along
    half a cosine.

    Deviations: the schedules run over the whole training, those of the paper over a first part, after which numbers
    stay; real images are drawn class by class in equal numbers; the class is seen by a projection head; the averaged
    generator has a fixed decay of 0.999; no augmentation (the paper augments small data sets: pass
    `augment=DiffAugment(...)`); see `R3GANGenerator` for the networks.

    Args:
        data: The data set to be fitted.
        networks: Family of the networks.
        base_channels: Width of the networks.
        penalty_weight: Coefficient $\gamma$ at the start. By default 0.05 for 32 x 32 pixels, 2 for 64 x 64 and 150
            for 256 x 256, as in the paper; in between interpolated, on straight lines in the logarithms of the number
            of pixels and the weight; constant beyond.
        generator: Used instead of the recipe's own.
        critic: Used instead of the recipe's own.
        trainer_options: Keywords of the `Trainer`, which override the recipe's.

    References:
        Huang et al. 2024, arXiv:2501.05441, equation 2, sections 3 and 4, and its table of hyperparameters.
    """
    pixels = number_of_pixels(data, default=32**2)
    weight = _r3gan_penalty(pixels) if penalty_weight is None else penalty_weight
    gamma = CosineSchedule(weight, weight / 10)
    return make_trainer(
        OwnNetworks(data, networks, base_channels, PROJECTION),
        (generator, critic),
        trainer_options,
        loss=RelativisticLoss(),
        regularizers=[R1(gamma), R2(gamma)],
        generator_optimizer=_R3GAN_ADAM,
        critic_optimizer=_R3GAN_ADAM,
        schedule=CosineSchedule(1.0, 0.25),
        label_distribution="paired",
        sampling="balanced",
    )


def small_data(
    data: LabelledData,
    *,
    networks: NetworkFamily = "dcgan",
    base_channels: int = 32,
    steps_per_image: int = 8,
    training_steps_per_image: int = 4,
    pretraining: float = 0.9,
    penalty_weight: float | None = None,
    generator: Generator | None = None,
    critic: Critic | None = None,
    **trainer_options: Any,
) -> Trainer:
    r"""For a few hundred to a few thousand images of imbalanced classes: a flow of few steps, finished by a critic.

    The generator is a `FlowGenerator`. For nine tenths of the steps flow matching alone trains it, which soon covers
    the data and tells the classes apart, but leaves images of few steps blurred. In the last tenth, which takes two
    fifths of the time on a CPU, it is sharpened against a critic by a relativistic loss with R1 and R2, and flow
    matching keeps it in place:

    $$ \min_D \; \mathbb{E}\, f\big(D(\tilde x, y) - D(x, y)\big) + \tfrac{\gamma}{2}\, \mathbb{E}
       \big(\lVert\nabla_x D(x, y)\rVert^2 + \lVert\nabla_{\tilde x} D(\tilde x, y)\rVert^2\big), \qquad
       \min_G \; \mathbb{E}\, f\big(D(x, y) - D(\tilde x, y)\big) + 10\, L_\mathrm{flow}, \qquad
       f(t) = \log(1 + e^t) $$

    It takes four steps for an image in training and eight afterwards. Each generated image is compared with a real one
    of its class. The critic has a projection head and no norm. Real images are drawn class by class in equal numbers,
    whatever their counts. In front of the critic real and generated images are augmented by
    `DiffAugment("translation,cutout")`, without changes of brightness and contrast, which carry the class of a
    radiograph. The generator's learning rate rises to 2e-3 and falls to 0 in pretraining, then rises to 2e-4, so that
    the critic is ahead, and falls to 0; the critic's falls from 1e-3 to 0. An averaged generator with decay 0.99;
    bfloat16. Batches of 32 suffice: `fit(data, steps=3_300, batch_size=32)`.

    The combination is our own. Samples that are not images are not augmented, and need a `generator` and a `critic`.

    Args:
        data: The data set to be fitted.
        networks: Family of the critic.
        base_channels: Width of both networks.
        steps_per_image: Evaluations of the generator's denoiser for each image.
        training_steps_per_image: The same in training.
        pretraining: Share of the steps, below 1, in which flow matching alone trains the generator.
        penalty_weight: Coefficient $\gamma$ of both penalties. By default 0.2 for 32 x 32 pixels, and in proportion
            to the number of pixels: at twice the height and width there are four times as many pixels, each with a
            quarter of the gradient.
        generator: Used instead of the recipe's own; it must be a denoiser, as `FlowMatching` requires.
        critic: Used instead of the recipe's own.
        trainer_options: Keywords of the `Trainer`, which override the recipe's.

    References:
        Lipman et al. 2023, arXiv:2210.02747 (flow matching); Sauer et al. 2023, arXiv:2311.17042 (few steps, finished
        by a critic); Huang et al. 2024, arXiv:2501.05441 (R3GAN); Jolicoeur-Martineau 2018, arXiv:1807.00734
        (relativistic loss); Mescheder et al. 2018, arXiv:1801.04406 (R1, R2); Miyato and Koyama 2018, arXiv:1802.05637
        (projection); Zhao et al. 2020, arXiv:2006.10738 (DiffAugment).
    """
    check_share(pretraining)
    pixels = number_of_pixels(data, default=32**2)
    weight = 0.2 * pixels / 32**2 if penalty_weight is None else penalty_weight
    warm_up = pretraining + 0.3 * (1 - pretraining)
    first = [(0.0, 0.0), (0.05 * pretraining, 2e-3)] if pretraining else []
    of_generator = PiecewiseLinearSchedule([*first, (pretraining, 0.0), (warm_up, 2e-4), (1.0, 0.0)])
    of_critic = PiecewiseLinearSchedule([(pretraining, 1e-3), (1.0, 0.0)])
    return make_trainer(
        OwnNetworks(
            data,
            networks,
            base_channels,
            PROJECTION,
            generator=partial(FlowGenerator, steps=steps_per_image, training_steps=training_steps_per_image),
        ),
        (generator, critic),
        trainer_options,
        loss=RelativisticLoss(),
        regularizers=[R1(weight), R2(weight), FlowMatching(10.0)],
        augment=DiffAugment("translation,cutout") if len(data.image_shape) == 3 else None,
        pretraining=pretraining,
        generator_optimizer=OptimizerConfig(lr=of_generator, betas=(0.9, 0.99)),
        critic_optimizer=OptimizerConfig(lr=of_critic, betas=(0.0, 0.9)),
        ema_decay=0.99,
        label_distribution="paired",
        sampling="balanced",
        precision="bf16",
    )


def _r3gan_penalty(pixels: int) -> float:
    sizes, weights = np.log(list(_R3GAN_PENALTIES)), np.log(list(_R3GAN_PENALTIES.values()))
    return float(f"{math.exp(np.interp(math.log(pixels), sizes, weights)):.3g}")
