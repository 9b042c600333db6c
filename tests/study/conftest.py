"""Small studies: phantoms of 16 pixels, tiny generators, a classifier that stands in for the ResNet-18."""

import pytest
import torch
from torch import nn

from condgan.data import ChestPhantom
from condgan.runs import RecipeConfig
from condgan.study.config import StudyConfig


class TinyClassifier(nn.Module):
    """Stands in for the ResNet-18, whose optimizer alone takes a tenth of a second a step."""

    stem = "none"

    def __init__(self, in_channels, num_classes):
        super().__init__()
        layers = nn.Conv2d(in_channels, 8, 3, stride=2), nn.BatchNorm2d(8, momentum=0.5), nn.ReLU(), nn.Flatten()
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Linear(8 * 7 * 7, num_classes)

    def forward(self, x):
        return self.head(self.backbone(x))


@pytest.fixture
def tiny_classifier(monkeypatch):
    def build(image_shape, num_classes, *, seed):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return TinyClassifier(image_shape[0], num_classes)

    monkeypatch.setattr("condgan.classifier.training.build_network", build)
    monkeypatch.setattr("condgan.metrics.evaluation.build_network", build)


@pytest.fixture(scope="session")
def phantoms():
    """Training, validation and test images of 16 pixels, no patient in two of them."""
    draw = {"classes": 2, "image_shape": (1, 16, 16), "difficulty": 0.0}
    return tuple(ChestPhantom(counts, seed=seed, **draw) for seed, counts in enumerate([(24, 40), (12, 12), (20, 30)]))


@pytest.fixture
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
