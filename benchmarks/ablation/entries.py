"""The entries of the ablation, and its stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from alternatives import ClassGaussian, Diffusion, RealImages
from contestants import Contestant, Gan
from images import SETS

from condgan.recipes import CONDITIONAL
from condgan.runs import RecipeConfig
from judging import CLASSIFIER_STEPS

SLOW_NETWORKS = {"r3gan": 16, "sngan_projection": 16, "reacgan": 16, "tacgan": 16, "adcgan": 16}
"""Width of the recipes on residual networks, which are slower than DCGAN's; the others have 32."""


def gan(recipe: str, *, networks: Any = None, **changes: Any) -> Gan:
    """Return a recipe at the sizes of the ablation: batches of 32, DCGAN's networks unless it is for residual ones."""
    own = "recipe" if recipe in SLOW_NETWORKS else "dcgan"
    config = RecipeConfig(
        recipe=recipe,
        batch_size=32,
        networks=networks or own,
        base_channels=SLOW_NETWORKS.get(recipe, 32) if networks is None else 32 if networks == "dcgan" else 16,
    )
    return Gan(replace(config, **changes))


RECIPES: dict[str, Contestant] = {recipe: gan(recipe) for recipe in CONDITIONAL}

PEERS: dict[str, Contestant] = {
    "flow": Diffusion("flow", 16),
    "flow-4": Diffusion("flow", 4),
    "flow-50": Diffusion("flow", 50),
    "flow-guided": Diffusion("flow", 16, guidance=1.5),
    "ddpm": Diffusion("ddpm", 20),
    "ddpm-50": Diffusion("ddpm", 50),
    "class-gaussian": ClassGaussian(),
    "real-images": RealImages(),
}

INGREDIENTS: dict[str, Contestant] = {
    "small_data-no-critic": gan("small_data", options={"pretraining": 0.999, "steps_per_image": 16}),
    "small_data-no-critic-8": gan("small_data", options={"pretraining": 0.999}),
    "small_data-4-steps": gan("small_data", options={"steps_per_image": 4}),
    "small_data-16-steps": gan("small_data", options={"steps_per_image": 16}),
    "small_data-no-pretraining": gan("small_data", options={"pretraining": 0.0}),
    "small_data-pretraining-0.8": gan("small_data", options={"pretraining": 0.8}),
    "small_data-2-training-steps": gan("small_data", options={"training_steps_per_image": 2}),
    "small_data-natural": gan("small_data", sampling="natural"),
    "small_data-resnet": gan("small_data", networks="resnet"),
    "small_data-penalty-0.05": gan("small_data", options={"penalty_weight": 0.05}),
    "small_data-penalty-1": gan("small_data", options={"penalty_weight": 1.0}),
    "small_data-ema-0.999": gan("small_data", options={"ema_decay": 0.999}),
    "small_data-narrow": gan("small_data", base_channels=16),
    "small_data-critic-2": gan("small_data", options={"critic_steps": 2}),
    "r3gan-dcgan": gan("r3gan", networks="dcgan", augment="translation,cutout"),
    "acwgan_gp-0.1": gan("acwgan_gp", auxiliary={"generator_weight": 0.1}),
    "acwgan_gp-0.5": gan("acwgan_gp", auxiliary={"generator_weight": 0.5}),
    "acwgan_gp-resnet": gan("acwgan_gp", networks="resnet"),
    "acwgan_gp-diffaugment": gan("acwgan_gp", augment="translation,cutout"),
}

ENTRIES: dict[str, Contestant] = {**RECIPES, **PEERS, **INGREDIENTS}
"""All entries by name."""

Trials = list[dict[str, Any]]


def _trials(
    entries: list[str],
    *,
    sets: tuple[str, ...] = ("full",),
    side: int = 32,
    minutes: float = 5,
    seeds: int = 1,
    classifier_steps: int = CLASSIFIER_STEPS,
) -> Trials:
    of_all = {"side": side, "minutes": minutes, "classifier_steps": classifier_steps}
    return [
        {"entry": entry, "set": name, "seed": seed, **of_all}
        for name in sets
        for seed in range(seeds)
        for entry in entries
    ]


FIRST = ["small_data", "small_data-no-critic", "flow", "acwgan_gp", "class-gaussian", "acgan", "real-images"]
FINALISTS = ["real-images", "small_data", "small_data-no-critic"]

STAGES: dict[str, Callable[[], Trials]] = {
    "first": lambda: _trials(FIRST),
    "recipes": lambda: _trials([*RECIPES, *PEERS]),
    "ingredients": lambda: _trials(list(INGREDIENTS)),
    "sets": lambda: _trials(FIRST, sets=SETS, seeds=3),
    "short": lambda: _trials(FINALISTS, minutes=2, seeds=3),
    "long": lambda: _trials(FINALISTS, minutes=20, seeds=3, classifier_steps=1_000),
    "64px": lambda: _trials(FINALISTS, side=64, minutes=60, classifier_steps=1_000),
}
"""Trials of each stage."""
