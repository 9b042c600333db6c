from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from condgan import functional
from condgan.regularizers import R1, R2, CriticRegularizer, DraganPenalty, GeneratorRegularizer, GradientPenalty
from condgan.schedules import CosineSchedule
from condgan.types import CriticBatch, CriticOutput, StepInputs


class Constant(CriticRegularizer):
    def penalty(self, critic, batch):
        return torch.tensor(3.0)


class ConstantOfGenerator(GeneratorRegularizer):
    def penalty(self, generator, batch):
        return torch.tensor(3.0)


@pytest.mark.parametrize("regularizer", [Constant, ConstantOfGenerator])
class TestRegularizers:
    def test_weight_and_laziness_multiply(self, regularizer):
        assert regularizer(0.5, every=4)(None, None) == 6.0
        assert regularizer(0.0)(None, None) == 0.0
        assert "weight=0.5, every=4" in repr(regularizer(0.5, every=4))

    def test_a_scheduled_weight_follows_the_progress(self, regularizer):
        scheduled = regularizer(CosineSchedule(2.0, 0.5), every=3)
        assert scheduled(None, None) == 2.0 * 3 * 3.0
        for progress, weight in ((0.5, 1.25), (1.0, 0.5), (0.0, 2.0)):
            scheduled.set_progress(progress)
            assert scheduled(None, None) == weight * 3 * 3.0
        assert "weight=CosineSchedule(start=2.0, end=0.5, until=1.0), every=3" in repr(scheduled)
        constant = regularizer(2.0)
        constant.set_progress(0.9)
        assert constant(None, None) == 6.0
        assert not [*constant.buffers()]

    def test_a_schedule_of_whole_numbers_is_not_rounded(self, regularizer):
        scheduled = regularizer(lambda progress: 2 if progress < 0.5 else 0.25)
        scheduled.set_progress(0.5)
        assert scheduled(None, None) == 0.75

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"weight": CosineSchedule(1.0, -0.5)}, "weight must be at least 0, got -0.5"),
            ({"weight": -1.0}, "weight must be at least 0, got -1"),
            ({"weight": float("nan")}, "weight must be at least 0, got nan"),
            ({"weight": 1.0, "every": 0}, "every must be at least 1"),
        ],
    )
    def test_wrong_values_are_refused(self, regularizer, wrong, message):
        with pytest.raises(ValueError, match=message):
            regularizer(**wrong)


@pytest.mark.parametrize("base", [CriticRegularizer, GeneratorRegularizer])
def test_a_regularizer_without_penalty_is_not_silent(base):
    with pytest.raises(NotImplementedError):
        base(1.0)(None, None)


class SmallCritic(nn.Module):
    def __init__(self, normalize: nn.Module | None = None):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.normalize = normalize or nn.Identity()
        self.embed = nn.Embedding(2, 4)
        self.double()

    def forward(self, x, y=None):
        h = nn.functional.softplus(self.normalize(self.conv(x))).sum(dim=(2, 3))
        return CriticOutput(score=(h * self.embed(y)).sum(1) + h.square().sum(1))


class LinearCritic(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x, y=None):
        return CriticOutput(score=x.flatten(1) @ self.w)


def make_batch(critic, *, seed=0, shape=(1, 5, 4), count=4, noise=True) -> CriticBatch:
    rng = torch.Generator().manual_seed(seed)
    x, x_fake, unaugmented, z = torch.randn(4, count, *shape, generator=rng, dtype=torch.float64)
    y, y_fake = torch.randint(2, (2, count), generator=rng)
    inputs = StepInputs(
        x=unaugmented,
        y=y,
        z=z.flatten(1),
        y_fake=y_fake,
        epsilon=torch.rand(count, generator=rng),
        noise=torch.randn(x.shape, generator=rng, dtype=torch.float64) if noise else None,
    )
    real, fake = critic(x, y), critic(x_fake, y_fake)
    return CriticBatch(x=x, y=y, x_fake=x_fake, y_fake=y_fake, real=real, fake=fake, inputs=inputs)


class RegularizerTester:
    """What every penalty on the input gradient must do."""

    regularizer_class: type
    options: ClassVar[dict] = {}

    def make(self, weight=10.0, **options) -> CriticRegularizer:
        return self.regularizer_class(weight=weight, **self.options, **options)

    def expected(self, critic, batch: CriticBatch) -> torch.Tensor:
        raise NotImplementedError

    def test_equals_the_weighted_function(self):
        critic = SmallCritic()
        batch = make_batch(critic)
        penalty = self.expected(critic, batch)
        assert penalty > 0
        torch.testing.assert_close(self.make(weight=2.5)(critic, batch), 2.5 * penalty)
        torch.testing.assert_close(self.make(weight=2.5, every=4)(critic, batch), 10 * penalty)
        torch.testing.assert_close(self.make().penalty(critic, batch), penalty)

    def test_reaches_the_critic_only(self):
        critic = SmallCritic()
        batch = make_batch(critic)
        self.make()(critic, batch).backward()
        assert critic.conv.weight.grad.isfinite().all()
        assert critic.conv.weight.grad.any()
        assert batch.x.grad is None

    def test_is_a_pure_function(self):
        critic = SmallCritic()
        batch = make_batch(critic)
        regularizer = self.make()
        state = torch.get_rng_state()
        assert regularizer(critic, batch) == regularizer(critic, batch)
        assert torch.equal(torch.get_rng_state(), state)
        assert not regularizer.state_dict()
        assert not batch.x.requires_grad

    def test_batch_normalization_is_refused(self):
        critic = SmallCritic(nn.BatchNorm2d(4))
        batch = make_batch(critic)
        with pytest.raises(ValueError, match=r"normalize is a BatchNorm2d in training mode.*batch_norm=False"):
            self.make()(critic, batch)
        assert self.make()(critic.eval(), batch).isfinite()
        critic = SmallCritic(nn.GroupNorm(2, 4))
        assert self.make()(critic, make_batch(critic)).isfinite()

    def test_any_callable_is_a_critic(self):
        critic = SmallCritic()
        batch = make_batch(critic)
        assert self.make()(lambda x, y: critic(x, y), batch) == self.make()(critic, batch)

    def test_representation_names_the_settings(self):
        assert repr(self.make(weight=3.0, every=2)).startswith(f"{self.regularizer_class.__name__}(weight=3.0, every=2")

    def test_bad_settings_are_refused(self):
        with pytest.raises(ValueError, match="weight must be at least 0, got -1"):
            self.make(weight=-1)
        with pytest.raises(ValueError, match="every must be at least 1, got 0"):
            self.make(every=0)


class TestGradientPenalty(RegularizerTester):
    regularizer_class = GradientPenalty

    def expected(self, critic, batch):
        epsilon = batch.inputs.epsilon
        return functional.gradient_penalty(critic, batch.x, batch.x_fake, batch.y, epsilon=epsilon, **self.options)

    def test_declares_its_needs(self):
        assert GradientPenalty.needs_pairs
        assert not GradientPenalty.needs_noise
        assert GradientPenalty().weight == 10.0

    def test_negative_target_is_refused(self):
        with pytest.raises(ValueError, match="target must be at least 0"):
            GradientPenalty(target=-1.0)


class TestOneSidedGradientPenalty(TestGradientPenalty):
    options: ClassVar[dict] = {"target": 2.0, "one_sided": True}

    def test_representation_names_the_settings(self):
        assert repr(self.make()) == "GradientPenalty(weight=10.0, every=1, target=2.0, one_sided=True)"


class TestDragan(RegularizerTester):
    regularizer_class = DraganPenalty
    options: ClassVar[dict] = {"scale": 0.3, "target": 0.5}

    def expected(self, critic, batch):
        noise, epsilon = batch.inputs.noise, batch.inputs.epsilon
        return functional.dragan_penalty(critic, batch.x, batch.y, noise=noise, epsilon=epsilon, **self.options)

    def test_declares_its_needs(self):
        assert DraganPenalty.needs_noise
        assert not DraganPenalty.needs_pairs

    def test_missing_noise(self):
        critic = SmallCritic()
        with pytest.raises(ValueError, match=r"needs batch.inputs.noise of shape \(4, 1, 5, 4\), got None"):
            self.make()(critic, make_batch(critic, noise=False))


class TestR1(RegularizerTester):
    regularizer_class = R1

    def expected(self, critic, batch):
        return functional.r1(critic, batch.x, batch.y)

    def test_declares_its_needs(self):
        assert not self.regularizer_class.needs_pairs
        assert not self.regularizer_class.needs_noise


class TestR2(TestR1):
    regularizer_class = R2

    def expected(self, critic, batch):
        return functional.r1(critic, batch.x_fake, batch.y_fake)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.floats(0, 100))
def test_linear_critic(seed, weight):
    w = torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for critic in (LinearCritic(w), LinearCritic(w / w.norm())):
        batch = make_batch(critic, seed=seed)
        half_square = critic.w.detach().square().sum() / 2
        for regularizer in (R1(weight=weight), R2(weight=weight)):
            torch.testing.assert_close(regularizer(critic, batch).detach(), weight * half_square)
    assert GradientPenalty(weight=weight)(critic, batch).item() == pytest.approx(0, abs=1e-20)
    assert DraganPenalty(weight=weight)(critic, batch).item() == pytest.approx(0, abs=1e-20)
