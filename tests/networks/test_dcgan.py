from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgan.networks import (
    ACDCGANCritic,
    ACProjectionDCGANCritic,
    ADCDCGANCritic,
    ConcatenationDCGANCritic,
    ContrastiveDCGANCritic,
    DCGANCritic,
    DCGANGenerator,
    Generator,
    ProjectionDCGANCritic,
    TACDCGANCritic,
)
from condgan.types import ImageShape

from .testers import (
    ContrastiveTester,
    CriticTester,
    GeneratorTester,
    LabelledScoreTester,
    checkerboard,
    conditional_norms,
)


class TestDCGANGenerator(GeneratorTester):
    network = DCGANGenerator


class TestDCGANGeneratorWithBatchNorm(GeneratorTester):
    network = DCGANGenerator

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {"conditioning": "batch_norm"}


class TestDCGANCritic(CriticTester):
    network = DCGANCritic
    uses_labels = False


class TestDCGANCriticWithBatchNorm(CriticTester):
    network = DCGANCritic
    uses_labels = False
    batch_statistics = True

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {"batch_norm": True}


class TestACDCGANCritic(CriticTester):
    network = ACDCGANCritic
    fields = ("score", "class_logits")

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {"spectral_norm": True}


class TestProjectionDCGANCritic(LabelledScoreTester):
    network = ProjectionDCGANCritic

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {"spectral_norm": True}


class TestConcatenationDCGANCritic(LabelledScoreTester):
    network = ConcatenationDCGANCritic


class TestACProjectionDCGANCritic(LabelledScoreTester):
    network = ACProjectionDCGANCritic
    fields = ("score", "class_logits")


class TestTACDCGANCritic(CriticTester):
    network = TACDCGANCritic
    fields = ("score", "class_logits", "twin_logits")


class TestADCDCGANCritic(CriticTester):
    network = ADCDCGANCritic
    fields = ("score", "class_logits", "twin_logits")


class TestContrastiveDCGANCritic(ContrastiveTester):
    network = ContrastiveDCGANCritic


def test_dropout_acts_in_training_only() -> None:
    critic = DCGANCritic(num_classes=None, image_shape=(1, 28, 28), base_channels=8, dropout=0.5)
    x = torch.randn(4, 1, 28, 28)
    assert not torch.equal(critic(x).score, critic(x).score)
    critic.eval()
    assert torch.equal(critic(x).score, critic(x).score)


def test_widths_double_eightfold_at_most() -> None:
    generator = DCGANGenerator(num_classes=None, image_shape=(1, 128, 128), base_channels=4)
    critic = DCGANCritic(num_classes=None, image_shape=(1, 128, 128), base_channels=4)
    assert [norm.num_features for norm in conditional_norms(generator)] == [32, 32, 16, 8, 4]
    assert [block.conv.out_channels for block in critic.blocks] == [4, 8, 16, 32, 32]
    assert critic.feature_dim == 32 * 4 * 4


def test_transposed_convolutions_would_fail_the_checkerboard_test() -> None:
    class Transposed(Generator):
        base_size = (7, 7)

        def __init__(self) -> None:
            super().__init__(latent_dim=128, num_classes=None, image_shape=(1, 56, 56))
            self.project = nn.Linear(128, 8 * 49)
            self.up = nn.ModuleList(
                nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1) for c_in, c_out in [(8, 8), (8, 8), (8, 1)]
            )

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            h = self.project(z).view(-1, 8, 7, 7)
            for up in self.up:
                h = up(F.relu(h))
            return torch.tanh(h)

    torch.manual_seed(0)
    assert checkerboard(Transposed().double(), 4 * torch.randn(6, 128, dtype=torch.float64), None) > 1e-2
