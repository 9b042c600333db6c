import dataclasses
import math
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.losses import HingeLoss, LeastSquaresLoss, MinimaxLoss, RelativisticLoss, WassersteinLoss
from condgan.types import AdversarialLoss

REAL_SCORE = torch.tensor([2.0, -0.5, 0.25, 1.5], dtype=torch.float64)
FAKE_SCORE = torch.tensor([-1.5, 0.75, -0.25, 3.0], dtype=torch.float64)


def softplus(value: float) -> float:
    return math.log(1 + math.exp(value))


class AdversarialLossTester:
    """What every adversarial loss must do; `critic` and `generator` are its unweighted sides on the scores above."""

    loss_class: type
    options: ClassVar[dict] = {}
    critic: float
    generator: float

    def make(self, **options):
        return self.loss_class(**self.options, **options)

    def test_hand_computed_values(self):
        loss = self.make()
        assert loss.critic(REAL_SCORE, FAKE_SCORE).item() == pytest.approx(self.critic, rel=1e-12)
        assert loss.generator(REAL_SCORE, FAKE_SCORE).item() == pytest.approx(self.generator, rel=1e-12)

    def test_weight_multiplies_both_sides(self):
        loss = self.make(weight=2.5)
        assert loss.critic(REAL_SCORE, FAKE_SCORE).item() == pytest.approx(2.5 * self.critic, rel=1e-12)
        assert loss.generator(REAL_SCORE, FAKE_SCORE).item() == pytest.approx(2.5 * self.generator, rel=1e-12)
        assert self.make(weight=0).critic(REAL_SCORE, FAKE_SCORE) == 0

    def test_returns_scalars_of_at_least_float32(self):
        for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
            real, fake = REAL_SCORE.to(dtype), FAKE_SCORE.to(dtype)
            for side in (self.make().critic, self.make().generator):
                loss = side(real, fake)
                assert loss.shape == ()
                assert loss.dtype == expected
                torch.testing.assert_close(loss, side(real.double(), fake.double()).to(expected))

    def test_stays_finite_at_extreme_scores(self):
        for side in (self.make().critic, self.make().generator):
            extreme = torch.tensor([-1e4, 1e4]).requires_grad_()
            loss = side(extreme, extreme.flip(0))
            (gradient,) = torch.autograd.grad(loss, extreme)
            assert loss.isfinite()
            assert gradient.isfinite().all()

    def test_ignores_the_order_of_the_batch(self):
        order = torch.tensor([2, 0, 3, 1])
        for side in (self.make().critic, self.make().generator):
            permuted = side(REAL_SCORE[order], FAKE_SCORE[order])
            torch.testing.assert_close(permuted, side(REAL_SCORE, FAKE_SCORE))

    def test_gradcheck(self):
        scores = REAL_SCORE.clone().requires_grad_(), FAKE_SCORE.clone().requires_grad_()
        torch.autograd.gradcheck(self.make(weight=0.7).critic, scores)
        torch.autograd.gradcheck(self.make(weight=0.7).generator, scores)

    def test_each_side_pulls_its_own_way(self):
        real, fake = REAL_SCORE.clone().requires_grad_(), FAKE_SCORE.clone().requires_grad_()
        to_real, to_fake = torch.autograd.grad(self.make().critic(real, fake), (real, fake))
        (to_generator,) = torch.autograd.grad(self.make().generator(real, fake), fake)
        assert to_real.sum() < 0 < to_fake.sum()
        assert to_generator.sum() < 0

    def test_generator_reads_real_scores_only_if_it_says_so(self):
        loss = self.make()
        if loss.needs_real_scores:
            with pytest.raises(ValueError, match=r"real_score must be a tensor.*got None.*score a real batch"):
                loss.generator(None, FAKE_SCORE)
        else:
            assert loss.generator(None, FAKE_SCORE) == loss.generator(REAL_SCORE, FAKE_SCORE)

    def test_column_of_scores_is_refused(self):
        for real, fake in ((REAL_SCORE[:, None], FAKE_SCORE), (REAL_SCORE, FAKE_SCORE[:, None])):
            with pytest.raises(ValueError, match=r"must have the shape \(N,\), got \(4, 1\)"):
                self.make().critic(real, fake)
        with pytest.raises(ValueError, match=r"fake_score must have the shape \(N,\), got \(4, 1\)"):
            self.make().generator(REAL_SCORE, FAKE_SCORE[:, None])

    def test_follows_the_protocol(self):
        assert isinstance(self.make(), AdversarialLoss)

    def test_is_a_value(self):
        loss = self.make(weight=2.0)
        assert loss == self.make(weight=2.0) != self.make()
        assert hash(loss) == hash(self.make(weight=2.0))
        assert "weight=2.0" in repr(loss)
        with pytest.raises(dataclasses.FrozenInstanceError):
            loss.weight = 1.0

    @pytest.mark.parametrize("weight", [-1.0, float("nan")])
    def test_bad_weights_are_refused(self, weight):
        with pytest.raises(ValueError, match=f"weight must be at least 0, got {weight}"):
            self.make(weight=weight)


class TestMinimax(AdversarialLossTester):
    loss_class = MinimaxLoss
    critic = (softplus(-2.0) + softplus(0.5) + softplus(-0.25) + softplus(-1.5)) / 4 + (
        softplus(-1.5) + softplus(0.75) + softplus(-0.25) + softplus(3.0)
    ) / 4
    generator = (softplus(1.5) + softplus(-0.75) + softplus(0.25) + softplus(-3.0)) / 4


class TestSaturatingMinimax(AdversarialLossTester):
    loss_class = MinimaxLoss
    options: ClassVar[dict] = {"saturating": True}
    critic = TestMinimax.critic
    generator = -(softplus(-1.5) + softplus(0.75) + softplus(-0.25) + softplus(3.0)) / 4

    def test_is_the_critics_game_negated(self):
        fake = FAKE_SCORE.clone().requires_grad_()
        (to_generator,) = torch.autograd.grad(self.make().generator(None, fake), fake)
        (to_critic,) = torch.autograd.grad(self.make().critic(REAL_SCORE, fake), fake)
        torch.testing.assert_close(to_generator, -to_critic)


class TestHinge(AdversarialLossTester):
    loss_class = HingeLoss
    critic = (0 + 1.5 + 0.75 + 0) / 4 + (0 + 1.75 + 0.75 + 4) / 4
    generator = -2.0 / 4

    @settings(deadline=None, max_examples=25)
    @given(st.lists(st.floats(1, 1e3), min_size=1, max_size=8))
    def test_critic_ignores_scores_past_the_margin(self, margins):
        score = torch.tensor(margins, dtype=torch.float64, requires_grad=True)
        loss = HingeLoss().critic(score, -score)
        assert loss == 0
        assert not torch.autograd.grad(loss, score)[0][score.detach() > 1].any()


class TestWasserstein(AdversarialLossTester):
    loss_class = WassersteinLoss
    critic = 2.0 / 4 - 3.25 / 4
    generator = -2.0 / 4


class TestLeastSquares(AdversarialLossTester):
    loss_class = LeastSquaresLoss
    critic = (1 + 2.25 + 0.5625 + 0.25) / 8 + (2.25 + 0.5625 + 0.0625 + 9) / 8
    generator = (6.25 + 0.0625 + 1.5625 + 4) / 8

    def test_each_side_pulls_its_own_way(self):
        real, fake = (REAL_SCORE - 2).requires_grad_(), FAKE_SCORE.abs().requires_grad_()
        to_real, to_fake = torch.autograd.grad(self.make().critic(real, fake), (real, fake))
        assert (to_real < 0).all()
        assert (to_fake > 0).all()


class TestRelativistic(AdversarialLossTester):
    loss_class = RelativisticLoss
    critic = (softplus(-3.5) + softplus(1.25) + softplus(-0.5) + softplus(1.5)) / 4
    generator = (softplus(3.5) + softplus(-1.25) + softplus(0.5) + softplus(-1.5)) / 4

    def test_roles_are_exchanged(self):
        assert self.make().generator(REAL_SCORE, FAKE_SCORE) == self.make().critic(FAKE_SCORE, REAL_SCORE)

    def test_pairs_are_needed(self):
        for side in (self.make().critic, self.make().generator):
            with pytest.raises(ValueError, match="pairs scores row by row, got 4 real and 1 fake"):
                side(REAL_SCORE, FAKE_SCORE[:1])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6), st.floats(-30, 30))
def test_a_shift_of_all_scores_changes_no_difference(scores, shift):
    real = torch.tensor(scores, dtype=torch.float64)
    fake = real.flip(0) * 0.5
    for loss in (WassersteinLoss(), RelativisticLoss()):
        torch.testing.assert_close(loss.critic(real + shift, fake + shift), loss.critic(real, fake))
    relativistic = RelativisticLoss()
    torch.testing.assert_close(relativistic.generator(real + shift, fake + shift), relativistic.generator(real, fake))
