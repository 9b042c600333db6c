import importlib
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import condgan as cg
from condgan.data import ChestPhantom

torch.set_num_threads(1)  # the tests are small: more threads only wait for each other


def pytest_collection_modifyitems(items):
    missing = {}
    if not torch.cuda.is_available():
        missing["cuda"] = "needs a CUDA device"
    if not os.environ.get("CONDGAN_CHEST_XRAY"):
        missing["real_data"] = "needs the chest X-ray folder named by $CONDGAN_CHEST_XRAY"
    for item in items:
        for mark, reason in missing.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


class PointGenerator(cg.Generator):
    def __init__(self, *, num_classes: int | None, latent_dim: int = 8, width: int = 64):
        super().__init__(latent_dim=latent_dim, num_classes=num_classes, image_shape=(2,))
        self.body = nn.Sequential(
            nn.Linear(latent_dim + (num_classes or 0), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 2),
        )

    def forward(self, z, y=None):
        if y is not None:
            z = torch.cat([z, nn.functional.one_hot(y, self.num_classes).to(z.dtype)], dim=1)
        return self.body(z)


class PointFlow(cg.Generator):
    """A denoiser of points, evaluated four times."""

    def __init__(self, *, num_classes: int | None, width: int = 64):
        super().__init__(latent_dim=2, num_classes=num_classes, image_shape=(2,))
        self.body = PointGenerator(num_classes=num_classes, latent_dim=3, width=width)

    def denoise(self, x_t, t, y=None):
        return self.body(torch.cat([x_t, t[:, None]], dim=1), y)

    def forward(self, z, y=None):
        for i in range(4):
            z = z + (self.denoise(z, z.new_full((len(z),), i / 4), y) - z) / (4 - i)
        return z


class PointCritic(cg.Critic):
    def __init__(self, *, num_classes: int | None, width: int = 64):
        super().__init__(feature_dim=width, num_classes=num_classes, image_shape=(2,))
        self.body = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def features(self, x):
        return self.body(x)


class ACPointCritic(cg.AuxiliaryClassifierMixin, PointCritic):
    pass


class LabelledPointCritic(cg.ConcatenationMixin, PointCritic):
    pass


class TACPointCritic(cg.TwinAuxiliaryClassifierMixin, PointCritic):
    pass


class ADCPointCritic(cg.DiscriminativeClassifierMixin, PointCritic):
    pass


class ContrastivePointCritic(cg.ContrastiveMixin, PointCritic):
    embed_dim = 16


@pytest.fixture
def point_networks() -> Callable[..., tuple[cg.Generator, cg.Critic]]:
    """Small perceptrons on points of the plane: a generator, on request a denoiser, and a critic with a head."""
    heads = {
        "plain": PointCritic,
        "class": ACPointCritic,
        "label": LabelledPointCritic,
        "twin": TACPointCritic,
        "real or fake": ADCPointCritic,
        "embedding": ContrastivePointCritic,
    }

    def make(
        num_classes: int | None, *, head: str = "plain", width: int = 64, seed: int = 0, denoises: bool = False
    ) -> tuple[cg.Generator, cg.Critic]:
        kind = PointFlow if denoises else PointGenerator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generator = kind(num_classes=num_classes, width=width)
            return generator, heads[head](num_classes=num_classes, width=width)

    return make


@pytest.fixture
def tiny_images() -> cg.data.ArrayDataset:
    """Twenty-four noisy images of 16x16 in three classes of 12, 8 and 4, the brighter the higher the label."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(torch.tensor([12, 8, 4]))
    noise = torch.randint(0, 100, (24, 1, 16, 16), generator=rng)
    return cg.data.ArrayDataset((noise + 70 * labels[:, None, None, None]).to(torch.uint8), labels)


@pytest.fixture
def make_trainer() -> Callable[..., cg.Trainer]:
    """A trainer of tiny networks for `tiny_images`, with batch norm in both and dropout in the critic."""

    def make(*, network_seed: int = 0, **options) -> cg.Trainer:
        shape = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 4}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(network_seed)
            generator = cg.DCGANGenerator(latent_dim=8, embed_dim=4, **shape)
            critic = cg.ACDCGANCritic(batch_norm=True, dropout=0.3, **shape)
        defaults = {"loss": cg.MinimaxLoss(), "auxiliary": cg.AuxiliaryClassifierLoss(), "device": "cpu"}
        return cg.Trainer(generator, critic, **{**defaults, **options})

    return make


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """Import modules of a folder that is no package, the `SCRIPTS` of the test module, and forget them afterwards."""
    folder: Path = request.module.SCRIPTS

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    monkeypatch.syspath_prepend(str(folder))
    yield load
    for path in folder.glob("[!_]*.py"):
        sys.modules.pop(path.stem, None)


class TinyClassifier(nn.Module):
    """Stands in for the ResNet-18, whose optimizer alone takes a tenth of a second per step."""

    stem = "none"

    def __init__(self, in_channels, num_classes):
        super().__init__()
        layers = nn.Conv2d(in_channels, 8, 3, stride=2), nn.BatchNorm2d(8, momentum=0.5), nn.ReLU()
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten())
        self.head = nn.Linear(8 * 7 * 7, num_classes)

    def forward(self, x):
        return self.head(self.backbone(x))


@pytest.fixture(scope="session")
def classify_tinily():
    """Return a context in which classifiers are tiny, for fixtures that outlive a test."""

    def build(image_shape, num_classes, *, seed):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return TinyClassifier(image_shape[0], num_classes)

    @contextmanager
    def tiny():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("condgan.classifier.training.build_network", build)
            yield

    return tiny


@pytest.fixture
def tiny_classifier(classify_tinily):
    with classify_tinily():
        yield


@pytest.fixture(scope="session")
def phantoms():
    """Training, validation and test images of 16 pixels, no patient in two of them."""
    draw = {"classes": 2, "image_shape": (1, 16, 16), "difficulty": 0.0}
    return tuple(ChestPhantom(counts, seed=seed, **draw) for seed, counts in enumerate([(24, 40), (12, 12), (20, 30)]))
