"""Sizes of the study: a smoke test, a quick look, the real thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import condgan as cg


@dataclass(frozen=True)
class Preset:
    """How much is computed.

    Attributes:
        image_size: Height and width in pixels.
        base_channels: Width of the networks.
        networks: `"dcgan"` trains both recipes on the small networks, `"recipe"` each on the networks of its paper.
        steps: Generator updates of each recipe; the ACWGAN, with its five critic updates each, still takes about twice
            the ACGAN's time.
        batch_size: Images of a critic step.
        generator_batch_size: Images of a generator step.
        classifier_epochs: Passes of the classifiers over their training set.
        precision: Arithmetic of the passes through the networks.
        phantoms: Images to draw where no real data can be had.
    """

    image_size: int
    base_channels: int
    networks: str
    steps: dict[str, int]
    batch_size: int
    generator_batch_size: int
    classifier_epochs: int
    precision: str
    phantoms: int

    def trainer(self, recipe: str, data: cg.data.ArrayDataset, *, seed: int, **options: Any) -> cg.Trainer:
        """Return the trainer of a recipe at this size; `seed` governs the initial weights and all draws."""
        cg.seed_everything(seed)
        make = cg.recipes.RECIPES[recipe]
        options = {"base_channels": self.base_channels, "precision": self.precision, "seed": seed, **options}
        if self.networks == "dcgan" and recipe == "acwgan_gp":
            shape: dict[str, Any] = {
                "num_classes": data.num_classes,
                "image_shape": data.image_shape,
                "base_channels": self.base_channels,
            }
            options |= {
                "generator": cg.DCGANGenerator(conditioning="batch_norm", **shape),
                "critic": cg.ACDCGANCritic(**shape),
            }
        return make(data, **options)


PRESETS = {
    "smoke": Preset(
        image_size=32,
        base_channels=16,
        networks="dcgan",
        steps={"acgan": 60, "acwgan_gp": 20},
        batch_size=32,
        generator_batch_size=32,
        classifier_epochs=1,
        precision="bf16",
        phantoms=600,
    ),
    "quick": Preset(
        image_size=32,
        base_channels=32,
        networks="dcgan",
        steps={"acgan": 2000, "acwgan_gp": 1000},
        batch_size=32,
        generator_batch_size=32,
        classifier_epochs=2,
        precision="bf16",
        phantoms=3000,
    ),
    "full": Preset(
        image_size=64,
        base_channels=64,
        networks="recipe",
        steps={"acgan": 60_000, "acwgan_gp": 40_000},
        batch_size=64,
        generator_batch_size=128,
        classifier_epochs=12,
        precision="bf16",
        phantoms=6000,
    ),
}
