from __future__ import annotations

from typing import Any

import pytest
import torch

from condgan.networks import (
    ACProjectionResNetCritic,
    ACResNetCritic,
    ADCResNetCritic,
    ConcatenationResNetCritic,
    ContrastiveResNetCritic,
    ProjectionResNetCritic,
    ResNetCritic,
    ResNetGenerator,
    TACResNetCritic,
)
from condgan.nn import SelfAttention2d, pyramid
from condgan.types import ImageShape

from .testers import CLASSES, ContrastiveTester, CriticTester, GeneratorTester, LabelledScoreTester, conditional_norms


def smallest_enlarged_side(image_shape: ImageShape) -> int:
    return min(pyramid(*image_shape[1:])[1])


class TestResNetGenerator(GeneratorTester):
    network = ResNetGenerator


class TestResNetGeneratorWithConcatenation(GeneratorTester):
    network = ResNetGenerator

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {"conditioning": "concatenation", "embed_dim": 3}


class TestResNetGeneratorWithAttention(GeneratorTester):
    network = ResNetGenerator

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {"attention_at": smallest_enlarged_side(image_shape)}


class TestResNetCritic(CriticTester):
    network = ResNetCritic
    uses_labels = False


class TestACResNetCritic(CriticTester):
    network = ACResNetCritic
    fields = ("score", "class_logits")


class TestConcatenationResNetCritic(LabelledScoreTester):
    network = ConcatenationResNetCritic


class TestACProjectionResNetCritic(LabelledScoreTester):
    network = ACProjectionResNetCritic
    fields = ("score", "class_logits")


class TestTACResNetCritic(CriticTester):
    network = TACResNetCritic
    fields = ("score", "class_logits", "twin_logits")


class TestADCResNetCritic(CriticTester):
    network = ADCResNetCritic
    fields = ("score", "class_logits", "twin_logits")


class TestContrastiveResNetCritic(ContrastiveTester):
    network = ContrastiveResNetCritic


class TestProjectionResNetCriticWithAttention(LabelledScoreTester):
    network = ProjectionResNetCritic

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {"base_channels": 8, "spectral_norm": True, "attention_at": smallest_enlarged_side(image_shape)}


def test_conditional_norms_with_equal_classes_are_an_unconditional_generator() -> None:
    torch.manual_seed(0)
    plain = ResNetGenerator(num_classes=None, image_shape=(1, 28, 28), base_channels=4)
    conditional = ResNetGenerator(num_classes=CLASSES, image_shape=(1, 28, 28), base_channels=4)
    state = plain.state_dict()
    for norm in conditional_norms(plain):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    for name in conditional.state_dict().keys() - state.keys():
        source = state[name.replace(".gain", ".weight").replace(".shift", ".bias")]
        state[name] = source.expand(CLASSES, -1)
    conditional.load_state_dict({name: state[name] for name in conditional.state_dict()})
    z, y = torch.randn(4, 128), torch.tensor([0, 4, 2, 1])
    torch.testing.assert_close(conditional(z, y), plain(z))


def test_each_conditioning_has_one_place_for_the_classes() -> None:
    kwargs: dict[str, Any] = {"num_classes": CLASSES, "image_shape": (1, 28, 28), "base_channels": 4}
    normed = ResNetGenerator(conditioning="batch_norm", **kwargs)
    concatenated = ResNetGenerator(conditioning="concatenation", embed_dim=3, **kwargs)
    assert {norm.num_classes for norm in conditional_norms(normed)} == {CLASSES}
    assert normed.embedding.embedding is None
    assert {norm.num_classes for norm in conditional_norms(concatenated)} == {None}
    assert concatenated.embedding.embedding.weight.shape == (CLASSES, 3)


@pytest.mark.parametrize("network", [ResNetGenerator, ResNetCritic])
def test_attention_follows_the_map_of_that_side(network: type[ResNetGenerator | ResNetCritic]) -> None:
    net = network(num_classes=None, image_shape=(1, 33, 50), base_channels=8, attention_at=9)
    sides = []
    for module in net.modules():
        if isinstance(module, SelfAttention2d):
            module.register_forward_hook(lambda _module, args, _out: sides.append(tuple(args[0].shape[-2:])))
    net(torch.randn(2, 128) if network is ResNetGenerator else torch.randn(2, 1, 33, 50))
    assert sides == [(9, 13)]


@pytest.mark.parametrize(
    ("network", "sides"), [(ResNetGenerator, r"\[14, 28\], got 13"), (ResNetCritic, r"\[7, 14\], got 13")]
)
def test_unknown_attention_side_is_refused(network: type[ResNetGenerator | ResNetCritic], sides: str) -> None:
    with pytest.raises(ValueError, match=sides):
        network(num_classes=None, image_shape=(1, 28, 28), base_channels=8, attention_at=13)


def test_features_are_summed_over_places() -> None:
    """Every channel of the last map is rectified and summed: twice the map, twice the features."""
    critic = ResNetCritic(num_classes=None, image_shape=(1, 32, 32), base_channels=8)
    x = torch.randn(2, 1, 32, 32)
    last = critic.blocks(x)
    assert last.shape == (2, 32, 4, 4)
    torch.testing.assert_close(critic.features(x), last.sum((2, 3)))
    assert last.min() == 0


def test_the_critic_gets_dark_pixels_unrectified() -> None:
    """The first block's main path takes the image as it is; a ReLU would cut all of it below mid-grey."""
    critic = ResNetCritic(num_classes=None, image_shape=(1, 16, 16), base_channels=8)
    torch.nn.init.zeros_(critic.blocks[0].shortcut.weight)
    x = -torch.rand(2, 1, 16, 16)
    assert not torch.allclose(critic(x).score, critic(x / 2).score)
