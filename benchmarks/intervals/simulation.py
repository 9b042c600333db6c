"""A test set, classifiers on it whose seeds and patients vary, and what their scores are worth in truth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from scipy.special import ndtr
from torch import Tensor

NORMAL_SIZES = {1: 220, 2: 1, 3: 4}
PNEUMONIA_SIZES = {1: 126, 2: 29, 3: 19, 4: 11, 5: 10, 6: 4, 7: 2, 8: 1, 9: 1}
"""How many patients of the official test set have how many images, patients told apart by number and cause."""

SIZES = torch.tensor([size for sizes in (NORMAL_SIZES, PNEUMONIA_SIZES) for size, n in sizes.items() for _ in range(n)])
PATIENTS, NORMAL_PATIENTS = len(SIZES), sum(NORMAL_SIZES.values())
PATIENT = torch.arange(PATIENTS).repeat_interleave(SIZES)
OF_CLASS = slice(None, NORMAL_PATIENTS), slice(NORMAL_PATIENTS, None)
Y = (PATIENT >= NORMAL_PATIENTS).long()
ALL_THEN_EACH_LEFT_OUT = torch.cat([torch.ones(1, PATIENTS), 1 - torch.eye(PATIENTS)]).double()

SHARED_GENERATOR = 0.8
"""Share of a generator's variance that two arms with images of the same generators have in common."""


MEANS = {"generated": (-0.5, 1.9), "other generator": (-0.35, 1.95), "more of it": (-0.45, 1.95), "real": (-0.3, 1.85)}
"""Mean latent score of normal and of pneumonia images in each arm."""


@dataclass(frozen=True)
class Regime:
    """Standard deviations of the effects on the latent score, and the rest of a world to draw from.

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
"""Worlds in which few seeds say little, or recalls are all but 1. The last has recalls and spreads as the study of
`benchmarks/study` has them for classifiers of images generated after two minutes."""

FAILED = torch.tensor([0.3, -0.9], dtype=torch.float64)
"""What a generator that failed adds to the latent score of images of either class."""


def draw(regime: Regime, rng: torch.Generator) -> dict[str, Tensor]:
    """Return the latent scores of one repetition by arm, `(G, C, N)`."""

    def normal(sd: float, *shape: int) -> Tensor:
        return sd * torch.randn(*shape, generator=rng, dtype=torch.float64)

    def seed(sd: float, *shape: int) -> Tensor:
        return (normal(sd, *shape, 1) + normal(sd, *shape, 2))[..., Y] / math.sqrt(2)

    def generator_effect(arm: str, count: int) -> Tensor:
        return seed(regime.seeds(arm)[0], count) + normal(regime.generator_patient, count, PATIENTS)[:, PATIENT]

    def failures(count: int) -> Tensor:
        if not regime.failing:
            return torch.zeros(count, 1)
        return (torch.rand(count, 1, generator=rng) < regime.failing) * FAILED[Y]

    shared = normal(regime.patient, PATIENTS)[PATIENT] + normal(regime.image, len(Y))
    first, own, failed = generator_effect("generated", 5), generator_effect("more of it", 3), failures(5)
    generators = {
        "generated": first + failed,
        "other generator": generator_effect("other generator", 3) + failures(3),
        "more of it": SHARED_GENERATOR**0.5 * first[:3] + (1 - SHARED_GENERATOR) ** 0.5 * own + failed[:3],
        "real": torch.zeros(1, len(Y), dtype=torch.float64),
    }
    return {
        arm: torch.tensor(regime.means[arm], dtype=torch.float64)[Y]
        + shared
        + normal(regime.arm_patient, PATIENTS)[PATIENT]
        + effect[:, None]
        + seed(regime.seeds(arm)[1], len(effect), 3)
        + normal(regime.run_image, len(effect), 3, len(Y))
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
        "balanced accuracy": statistics.fmean([of_normal, of_ill]),
        "normal recall": of_normal,
        "pneumonia recall": of_ill,
        "AUROC": area,
    }


def by_patient(values: Tensor) -> Tensor:
    """Return sums of the images' values over each patient, `(..., P)`."""
    return torch.zeros(*values.shape[:-1], PATIENTS, dtype=torch.float64).index_add_(-1, PATIENT, values)


def placements(latent: Tensor) -> Tensor:
    """Return values whose class means add up to the AUROC, also where images of one class are left out."""
    well, ill = latent[..., Y == 0].contiguous(), latent[..., Y == 1].contiguous()
    above = 1 - torch.searchsorted(ill.sort().values, well).double() / ill.shape[-1]
    below = torch.searchsorted(well.sort().values, ill).double() / well.shape[-1]
    return torch.cat([above, below], -1) - below.mean(-1, keepdim=True) / 2


def right(latent: Tensor) -> Tensor:
    """Return 1 for each right decision and 0 for each wrong one."""
    return ((latent > 0) == (Y == 1)).double()


def class_mean(label: int, sums: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the images of a class, `(..., R)`, from sums over patients and R weights of patients."""
    of_class = OF_CLASS[label]
    return sums[..., of_class] @ weights[:, of_class].T / (weights[:, of_class] @ SIZES[of_class].double())


SCORES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "balanced accuracy": (right, lambda x, w: (class_mean(0, x, w) + class_mean(1, x, w)) / 2),
    "normal recall": (right, partial(class_mean, 0)),
    "pneumonia recall": (right, partial(class_mean, 1)),
    "AUROC": (placements, lambda x, w: class_mean(0, x, w) + class_mean(1, x, w)),
}
