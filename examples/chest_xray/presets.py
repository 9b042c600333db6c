"""Sizes of the example's study: a smoke test, a quick one, and the full study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from condgan.runs import RecipeConfig
from condgan.study import ARMS, StudyConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How much is computed.

    Attributes:
        image_size: Height and width in pixels.
        networks: Networks of each recipe, see `RecipeConfig`.
        steps: Generator updates of each recipe. The ACWGAN makes five critic updates for each and takes the longest.
        training: Further arguments of `RecipeConfig`.
        study: Further arguments of `StudyConfig`.
        phantoms: Number of images to draw if there are no real data.
    """

    image_size: int
    networks: dict[str, str]
    steps: dict[str, int]
    training: dict[str, Any]
    study: dict[str, Any]
    phantoms: int

    def config(self, recipes: Sequence[str], *, image_size: int | None, steps: int | None, seed: int) -> StudyConfig:
        """Return the configuration of the study; None takes the preset's own size or steps."""
        size = image_size or self.image_size
        return StudyConfig(
            image_shape=(1, size, size),
            recipes={name: self._recipe(name, steps) for name in recipes},
            first_seed=seed,
            **self.study,
        )

    def _recipe(self, name: str, steps: int | None) -> RecipeConfig:
        return RecipeConfig(
            recipe=name,
            networks=self.networks.get(name, "recipe"),
            steps=steps or self.steps.get(name, max(self.steps.values())),
            **self.training,
        )


SMALL_NETWORKS = {"acgan": "dcgan", "acwgan_gp": "dcgan", "small_data": "dcgan"}

PRESETS = {
    "smoke": Preset(
        image_size=32,
        networks=SMALL_NETWORKS,
        steps={"small_data": 40, "acgan": 60, "acwgan_gp": 20},
        training={"base_channels": 16, "batch_size": 32},
        study={
            "arms": ("real", "synthetic_1x"),
            "seeds": 1,
            "classifier_seeds": 1,
            "classifier_steps": 40,
            "classifier_epochs": 1,
            "extractor": None,
        },
        phantoms=600,
    ),
    "quick": Preset(
        image_size=32,
        networks=SMALL_NETWORKS,
        steps={"small_data": 600, "acgan": 800, "acwgan_gp": 300},
        training={"base_channels": 32, "batch_size": 32},
        study={
            "arms": (
                "real",
                "real_augmented",
                "real_weighted",
                "real_oversampled",
                "synthetic_1x",
                "real_plus_synthetic_1to1",
            ),
            "seeds": 1,
            "classifier_seeds": 1,
            "classifier_steps": 60,
            "classifier_epochs": 4,
        },
        phantoms=3000,
    ),
    "full": Preset(
        image_size=64,
        networks={},
        steps={"small_data": 30_000, "acgan": 60_000, "acwgan_gp": 40_000},
        training={"base_channels": 64, "batch_size": 64, "generator_batch_size": 128, "keep": "best_kid"},
        study={
            "arms": tuple(ARMS),
            "seeds": 3,
            "classifier_seeds": 3,
            "classifier_steps": 2000,
            "classifier_epochs": 10,
        },
        phantoms=6000,
    ),
}
