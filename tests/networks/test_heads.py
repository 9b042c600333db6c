from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import condgan as cg
from condgan.networks import (
    AuxiliaryClassifierMixin,
    ConcatenationMixin,
    ContrastiveMixin,
    Critic,
    DiscriminativeClassifierMixin,
    ProjectionMixin,
    TwinAuxiliaryClassifierMixin,
)


class Trunk(Critic):
    def __init__(self, num_classes: int | None = 3, width: int = 6) -> None:
        super().__init__(feature_dim=width, num_classes=num_classes, image_shape=(1, 16, 16))
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(256, width), nn.ReLU())

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


class AC(AuxiliaryClassifierMixin, Trunk):
    pass


class Projection(ProjectionMixin, Trunk):
    pass


class Concatenation(ConcatenationMixin, Trunk):
    pass


class Twin(TwinAuxiliaryClassifierMixin, Trunk):
    pass


class Discriminative(DiscriminativeClassifierMixin, Trunk):
    pass


class Contrastive(ContrastiveMixin, Trunk):
    embed_dim = 4


class ContrastiveProjection(ProjectionMixin, Contrastive):
    pass


class ACProjection(AuxiliaryClassifierMixin, ProjectionMixin, Trunk):
    pass


class ProjectionAC(ProjectionMixin, AuxiliaryClassifierMixin, Trunk):
    pass


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 1, 16, 16), torch.tensor([0, 1, 2, 2, 0])


@pytest.mark.parametrize("critic_class", [ACProjection, ProjectionAC])
def test_two_mixins_stack_in_either_order(critic_class: type[Trunk]) -> None:
    critic = critic_class()
    reference = Trunk()
    reference.load_state_dict(critic.state_dict(), strict=False)
    x, y = batch()
    h = critic.features(x)
    out = critic(x, y)
    projected = torch.stack([critic.class_projection.weight[label] @ row for label, row in zip(y, h, strict=True)])
    torch.testing.assert_close(out.score, reference(x).score + projected)
    torch.testing.assert_close(out.class_logits, h @ critic.class_head.weight.T + critic.class_head.bias)
    assert out.twin_logits is None
    assert out.embedding is None
    assert critic.score_needs_labels


def test_the_order_of_mixins_does_not_matter() -> None:
    first, second = ACProjection(), ProjectionAC()
    second.load_state_dict(first.state_dict())
    x, y = batch()
    for one, other in zip(first(x, y)[:2], second(x, y)[:2], strict=True):
        assert torch.equal(one, other)


def test_class_head_leaves_the_score_alone() -> None:
    critic = AC()
    x, y = batch()
    before = critic(x, y)
    nn.init.normal_(critic.class_head.weight)
    after = critic(x)
    assert torch.equal(before.score, after.score)
    assert not torch.equal(before.class_logits, after.class_logits)
    gradients = torch.autograd.grad(after.score.sum(), list(critic.class_head.parameters()), allow_unused=True)
    assert gradients == (None, None)
    assert not critic.score_needs_labels


def test_concatenation_in_closed_form() -> None:
    critic = Concatenation()
    reference = Trunk()
    reference.load_state_dict(critic.state_dict(), strict=False)
    x, y = batch()
    joined = torch.cat([critic.features(x), critic.class_embedding.weight[y]], dim=1)
    hidden = torch.relu(joined @ critic.joint_head[0].weight.T + critic.joint_head[0].bias)
    added = hidden @ critic.joint_head[2].weight[0] + critic.joint_head[2].bias
    torch.testing.assert_close(critic(x, y).score, reference(x).score + added)


def test_twin_heads_in_closed_form() -> None:
    critic = Twin()
    x, _ = batch()
    h, out = critic.features(x), critic(x)
    torch.testing.assert_close(out.class_logits, h @ critic.class_head.weight.T + critic.class_head.bias)
    torch.testing.assert_close(out.twin_logits, h @ critic.twin_head.weight.T + critic.twin_head.bias)
    assert out.embedding is None
    assert not critic.score_needs_labels


def test_a_discriminative_classifier_has_a_half_for_each_kind_of_image() -> None:
    critic = Discriminative()
    x, _ = batch()
    out = critic(x)
    logits = critic.features(x) @ critic.class_head.weight.T + critic.class_head.bias
    assert logits.shape == (5, 6)
    torch.testing.assert_close(out.class_logits, logits[:, :3])
    torch.testing.assert_close(out.twin_logits, logits[:, 3:])


def test_contrastive_heads_in_closed_form() -> None:
    critic = Contrastive()
    x, _ = batch()
    out = critic(x)
    embedding = critic.features(x) @ critic.embedding_head.weight.T + critic.embedding_head.bias
    embedding = embedding / embedding.square().sum(1, keepdim=True).sqrt()
    proxies = critic.class_proxies.weight / critic.class_proxies.weight.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(out.embedding, embedding)
    torch.testing.assert_close(out.class_logits, embedding @ proxies.T)
    assert out.twin_logits is None
    assert out.embedding.shape == (5, 4)


def test_lengths_of_proxies_mean_nothing() -> None:
    critic = Contrastive()
    x, _ = batch()
    before = critic(x)
    with torch.no_grad():
        critic.class_proxies.weight.mul_(torch.tensor([[0.1], [2.0], [30.0]]))
    torch.testing.assert_close(critic(x).class_logits, before.class_logits)


def test_projection_stacks_on_a_contrastive_head() -> None:
    critic = ContrastiveProjection()
    x, y = batch()
    out = critic(x, y)
    projected = (critic.features(x) * critic.class_projection.weight[y]).sum(1)
    torch.testing.assert_close(out.score, critic.score_head(critic.features(x)).squeeze(1) + projected)
    assert out.class_logits.shape == (5, 3)
    assert out.embedding.shape == (5, 4)


@pytest.mark.parametrize("family", ["DCGAN", "ResNet"])
def test_every_family_has_a_critic_with_each_head(family: str) -> None:
    """And `from_pretrained` knows each by its name in the package."""
    mixins = {
        "AC": [AuxiliaryClassifierMixin],
        "Projection": [ProjectionMixin],
        "Concatenation": [ConcatenationMixin],
        "ACProjection": [AuxiliaryClassifierMixin, ProjectionMixin],
        "TAC": [TwinAuxiliaryClassifierMixin],
        "ADC": [DiscriminativeClassifierMixin],
        "Contrastive": [ContrastiveMixin],
    }
    base = getattr(cg, f"{family}Critic")
    for name, expected in mixins.items():
        critic_class = getattr(cg, f"{name}{family}Critic")
        assert critic_class.__bases__ == (*expected, base)


HEADS = [AC, Projection, Concatenation, ACProjection, Twin, Discriminative, Contrastive]


@pytest.mark.parametrize("critic_class", HEADS)
def test_heads_need_classes(critic_class: type[Trunk]) -> None:
    with pytest.raises(ValueError, match=f"{critic_class.__name__} has a class head and needs num_classes, got None"):
        critic_class(None)


@pytest.mark.parametrize("critic_class", [Projection, Concatenation, ACProjection])
def test_labels_are_needed_and_checked(critic_class: type[Trunk]) -> None:
    critic = critic_class()
    x, y = batch()
    with pytest.raises(ValueError, match=f"score of {critic_class.__name__} depends on the labels"):
        critic(x)
    with pytest.raises(ValueError, match=r"labels must have shape \(5,\).*got \(5, 1\). Flatten them"):
        critic(x, y[:, None])
    with pytest.raises(ValueError, match=r"labels must have shape \(5,\).*got \(1,\)"):
        critic(x, y[:1])
    with pytest.raises(ValueError, match=r"labels must lie in \[0, \d\), the classes, got -1"):
        critic(x, y - 1)
    with pytest.raises(ValueError, match=r"labels must be integers, got torch.float32. Convert them"):
        critic(x, y.float())


def test_spectral_norm_covers_the_heads() -> None:
    critic = cg.ProjectionDCGANCritic(num_classes=3, image_shape=(1, 16, 16), base_channels=4, spectral_norm=True)
    parametrized = {name.split(".parametrizations")[0] for name, _ in critic.named_parameters() if "original" in name}
    assert parametrized == {"score_head", "class_projection", "blocks.0.conv", "blocks.1.conv"}
