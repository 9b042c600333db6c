"""Simulated scores of classifiers on a clustered test set, with effects of seeds and patients, and their true means."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from scipy.special import ndtr
from torch import Tensor

from condgan.stats.seeds import Units

NORMAL_SIZES = {1: 220, 2: 1, 3: 4}
PNEUMONIA_SIZES = {1: 126, 2: 29, 3: 19, 4: 11, 5: 10, 6: 4, 7: 2, 8: 1, 9: 1}
"""Number of patients of the official test set by their number of images; a patient is a number and a cause."""

SIZES = torch.tensor([size for sizes in (NORMAL_SIZES, PNEUMONIA_SIZES) for size, n in sizes.items() for _ in range(n)])
PATIENTS, NORMAL_PATIENTS = len(SIZES), sum(NORMAL_SIZES.values())
PATIENT = torch.arange(PATIENTS).repeat_interleave(SIZES)
OF_CLASS = slice(None, NORMAL_PATIENTS), slice(NORMAL_PATIENTS, None)
Y = (PATIENT >= NORMAL_PATIENTS).long()

SHARED_GENERATOR = 0.8
"""Fraction of a generator's variance that two arms with images of the same generators share."""


MEANS = {"generated": (-0.5, 1.9), "other generator": (-0.35, 1.95), "more of it": (-0.45, 1.95), "real": (-0.3, 1.85)}
"""Mean latent score of normal and of pneumonia images in each arm."""


@dataclass(frozen=True)
class Regime:
    """Standard deviations of the effects on the latent score, and the other parameters of a simulation.

    Half of the variance of a seed's effect shifts all images alike, half each class by itself.

    Args:
        generator: Of generator seeds.
        classifier: Of classifier seeds.
        other_generator: Of the seeds of the other generator, if they differ.
        real_classifier: Of classifier seeds on real images, if they differ.
        failing: Probability that a generator fails, which adds `FAILED`.
        means: See `MEANS`.
    """

    generator: float
    classifier: float
    patient: float = 0.67
    image: float = 0.5
    arm_patient: float = 0.22
    generator_patient: float = 0.32
    run_image: float = 0.39
    other_generator: float | None = None
    real_classifier: float | None = None
    failing: float = 0.0
    means: dict[str, tuple[float, float]] = field(default_factory=lambda: MEANS)

    def seeds(self, arm: str) -> tuple[float, float]:
        """Return the standard deviations of the generator's and the classifier's seed in an arm."""
        generator = self.generator
        if arm == "other generator" and self.other_generator is not None:
            generator = self.other_generator
        if arm == "real":
            return 0.0, self.classifier if self.real_classifier is None else self.real_classifier
        return generator, self.classifier


REGIMES = {
    "no seed effect": Regime(0.0, 0.0),
    "patients dominate": Regime(0.05, 0.05),
    "balanced": Regime(0.14, 0.1),
    "generator seeds dominate": Regime(0.3, 0.15),
    "classifier seeds dominate": Regime(0.0, 0.3),
    "runs disagree": Regime(0.05, 0.05, patient=0.3, image=0.3, generator_patient=0.45, run_image=0.75),
    "seeds differ wildly": Regime(0.5, 0.2),
}

STRESSES = {
    "one of two recipes is unstable": Regime(0.5, 0.2, other_generator=0.05),
    "one generator in five fails": Regime(0.15, 0.15, failing=0.2),
    "nearly perfect": Regime(0.3, 0.2, means={arm: (normal - 0.7, ill + 0.95) for arm, (normal, ill) in MEANS.items()}),
    "as in the study": Regime(
        0.6,
        0.7,
        real_classifier=0.25,
        means={"generated": (-0.3, 0.35), "other generator": (0.3, 1.6), "more of it": (-0.2, 0.4), "real": (0.3, 2.5)},
    ),
}
"""Stress tests: generators that differ much or fail, and recalls near 1. The last has the recalls and spreads of the
study in `benchmarks/study` for classifiers of images generated after two minutes."""

FAILED = torch.tensor([0.3, -0.9])
"""What a generator that failed adds to the latent score of images of either class."""


def draw(regime: Regime, repetitions: int, rng: torch.Generator) -> dict[str, Tensor]:
    """Return the latent scores of B repetitions by arm, `(B, G, C, N)`."""

    def normal(sd: float, *shape: int) -> Tensor:
        return sd * torch.randn(repetitions, *shape, generator=rng)

    def seed(sd: float, *shape: int) -> Tensor:
        return (normal(sd, *shape, 1) + normal(sd, *shape, 2))[..., Y] / math.sqrt(2)

    def generator_effect(arm: str, count: int) -> Tensor:
        return seed(regime.seeds(arm)[0], count) + normal(regime.generator_patient, count, PATIENTS)[..., PATIENT]

    def failures(count: int) -> Tensor:
        if not regime.failing:
            return torch.zeros(repetitions, count, 1)
        return (torch.rand(repetitions, count, 1, generator=rng) < regime.failing) * FAILED[Y]

    shared = normal(regime.patient, PATIENTS)[:, PATIENT] + normal(regime.image, len(Y))
    first, own, failed = generator_effect("generated", 5), generator_effect("more of it", 3), failures(5)
    generators = {
        "generated": first + failed,
        "other generator": generator_effect("other generator", 3) + failures(3),
        "more of it": SHARED_GENERATOR**0.5 * first[:, :3] + (1 - SHARED_GENERATOR) ** 0.5 * own + failed[:, :3],
        "real": torch.zeros(repetitions, 1, len(Y)),
    }
    return {
        arm: torch.tensor(regime.means[arm])[Y]
        + (shared + normal(regime.arm_patient, PATIENTS)[:, PATIENT])[:, None, None]
        + effect[:, :, None]
        + seed(regime.seeds(arm)[1], effect.shape[1], 3)
        + normal(regime.run_image, effect.shape[1], 3, len(Y))
        for arm, effect in generators.items()
    }


def truth(regime: Regime, arm: str) -> dict[str, float]:
    """Return the expected scores of an arm over seeds and patients."""
    generated = arm != "real"
    seeds = sum(sd**2 for sd in regime.seeds(arm))
    images = (
        regime.patient**2
        + regime.image**2
        + regime.arm_patient**2
        + generated * regime.generator_patient**2
        + regime.run_image**2
    )

    def expected(normal: float, ill: float) -> list[float]:
        recall = [float(ndtr(mean / math.sqrt(images + seeds))) for mean in (-normal, ill)]
        # shifts of all images alike cancel in a difference of two images of the same run
        return [*recall, float(ndtr((ill - normal) / math.sqrt(2 * images + seeds)))]

    failing = regime.failing * generated
    worlds = [(1 - failing, (0.0, 0.0)), (failing, tuple(FAILED.tolist()))]
    normal, ill = regime.means[arm]
    of_normal, of_ill, area = (
        sum(chance * expected(normal + shift[0], ill + shift[1])[k] for chance, shift in worlds) for k in range(3)
    )
    return {
        "auroc": area,
        "balanced_accuracy": (of_normal + of_ill) / 2,
        "recall/normal": of_normal,
        "recall/pneumonia": of_ill,
    }


class Scores(NamedTuple):
    """A score of all runs, with all patients and without each.

    Shape:
        - `values`: `(B, G, C)`, `without`: `(B, P, G, C)`.
    """

    values: Tensor
    without: Tensor


def scores(latent: Tensor) -> dict[str, Scores]:
    """Return the scores of `(B, G, C, N)` latent scores; recalls are without patients of their own class alone."""
    right = (latent > 0) == (Y == 1)
    normal, ill = (_class_mean(right, label) for label in (0, 1))
    areas = _class_mean(_placements(latent), 0), _class_mean(_placements(latent), 1)
    return {
        "auroc": _sum(*areas),
        "balanced_accuracy": Scores(*(x / 2 for x in _sum(normal, ill))),
        "recall/normal": normal,
        "recall/pneumonia": ill,
    }


def units(found: Scores) -> Units:
    """Return the means over classifiers as the units of an interval; `(B, 1, C)` without generators counts C units."""
    values, without = (x.squeeze(-2) if x.shape[-2] == 1 else x.mean(-1) for x in found)
    deviations = (without - without.mean(-2, keepdim=True)) * math.sqrt(1 - 1 / without.shape[-2])
    return Units(values.numpy(), deviations.numpy())


def _class_mean(values: Tensor, label: int) -> Scores:
    """Return the mean over the images of a class, with all its patients and without each."""
    of_class, sizes = (label == Y), SIZES[OF_CLASS[label]]
    index = PATIENT[of_class] - PATIENT[of_class][0]
    by_patient = torch.zeros(*values.shape[:-1], len(sizes), dtype=torch.float64)
    by_patient.index_add_(-1, index, values[..., of_class].double())
    total = by_patient.sum(-1, keepdim=True)
    without = (total - by_patient) / (sizes.sum() - sizes)
    return Scores(total[..., 0] / sizes.sum(), without.movedim(-1, 1))


def _sum(normal: Scores, ill: Scores) -> Scores:
    """Return the sum of a score of normal and one of pneumonia images, without each patient of either class."""
    without = [normal.without + ill.values[:, None], ill.without + normal.values[:, None]]
    return Scores(normal.values + ill.values, torch.cat(without, 1))


def _placements(latent: Tensor) -> Tensor:
    """Return values whose class means add up to the AUROC, also where images of one class are left out."""
    well, ill = latent[..., Y == 0].contiguous(), latent[..., Y == 1].contiguous()
    above = 1 - torch.searchsorted(ill.sort().values, well).double() / ill.shape[-1]
    below = torch.searchsorted(well.sort().values, ill).double() / well.shape[-1]
    return torch.cat([above, below], -1) - below.mean(-1, keepdim=True) / 2
