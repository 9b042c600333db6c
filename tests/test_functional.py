import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from condgan import functional
from condgan.types import CriticOutput

seeds = st.integers(0, 2**31 - 1)
quick = settings(deadline=None, max_examples=25)


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


class TestClassCrossEntropy:
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [2.0, 2.0, -4.0], [0.3, 0.1, 0.2]], dtype=torch.float64)
    y = torch.tensor([0, 2, 1, 0])
    weights = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)

    def expected(self, weights=(1, 1, 1), prior=(1, 1, 1), strength=1.0) -> float:
        total = 0.0
        for row, label in zip(self.logits.tolist(), self.y.tolist(), strict=True):
            odds = [math.exp(value) * p**strength for value, p in zip(row, prior, strict=True)]
            total -= weights[label] * math.log(odds[label] / sum(odds))
        return total / sum(weights[label] for label in self.y.tolist())

    def test_plain(self):
        loss = functional.class_cross_entropy(self.logits, self.y)
        assert loss.item() == pytest.approx(self.expected(), rel=1e-12)

    def test_class_weights_are_normalized_over_the_batch(self):
        loss = functional.class_cross_entropy(self.logits, self.y, class_weights=self.weights)
        assert loss.item() == pytest.approx(self.expected(weights=self.weights.tolist()), rel=1e-12)

    @pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
    def test_logit_adjustment(self, strength):
        loss = functional.class_cross_entropy(self.logits, self.y, log_prior=self.prior.log(), prior_strength=strength)
        assert loss.item() == pytest.approx(self.expected(prior=self.prior.tolist(), strength=strength), rel=1e-12)

    def test_adjusted_logits_learn_the_balanced_posterior(self):
        # One observation x without information: the plain optimum is the prior, the adjusted one is uniform.
        y = torch.arange(3).repeat_interleave((self.prior * 10).round().long())
        for log_prior, optimum in ((None, self.prior), (self.prior.log(), torch.full((3,), 1 / 3).double())):
            logits = optimum.log().requires_grad_()
            loss = functional.class_cross_entropy(logits.expand(10, 3), y, log_prior=log_prior)
            (gradient,) = torch.autograd.grad(loss, logits)
            torch.testing.assert_close(gradient, torch.zeros(3, dtype=torch.float64))

    def test_gradcheck(self):
        def loss(logits: Tensor) -> Tensor:
            return functional.class_cross_entropy(
                logits, self.y, class_weights=self.weights, log_prior=self.prior.log(), prior_strength=0.7
            )

        torch.autograd.gradcheck(loss, (self.logits.clone().requires_grad_(),))

    def test_bfloat16_logits_reduce_in_float32(self):
        logits = self.logits.bfloat16()
        loss = functional.class_cross_entropy(logits, self.y, class_weights=self.weights, log_prior=self.prior.log())
        assert loss.dtype == torch.float32
        exact = functional.class_cross_entropy(
            logits.double(), self.y, class_weights=self.weights, log_prior=self.prior.log()
        )
        torch.testing.assert_close(loss, exact.float())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"class_logits": torch.zeros(4)}, r"class_logits must have the shape \(N, K\), got \(4,\)"),
            ({"y": torch.zeros(4, 1, dtype=torch.int64)}, r"got torch.int64 of shape \(4, 1\).*squeeze"),
            ({"y": torch.zeros(4)}, "y must be int64.*got torch.float32"),
            ({"y": torch.tensor([1, 2, 3, 1])}, r"values in \[0, 3\).*got values in \[1, 3\]. Labels start at 0"),
            (
                {"class_weights": torch.ones(2)},
                r"class_weights must have one value per class.*\(3,\), got \(2,\)",
            ),
            ({"log_prior": torch.zeros(4)}, r"log_prior must have one value per class, shape \(3,\), got \(4,\)"),
        ],
    )
    def test_errors_say_what_to_do(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            functional.class_cross_entropy(**{"class_logits": self.logits, "y": self.y} | arguments)


class QuadraticCritic(nn.Module):
    """x^T A x + w_y . x, whose input gradient (A + A^T) x + w_y is known."""

    def __init__(self, dim: int = 5, num_classes: int = 3):
        super().__init__()
        self.a = nn.Parameter(torch.randn(dim, dim, dtype=torch.float64))
        self.w = nn.Parameter(torch.randn(num_classes, dim, dtype=torch.float64))

    def forward(self, x, y):
        return CriticOutput(score=torch.einsum("ni,ij,nj->n", x, self.a, x) + (self.w[y] * x).sum(1))

    def input_gradient(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        a, w = self.a.detach().numpy(), self.w.detach().numpy()
        return np.stack([(a + a.T) @ row + w[label] for row, label in zip(x, y, strict=True)])


class ConvCritic(nn.Module):
    """A small convolutional critic with a projection on the label."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1, stride=2)
        self.score = nn.Linear(3, 1)
        self.embed = nn.Embedding(3, 3)
        self.double()

    def forward(self, x, y):
        h = 10 * nn.functional.softplus(self.conv(x)).sum(dim=(2, 3))
        return CriticOutput(score=self.score(h).squeeze(1) + (self.embed(y) * h).sum(1))


def quadratic_case():
    torch.manual_seed(0)
    return QuadraticCritic(), torch.randn(4, 5).double(), torch.randn(4, 5).double(), torch.tensor([0, 1, 2, 1])


def conv_case():
    torch.manual_seed(1)
    x, x_fake = torch.rand(2, 4, 2, 5, 4, dtype=torch.float64)
    return ConvCritic(), x, x_fake, torch.tensor([0, 1, 2, 1])


EPSILON = torch.tensor([0.1, 0.9, 0.4, 0.75], dtype=torch.float64)


class PenaltyTester:
    """What every penalty on the input gradient must do. `values` is the function of the gradient's norm."""

    def penalty(self, critic, x: Tensor, x_fake: Tensor, y: Tensor, *, epsilon: Tensor = EPSILON) -> Tensor:
        raise NotImplementedError

    def place(self, x: np.ndarray, x_fake: np.ndarray, row: int) -> np.ndarray:
        """Return where the gradient of a row is taken."""
        raise NotImplementedError

    def value(self, norm: float) -> float:
        raise NotImplementedError

    def places(self, x: Tensor, x_fake: Tensor) -> np.ndarray:
        return np.stack([self.place(x.numpy(), x_fake.numpy(), row) for row in range(len(x))])

    def test_quadratic_critic_in_closed_form(self):
        critic, x, x_fake, y = quadratic_case()
        gradient = critic.input_gradient(self.places(x, x_fake), y.numpy())
        expected = np.mean([self.value(math.sqrt((row**2).sum())) for row in gradient])
        penalty = self.penalty(critic, x, x_fake, y)
        assert penalty.shape == ()
        assert penalty.item() == pytest.approx(expected, rel=1e-12)

    def test_parity_with_a_loop_over_samples(self):
        critic, x, x_fake, y = conv_case()
        places = torch.from_numpy(self.places(x, x_fake))
        values = []
        for place, label in zip(places, y, strict=True):
            gradient = jacrev(lambda x, label=label: critic(x[None], label[None]).score[0])(place)
            values.append(self.value(gradient.detach().norm().item()))
        assert self.penalty(critic, x, x_fake, y).item() == pytest.approx(mean(values), rel=1e-12)

    @pytest.mark.parametrize("case", [quadratic_case, conv_case])
    def test_parameter_gradient_equals_finite_differences(self, case):
        critic, x, x_fake, y = case()
        # The biases of a score drop out of its input gradient.
        names = [name for name, _ in critic.named_parameters() if name != "score.bias"]

        def penalty(*parameters: Tensor) -> Tensor:
            state = dict(zip(names, parameters, strict=True))
            return self.penalty(lambda x, y: functional_call(critic, state, (x, y)), x, x_fake, y)

        parameters = tuple(critic.get_parameter(name) for name in names)
        torch.autograd.gradcheck(penalty, parameters)
        assert all(gradient.any() for gradient in torch.autograd.grad(penalty(*parameters), parameters))

    def test_gradient_is_finite_where_the_critic_is_flat(self):
        critic, x, x_fake, y = quadratic_case()
        nn.init.zeros_(critic.a)
        nn.init.zeros_(critic.w)
        penalty = self.penalty(critic, x, x_fake, y)
        assert penalty.item() == self.value(0.0)
        for gradient in torch.autograd.grad(penalty, list(critic.parameters())):
            assert not gradient.any()

    def test_permuting_the_batch_changes_nothing(self):
        critic, x, x_fake, y = conv_case()
        order = torch.tensor([2, 0, 3, 1])
        permuted = self.penalty(critic, x[order], x_fake[order], y[order], epsilon=EPSILON[order])
        torch.testing.assert_close(permuted, self.penalty(critic, x, x_fake, y))

    def test_only_the_critic_is_penalized(self):
        critic, x, x_fake, y = quadratic_case()
        x, x_fake = x.requires_grad_(), x_fake.requires_grad_()
        self.penalty(critic, x, x_fake, y).backward()
        assert x.grad is None
        assert x_fake.grad is None
        assert critic.w.grad is not None

    def test_value_without_grad_mode(self):
        critic, x, x_fake, y = conv_case()
        with torch.no_grad():
            penalty = self.penalty(critic, x, x_fake, y)
        assert not penalty.requires_grad
        torch.testing.assert_close(penalty, self.penalty(critic, x, x_fake, y).detach())

    def test_float32_and_float64_are_kept(self):
        critic, x, x_fake, y = conv_case()
        assert self.penalty(critic, x, x_fake, y).dtype == torch.float64
        exact = self.penalty(critic, x, x_fake, y)
        single = self.penalty(critic.float(), x.float(), x_fake.float(), y)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)

    def test_bfloat16_critic_reduces_in_float32(self):
        critic, x, x_fake, y = conv_case()
        penalty = self.penalty(critic.bfloat16(), x.bfloat16(), x_fake.bfloat16(), y)
        assert penalty.dtype == torch.float32
        assert penalty.bfloat16().float() != penalty

    def test_under_autocast(self):
        critic, x, x_fake, y = conv_case()
        critic = critic.float()
        x, x_fake = x.float(), x_fake.float()
        exact = self.penalty(critic, x, x_fake, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert critic.conv(x).dtype == torch.bfloat16
            penalty = self.penalty(critic, x, x_fake, y)
        gradients = torch.autograd.grad(penalty, critic.conv.weight)[0]
        assert penalty.dtype == torch.float32
        assert gradients.isfinite().all()
        torch.testing.assert_close(penalty, exact, rtol=0.05, atol=0.05)

    def test_layers_kept_in_float32_stay_exact_under_autocast(self):
        critic, x, x_fake, y = quadratic_case()
        critic, x, x_fake = critic.float(), x.float(), x_fake.float()

        def float32_critic(x: Tensor, y: Tensor) -> CriticOutput:
            with torch.autocast("cpu", enabled=False):
                return critic(x, y)

        exact = self.penalty(critic, x, x_fake, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            penalty = self.penalty(float32_critic, x, x_fake, y)
        torch.testing.assert_close(penalty, exact, rtol=1e-6, atol=1e-6)

    def test_samples_without_classes(self):
        _, x, x_fake, _ = quadratic_case()

        def critic(x: Tensor, y: None) -> CriticOutput:
            assert y is None
            return CriticOutput(score=x.square().sum(1))

        places = self.places(x, x_fake)
        expected = mean(self.value(2 * math.sqrt((row**2).sum())) for row in places)
        assert self.penalty(critic, x, x_fake, None).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("detach", [lambda x: x.detach(), torch.zeros_like, lambda x: x.detach().requires_grad_()])
    def test_score_that_ignores_the_samples_is_refused(self, detach):
        _, x, x_fake, y = quadratic_case()
        with pytest.raises(ValueError, match="score must depend on the samples"):
            self.penalty(lambda x, y: CriticOutput(detach(x).sum(1)), x, x_fake, y)

    def test_wrong_critics_are_refused(self):
        critic, x, x_fake, y = quadratic_case()
        with pytest.raises(TypeError, match="must return a CriticOutput, got Tensor"):
            self.penalty(lambda x, y: critic(x, y).score, x, x_fake, y)
        for score in (lambda x: x.sum(1, keepdim=True), torch.mean):
            with pytest.raises(ValueError, match=r"score must have the shape \(4,\), one value per sample"):
                self.penalty(lambda x, y, score=score: CriticOutput(score(x)), x, x_fake, y)


class TestR1(PenaltyTester):
    def penalty(self, critic, x, x_fake, y, *, epsilon=EPSILON):
        return functional.r1(critic, x, y)

    def place(self, x, x_fake, row):
        return x[row]

    def value(self, norm):
        return norm**2 / 2

    def test_integer_images_are_refused(self):
        with pytest.raises(ValueError, match=r"floating point to have a gradient, got torch.uint8"):
            functional.r1(QuadraticCritic(), torch.zeros(4, 5, dtype=torch.uint8), None)


class NormPenaltyTester(PenaltyTester):
    options: ClassVar[dict] = {}

    def value(self, norm):
        excess = norm - self.options.get("target", 1.0)
        return max(0.0, excess) ** 2 if self.options.get("one_sided") else excess**2

    def test_epsilon_has_one_value_a_sample(self):
        critic, x, x_fake, y = quadratic_case()
        for epsilon in (EPSILON[:1], EPSILON[:, None], EPSILON[0]):
            with pytest.raises(ValueError, match=r"epsilon must have the shape \(4,\), one value per sample, got"):
                self.penalty(critic, x, x_fake, y, epsilon=epsilon)

    def test_each_sample_has_its_own_epsilon(self):
        critic, x, x_fake, y = quadratic_case()
        shared = [self.penalty(critic, x, x_fake, y, epsilon=value.expand(4)) for value in EPSILON]
        own = self.penalty(critic, x, x_fake, y)
        assert all(abs(own - value) > 1e-3 for value in shared)


class TestGradientPenalty(NormPenaltyTester):
    def penalty(self, critic, x, x_fake, y, *, epsilon=EPSILON):
        return functional.gradient_penalty(critic, x, x_fake, y, epsilon=epsilon, **self.options)

    def place(self, x, x_fake, row):
        epsilon = EPSILON[row].item()
        return epsilon * x[row] + (1 - epsilon) * x_fake[row]

    def test_negative_target_is_refused(self):
        critic, x, x_fake, y = quadratic_case()
        with pytest.raises(ValueError, match="target must be at least 0"):
            functional.gradient_penalty(critic, x, x_fake, y, epsilon=EPSILON, target=-1)

    def test_samples_of_different_shapes_are_refused(self):
        critic, x, x_fake, y = quadratic_case()
        with pytest.raises(ValueError, match=r"same shape to be interpolated, got \(4, 5\) and \(3, 5\)"):
            self.penalty(critic, x, x_fake[:3], y)


class TestGradientPenaltyTowardsThree(TestGradientPenalty):
    options: ClassVar[dict] = {"target": 3.0}


class TestZeroCentredGradientPenalty(TestGradientPenalty):
    options: ClassVar[dict] = {"target": 0.0}


class TestOneSidedGradientPenalty(TestGradientPenalty):
    options: ClassVar[dict] = {"target": 6.05, "one_sided": True}

    @pytest.mark.parametrize("case", [quadratic_case, conv_case])
    def test_both_sides_of_the_target_are_covered(self, case):
        critic, x, x_fake, y = case()
        place = torch.from_numpy(self.places(x, x_fake)).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(place, y).score.sum(), place)
        above = gradient.flatten(1).norm(dim=1) > self.options["target"]
        assert above.any()
        assert not above.all()


NOISE = torch.randn(4, 40, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


class TestDragan(NormPenaltyTester):
    def noise(self, x: Tensor) -> Tensor:
        return NOISE[: len(x), : x[0].numel()].reshape(x.shape).to(x.dtype)

    def penalty(self, critic, x, x_fake, y, *, epsilon=EPSILON):
        noise = self.noise(x)
        if epsilon.shape == EPSILON.shape and not torch.equal(epsilon, EPSILON):
            noise = noise[[EPSILON.tolist().index(value) for value in epsilon.tolist()]]
        return functional.dragan_penalty(critic, x, y, noise=noise, epsilon=epsilon, **self.options)

    def place(self, x, x_fake, row):
        std = math.sqrt(((x - x.mean()) ** 2).mean())
        noise = self.noise(torch.from_numpy(x)).numpy()[row]
        return x[row] + EPSILON[row].item() * self.options.get("scale", 0.5) * std * noise

    def test_noise_has_the_shape_of_the_samples(self):
        critic, x, _, y = quadratic_case()
        with pytest.raises(ValueError, match=r"noise must have the shape of x, \(4, 5\), got \(4, 1\)"):
            functional.dragan_penalty(critic, x, y, noise=NOISE[:, :1], epsilon=EPSILON)


class TestDraganWithOptions(TestDragan):
    options: ClassVar[dict] = {"scale": 2.0, "target": 0.5}


def linear_critic(w: Tensor) -> Callable[[Tensor, Tensor | None], CriticOutput]:
    return lambda x, y: CriticOutput(score=x.flatten(1) @ w)


@quick
@given(seeds, st.integers(1, 6), st.sampled_from([(7,), (1, 3, 4), (2, 2, 3, 2)]))
def test_linear_critic_with_unit_weights_has_zero_gradient_penalty(seed, count, shape):
    rng = torch.Generator().manual_seed(seed)
    x, x_fake = torch.randn(2, count, *shape, generator=rng, dtype=torch.float64)
    w = torch.randn(math.prod(shape), generator=rng, dtype=torch.float64)
    epsilon = torch.rand(count, generator=rng)
    penalty = functional.gradient_penalty(linear_critic(w / w.norm()), x, x_fake, None, epsilon=epsilon)
    assert penalty.item() == pytest.approx(0, abs=1e-24)


@quick
@given(seeds, st.integers(1, 6))
def test_r1_of_a_linear_critic_is_half_its_squared_weights(seed, count):
    rng = torch.Generator().manual_seed(seed)
    x, w = torch.randn(count, 6, generator=rng).double(), torch.randn(6, generator=rng).double()
    torch.testing.assert_close(functional.r1(linear_critic(w), x, None), w.square().sum() / 2)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 3)])
def test_interpolate_takes_any_sample_shape(shape):
    x, x_fake = torch.randn(2, 4, *shape, dtype=torch.float64)
    x_hat = functional.interpolate(x, x_fake, EPSILON)
    for row, epsilon in enumerate(EPSILON.tolist()):
        torch.testing.assert_close(x_hat[row], epsilon * x[row] + (1 - epsilon) * x_fake[row])


def test_interpolate_ends_and_types():
    x, x_fake = torch.randn(2, 4, 3)
    assert torch.equal(functional.interpolate(x, x_fake, torch.ones(4)), x)
    assert torch.equal(functional.interpolate(x, x_fake, torch.zeros(4)), x_fake)
    assert functional.interpolate(x, x_fake.bfloat16(), EPSILON).dtype == torch.float32
    assert functional.interpolate(x.double(), x_fake, torch.rand(4)).dtype == torch.float64


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_precise_widens_to_float32_at_least(dtype, expected):
    x = torch.tensor([1.5, -2.0], dtype=dtype)
    assert functional.precise(x).dtype == expected
    assert torch.equal(functional.precise(x), x.to(expected))
