"""A test set, classifiers on it whose seeds and patients vary, and what their scores are worth in truth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Regime:
    """Standard deviations of the effects on the latent score.

    Half of the variance of a seed's effect shifts all images alike, half each class by itself.
    """

    generator: float
    classifier: float
    patient: float = 0.67
    image: float = 0.5
    arm_patient: float = 0.22
    generator_patient: float = 0.32
    run_image: float = 0.39


REGIMES = {
    "no seed effect": Regime(0.0, 0.0),
    "patients dominate": Regime(0.05, 0.05),
    "balanced": Regime(0.14, 0.1),
    "generator seeds dominate": Regime(0.3, 0.15),
    "classifier seeds dominate": Regime(0.0, 0.3),
    "runs disagree": Regime(0.05, 0.05, patient=0.3, image=0.3, generator_patient=0.45, run_image=0.75),
    "seeds differ wildly": Regime(0.5, 0.2),
}

MEANS = {"generated": (-0.5, 1.9), "other generator": (-0.35, 1.95), "more of it": (-0.45, 1.95), "real": (-0.3, 1.85)}
"""Mean latent score of normal and of pneumonia images in each arm."""


def draw(regime: Regime, rng: torch.Generator) -> dict[str, Tensor]:
    """Return the latent scores of one repetition by arm, `(G, C, N)`."""

    def normal(sd: float, *shape: int) -> Tensor:
        return sd * torch.randn(*shape, generator=rng, dtype=torch.float64)

    def seed(sd: float, *shape: int) -> Tensor:
        return (normal(sd, *shape, 1) + normal(sd, *shape, 2))[..., Y] / math.sqrt(2)

    def generator_effect(count: int) -> Tensor:
        return seed(regime.generator, count) + normal(regime.generator_patient, count, PATIENTS)[:, PATIENT]

    shared = normal(regime.patient, PATIENTS)[PATIENT] + normal(regime.image, len(Y))
    first, own = generator_effect(5), generator_effect(3)
    generators = {
        "generated": first,
        "other generator": generator_effect(3),
        "more of it": SHARED_GENERATOR**0.5 * first[:3] + (1 - SHARED_GENERATOR) ** 0.5 * own,
        "real": torch.zeros(1, len(Y), dtype=torch.float64),
    }
    return {
        arm: torch.tensor(MEANS[arm], dtype=torch.float64)[Y]
        + shared
        + normal(regime.arm_patient, PATIENTS)[PATIENT]
        + effect[:, None]
        + seed(regime.classifier, len(effect), 3)
        + normal(regime.run_image, len(effect), 3, len(Y))
        for arm, effect in generators.items()
    }


def truth(regime: Regime, arm: str) -> dict[str, float]:
    """Return the expected scores of an arm over seeds and patients."""
    generated = float(arm != "real")
    seeds = generated * regime.generator**2 + regime.classifier**2
    images = (
        regime.patient**2
        + regime.image**2
        + regime.arm_patient**2
        + generated * regime.generator_patient**2
        + regime.run_image**2
    )
    normal, ill = MEANS[arm]
    recall = [float(ndtr(mean / math.sqrt(images + seeds))) for mean in (-normal, ill)]
    # shifts of all images alike cancel in a difference of two images of the same run
    area = float(ndtr((ill - normal) / math.sqrt(2 * images + seeds)))
    return {
        "balanced accuracy": statistics.fmean(recall),
        "normal recall": recall[0],
        "pneumonia recall": recall[1],
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
