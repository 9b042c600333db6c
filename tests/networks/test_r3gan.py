from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgan.networks import (
    ACProjectionR3GANCritic,
    ACR3GANCritic,
    ADCR3GANCritic,
    ConcatenationR3GANCritic,
    ContrastiveR3GANCritic,
    ProjectionR3GANCritic,
    R3GANCritic,
    R3GANGenerator,
    TACR3GANCritic,
)
from condgan.nn import InvertedBottleneckBlock
from condgan.types import ImageShape

from .testers import ContrastiveTester, CriticTester, GeneratorTester, LabelledScoreTester, contrast_at_the_centre


class TestR3GANGenerator(GeneratorTester):
    network = R3GANGenerator

    def test_unknown_conditioning_is_refused(self) -> None:
        """There is no norm that could be conditional, so there is no choice."""
        with pytest.raises(TypeError, match="unexpected keyword argument 'conditioning'"):
            self.make(conditioning="batch_norm")

    def test_no_checkerboard(self) -> None:
        """From a basis that is the same at every place; with one block per size the centre does not see borders."""
        generator = self.make_moved(image_shape=(1, 56, 56), blocks_per_size=1).double()
        with torch.no_grad():
            generator.basis.copy_(generator.basis[:, :1, :1].clone().expand_as(generator.basis))
        assert contrast_at_the_centre(generator, *self.inputs(generator, dtype=torch.float64)) < 1e-10


class TestR3GANCritic(CriticTester):
    network = R3GANCritic
    uses_labels = False


class TestACR3GANCritic(CriticTester):
    network = ACR3GANCritic
    fields = ("score", "class_logits")


class TestProjectionR3GANCritic(LabelledScoreTester):
    network = ProjectionR3GANCritic


class TestConcatenationR3GANCritic(LabelledScoreTester):
    network = ConcatenationR3GANCritic


class TestACProjectionR3GANCritic(LabelledScoreTester):
    network = ACProjectionR3GANCritic
    fields = ("score", "class_logits")


class TestTACR3GANCritic(CriticTester):
    network = TACR3GANCritic
    fields = ("score", "class_logits", "twin_logits")


class TestADCR3GANCritic(CriticTester):
    network = ADCR3GANCritic
    fields = ("score", "class_logits", "twin_logits")


class TestContrastiveR3GANCritic(ContrastiveTester):
    network = ContrastiveR3GANCritic

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {}


def moved(network: nn.Module) -> nn.Module:
    """Return a network in float64 whose parameters left their initial values."""
    with torch.no_grad():
        for parameter in network.double().parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def plain_block(block: InvertedBottleneckBlock, x: Tensor) -> Tensor:
    """The block from its formula, one group of channels at a time."""
    h = F.leaky_relu(F.conv2d(x, block.expand.weight, block.expand.bias), 0.2)
    parts = zip(h.split(16, 1), block.mix.weight.split(16), block.mix.bias.split(16), strict=True)
    h = F.leaky_relu(torch.cat([F.conv2d(part, w, b, padding=1) for part, w, b in parts], 1), 0.2)
    return x + F.conv2d(h, block.reduce.weight)


@pytest.mark.parametrize(("channels", "hidden"), [(8, 16), (16, 32), (20, 48)])
def test_a_block_is_its_formula(channels: int, hidden: int) -> None:
    block = moved(InvertedBottleneckBlock(channels))
    assert block.mix.out_channels == hidden, "twice the channels, rounded up to groups of 16"
    x = torch.randn(2, channels, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(block(x), plain_block(block, x))


def test_the_generator_is_its_formula() -> None:
    torch.manual_seed(0)
    generator = moved(R3GANGenerator(num_classes=3, image_shape=(2, 18, 20), base_channels=4, blocks_per_size=1))
    z, y = torch.randn(2, 128, dtype=torch.float64), torch.tensor([2, 0])
    scale = F.linear(
        torch.cat([z, generator.embedding.embedding.weight[y]], 1), generator.project.weight, generator.project.bias
    )
    h = torch.einsum("chw,nc->nchw", generator.basis, scale)
    for i, size in enumerate([(5, 5), (9, 10), (18, 20)]):
        if i:
            h = F.interpolate(h, size, mode="bilinear", align_corners=False)
            h = F.conv2d(h, generator.transitions[i - 1].weight)
        h = plain_block(generator.stages[i][0], h)
    expected = torch.tanh(torch.einsum("oc,nchw->nohw", generator.to_image.weight[:, :, 0, 0], h))
    torch.testing.assert_close(generator(z, y), expected)


def plain_score(critic: R3GANCritic, x: Tensor) -> Tensor:
    h = x
    for size, (*_, transition, stage) in zip([(16, 24), (8, 12), (4, 6)], critic.blocks, strict=True):
        h = F.interpolate(F.conv2d(h, transition.weight), size, mode="bilinear", align_corners=False)
        h = plain_block(stage[0], h)
    h = F.conv2d(h, critic.basis[:, None], groups=len(critic.basis)).flatten(1)
    return critic.score_head(h).squeeze(1)


def test_score_and_penalty_are_those_of_plain_layers() -> None:
    """Also the second derivatives, which the library's layers leave out where they are zero."""
    torch.manual_seed(0)
    critic = moved(R3GANCritic(num_classes=None, image_shape=(2, 16, 24), base_channels=4, blocks_per_size=1))
    x = torch.randn(3, 2, 16, 24, dtype=torch.float64, requires_grad=True)
    found = []
    for score in (critic(x).score, plain_score(critic, x)):
        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        loss = score.square().sum() + slope.square().sum()
        found.append((score, slope, *torch.autograd.grad(loss, list(critic.parameters()))))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


def test_at_first_every_block_is_the_identity_and_others_have_unit_gain() -> None:
    torch.manual_seed(0)
    generator = R3GANGenerator(num_classes=None, image_shape=(1, 64, 64), base_channels=32)
    blocks = [module for module in generator.modules() if isinstance(module, InvertedBottleneckBlock)]
    assert len(blocks) == 2 * 5
    for block in blocks:
        x = torch.randn(1, block.expand.in_channels, 6, 6)
        assert torch.equal(block(x), x)
        for layer in (block.expand, block.mix):
            expected = math.sqrt(2 / 1.04) * 10**-0.25 / math.sqrt(layer.weight[0].numel())
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert not layer.bias.any()
    for layer in (generator.project, *generator.transitions[1:]):
        assert layer.weight.std().item() == pytest.approx(layer.weight[0].numel() ** -0.5, rel=0.05)


def test_sizes_of_the_same_width_need_no_transition() -> None:
    generator = R3GANGenerator(num_classes=None, image_shape=(1, 128, 128), base_channels=2)
    assert [isinstance(layer, nn.Identity) for layer in generator.transitions] == [True, True, False, False, False]
    assert [stage[0].expand.in_channels for stage in generator.stages] == [16, 16, 16, 8, 4, 2]


@pytest.mark.parametrize("network", [R3GANGenerator, R3GANCritic])
@pytest.mark.parametrize("name", ["blocks_per_size", "base_channels"])
def test_there_is_at_least_one_of_each(network: type, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        network(num_classes=None, image_shape=(1, 16, 16), **{name: 0})
