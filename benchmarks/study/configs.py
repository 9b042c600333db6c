"""The configurations of the study by size. Frozen before this study tested on the official set.

All generators of a size get about the same time: their steps are the time over that of a step, measured before
(`steps_in`). The two recipes and three rungs are those of the protocol: each recipe on the DCGAN networks, on residual
ones, and on residual ones with differentiable augmentation; losses, optimizers and distributions of classes and labels
are those of its paper (`FORMS`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from condgan.runs import RecipeConfig
from condgan.study import StudyConfig

Split = Literal["official", "development"]

RECIPES = ("acgan", "acwgan_gp")
FORMS: dict[str, dict[str, Any]] = {
    "acgan": {"recipe": "acgan", "sampling": "natural", "label_distribution": "balanced"},
    "acwgan_gp": {"recipe": "acwgan_gp_2017"},
}
"""What the two recipes were when they were frozen, in today's names: real images as they come, under uniform labels or
those of the real batch. Only the labels of the ACWGAN's generator steps were others: uniform, and today those of the
real classes."""

POLICY = "brightness,contrast,translation,cutout"

MILLISECONDS = {
    ("acgan", "dcgan"): 33.4,
    ("acwgan_gp", "dcgan"): 127.5,
    ("acgan", "resnet"): 65.3,
    ("acwgan_gp", "resnet"): 289.1,
}
"""Milliseconds of a generator step (with its critic steps) on one core of a Xeon with bf16 matrix units, torch 2.14,
32 pixels, batch 32, 32 base channels for DCGAN and 16 for residual networks: 360 000 to 420 000 weights in each
generator."""


@dataclass(frozen=True)
class Size:
    """One size of the study.

    Args:
        config: The configuration; image size included.
        split: `"official"` tests on the official test set; `"development"` on the validation images, while epochs are
            chosen on a further part of the training patients.
        classes: Numbers of classes to run.
    """

    config: StudyConfig
    split: Split
    classes: tuple[int, ...]


def steps_in(seconds: float, recipe: str, networks: str) -> int:
    """Return the steps that fit into `seconds`, rounded to tens."""
    return round(100 * seconds / MILLISECONDS[recipe, networks]) * 10


def cpu_plan(recipe: str, networks: str, *, seconds: float, steps: int | None = None, **changes: Any) -> RecipeConfig:
    """Return how a generator is trained on one core."""
    return RecipeConfig(
        **{**FORMS[recipe], **changes},
        networks=networks,
        steps=steps or steps_in(seconds, recipe, networks),
        batch_size=32,
        base_channels=32 if networks == "dcgan" else 16,
    )


def ladder(make: Callable[..., RecipeConfig]) -> dict[str, RecipeConfig]:
    """Return the three rungs of both recipes, by name."""
    rungs: dict[str, dict[str, Any]] = {"dcgan": {}, "resnet": {}, "resnet_diffaugment": {"augment": POLICY}}
    return {
        f"{recipe}_{rung}": make(recipe, rung.partition("_")[0], **changes)
        for rung, changes in rungs.items()
        for recipe in RECIPES
    }


CPU = StudyConfig(
    image_shape=(1, 32, 32),
    recipes=ladder(partial(cpu_plan, seconds=120, keep="best_kid", evaluations=5)),
    arms=("real", "real_augmented", "real_weighted", "real_oversampled", "synthetic_1x", "real_plus_synthetic_1to1"),
    seeds=3,
    classifier_seeds=3,
    classifier_steps=100,
    classifier_epochs=4,
    extractor="in_domain",
)

LONGER = replace(
    CPU,
    recipes={
        f"{recipe}_dcgan": cpu_plan(recipe, "dcgan", seconds=300, keep="best_kid", evaluations=5) for recipe in RECIPES
    },
    arms=("real", "real_augmented", "synthetic_1x", "real_plus_synthetic_1to1"),
)
"""The DCGAN rung with two and a half times the time: LOG.md found that the ACWGAN is cut off after two minutes."""

CLASS_WEIGHT_1 = {"real_weight": 1.0, "fake_weight": 0.0, "generator_weight": 1.0}
"""The ACWGAN's class terms with the generator's weight ten times the published one; experiment 6 of LOG.md."""

GPU_STEPS = {"acgan": 60_000, "acwgan_gp": 20_000, "small_data": 30_000}
"""Generator updates on a GPU, nothing of which has been timed yet."""


def gpu_plan(recipe: str, networks: str = "dcgan", *, batch_size: int = 32, **changes: Any) -> RecipeConfig:
    """Return how a generator is trained on a GPU: networks of the CPU's widths, many more steps."""
    return RecipeConfig(
        **{**FORMS.get(recipe, {"recipe": recipe}), **changes},
        networks=networks,
        steps=GPU_STEPS[recipe],
        batch_size=batch_size,
        base_channels=16 if networks == "resnet" else 32,
        keep="best_kid",
        evaluations=5,
    )


GPU_32 = replace(
    CPU,
    recipes={
        "small_data": gpu_plan("small_data", "recipe"),
        "acwgan_gp_dcgan_class_weight_1": gpu_plan("acwgan_gp", auxiliary=CLASS_WEIGHT_1),
        **ladder(gpu_plan),
    },
    classifier_steps=1000,
    classifier_epochs=10,
)
"""The ladder on the networks of the CPU's study. What comes first is finished first."""

GPU_64 = replace(
    GPU_32,
    image_shape=(1, 64, 64),
    recipes={
        "small_data": gpu_plan("small_data", "recipe"),
        "acwgan_gp_dcgan_class_weight_1": gpu_plan("acwgan_gp", batch_size=64, auxiliary=CLASS_WEIGHT_1),
        "acgan_dcgan": gpu_plan("acgan", batch_size=64),
        "acwgan_gp_dcgan": gpu_plan("acwgan_gp", batch_size=64),
    },
    arms=("real", "real_augmented", "synthetic_1x", "real_plus_synthetic_1to1"),
)


def _experiments() -> dict[str, RecipeConfig]:
    """Return what LOG.md tries, one change at a time; equal time for all."""

    def plan(recipe: str, networks: str = "dcgan", **changes: Any) -> RecipeConfig:
        return cpu_plan(recipe, networks, seconds=75, **changes)

    return {
        "acgan": plan("acgan"),
        "acwgan": plan("acwgan_gp"),
        "acgan_best_kid": plan("acgan", keep="best_kid", evaluations=5),
        "acgan_diffaugment": plan("acgan", augment=POLICY),
        "acwgan_diffaugment": plan("acwgan_gp", augment=POLICY),
        "acgan_class_real_only": plan(
            "acgan", auxiliary={"real_weight": 1.0, "fake_weight": 0.0, "generator_weight": 0.1}
        ),
        "acwgan_generator_weight_1": plan("acwgan_gp", auxiliary=CLASS_WEIGHT_1),
        "acwgan_class_on_fakes": plan(
            "acwgan_gp", auxiliary={"real_weight": 1.0, "fake_weight": 1.0, "generator_weight": 0.1}
        ),
        "acwgan_critic_steps_1": plan(
            "acwgan_gp", steps=3 * steps_in(75, "acwgan_gp", "dcgan"), options={"critic_steps": 1}
        ),
        "acwgan_uniform_labels": plan("acwgan_gp", label_distribution="balanced"),
        "acgan_balanced": plan("acgan", sampling="balanced"),
        "acwgan_balanced": plan("acwgan_gp", sampling="balanced"),
        "acwgan_no_average": plan("acwgan_gp", options={"ema_decay": 0.0}),
        "acgan_resnet": plan("acgan", "resnet"),
        "acgan_resnet_diffaugment": plan("acgan", "resnet", augment=POLICY),
    }


DIAGNOSIS = StudyConfig(
    image_shape=(1, 32, 32),
    recipes=_experiments(),
    arms=("real", "synthetic_1x", "synthetic_5x"),
    seeds=2,
    classifier_seeds=1,
    classifier_steps=120,
    classifier_epochs=4,
    extractor=None,
)

LONG = replace(
    DIAGNOSIS,
    recipes={"acwgan_six_times": cpu_plan("acwgan_gp", "dcgan", seconds=450)},
    arms=("real", "synthetic_1x"),
    seeds=1,
)

SMALL = replace(
    DIAGNOSIS,
    image_shape=(1, 16, 16),
    recipes={
        "acwgan_16px": cpu_plan("acwgan_gp", "dcgan", seconds=75),
        "acwgan_16px_twice": cpu_plan("acwgan_gp", "dcgan", seconds=150),
    },
    arms=("real", "synthetic_1x"),
    seeds=1,
)

IMAGES_64 = replace(
    DIAGNOSIS,
    image_shape=(1, 64, 64),
    recipes={"small_data": RecipeConfig(recipe="small_data", steps=8000, batch_size=32, base_channels=48)},
    arms=("real", "synthetic_1x"),
    seeds=1,
    classifier_seeds=2,
    extractor="in_domain",
)
"""The images that the README shows first: one generator, less than an hour of one core, judged on validation
patients."""

SIZES = {
    "cpu": Size(CPU, "official", (2, 3)),
    "longer": Size(LONGER, "official", (2,)),
    "gpu-32": Size(GPU_32, "official", (2,)),
    "gpu-64": Size(GPU_64, "official", (2,)),
    "images-64px": Size(IMAGES_64, "development", (2,)),
    "diagnosis": Size(DIAGNOSIS, "development", (2,)),
    "diagnosis-long": Size(LONG, "development", (2,)),
    "diagnosis-16px": Size(SMALL, "development", (2,)),
}
