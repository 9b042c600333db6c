"""Small studies: phantoms of 16 pixels, tiny generators."""

from functools import cache

import pytest

from condgan.runs import RecipeConfig
from condgan.study import provenance
from condgan.study.config import StudyConfig


@pytest.fixture(scope="session", autouse=True)
def git_is_asked_once():
    """Every cell of a study asks which commit it comes from; two processes of git take longer than a tiny cell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "_git", cache(provenance._git))
        yield


@pytest.fixture(scope="session")
def small_config():
    def make(**changes):
        defaults = {
            "image_shape": (1, 16, 16),
            "recipes": {"acgan": RecipeConfig(recipe="acgan", steps=4, batch_size=8, base_channels=4)},
            "arms": ("real", "real_oversampled", "synthetic_1x", "real_plus_synthetic_1to1"),
            "seeds": 1,
            "classifier_seeds": 2,
            "classifier_steps": 6,
            "classifier_epochs": 2,
            "classifier_batch_size": 16,
            "learning_rate": 0.01,
            "precision": "fp32",
            "extractor": None,
            "resamples": 20,
        }
        return StudyConfig(**{**defaults, **changes})

    return make
