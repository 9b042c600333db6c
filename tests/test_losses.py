import dataclasses
import math
import pickle
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.losses import (
    AuxiliaryClassifierLoss,
    HingeLoss,
    LeastSquaresLoss,
    MinimaxLoss,
    RelativisticLoss,
    WassersteinLoss,
)
from condgan.types import AdversarialLoss, AuxiliaryLoss, CriticOutput

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


REAL_LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [2.0, 2.0, -4.0]], dtype=torch.float64)
FAKE_LOGITS = torch.tensor([[0.5, 0.5, 0.0], [-1.0, 2.0, 1.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
SCORE = torch.zeros(3, dtype=torch.float64)
REAL, FAKE = CriticOutput(SCORE, class_logits=REAL_LOGITS), CriticOutput(SCORE, class_logits=FAKE_LOGITS)
Y, Y_FAKE = torch.tensor([0, 2, 0]), torch.tensor([1, 1, 2])


def cross_entropy(logits, y, weights=(1, 1, 1), prior=(1, 1, 1)) -> float:
    total = 0.0
    for row, label in zip(logits.tolist(), y.tolist(), strict=True):
        odds = [math.exp(value) * p for value, p in zip(row, prior, strict=True)]
        total -= weights[label] * math.log(odds[label] / sum(odds))
    return total / sum(weights[label] for label in y.tolist())


REAL_TERM, FAKE_TERM = cross_entropy(REAL_LOGITS, Y), cross_entropy(FAKE_LOGITS, Y_FAKE)


class AuxiliaryLossTester:
    """What every auxiliary loss must do; `critic` and `generator` are its sides on the outputs above."""

    options: ClassVar[dict] = {}
    critic: float
    generator: float

    def make(self):
        return AuxiliaryClassifierLoss(**self.options)

    def test_hand_computed_values(self):
        for value, expected in (
            (self.make().critic(REAL, Y, FAKE, Y_FAKE), self.critic),
            (self.make().generator(FAKE, Y_FAKE), self.generator),
        ):
            assert value.shape == ()
            assert value.dtype == torch.float64
            assert value.item() == pytest.approx(expected, rel=1e-12)

    def test_gradcheck(self):
        logits = REAL_LOGITS.clone().requires_grad_(), FAKE_LOGITS.clone().requires_grad_()

        def critic(real, fake):
            return self.make().critic(CriticOutput(SCORE, real), Y, CriticOutput(SCORE, fake), Y_FAKE)

        torch.autograd.gradcheck(critic, logits)
        torch.autograd.gradcheck(lambda fake: self.make().generator(CriticOutput(SCORE, fake), Y_FAKE), logits[1:])

    def test_bfloat16_reduces_in_float32(self):
        real, fake = (CriticOutput(SCORE.bfloat16(), logits.class_logits.bfloat16()) for logits in (REAL, FAKE))
        loss = self.make().critic(real, Y, fake, Y_FAKE)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(self.critic, rel=0.02)
        assert self.make().generator(fake, Y_FAKE).dtype == torch.float32

    def test_permuting_the_batch_changes_nothing(self):
        order = torch.tensor([2, 0, 1])
        real, fake = CriticOutput(SCORE, REAL_LOGITS[order]), CriticOutput(SCORE, FAKE_LOGITS[order])
        permuted = self.make().critic(real, Y[order], fake, Y_FAKE[order])
        torch.testing.assert_close(permuted, self.make().critic(REAL, Y, FAKE, Y_FAKE))

    def test_relabelling_the_classes_changes_nothing(self):
        order = torch.tensor([2, 0, 1])
        place = order.argsort()
        loss = self.make()
        for name in ("class_weights", "class_prior"):
            if getattr(loss, name) is not None:
                loss = dataclasses.replace(loss, **{name: [getattr(loss, name)[k] for k in order]})
        real, fake = (CriticOutput(SCORE, logits[:, order]) for logits in (REAL_LOGITS, FAKE_LOGITS))
        relabelled = loss.critic(real, place[Y], fake, place[Y_FAKE])
        torch.testing.assert_close(relabelled, self.make().critic(REAL, Y, FAKE, Y_FAKE))

    def test_follows_the_protocol(self):
        assert isinstance(self.make(), AuxiliaryLoss)

    def test_is_a_value(self):
        loss = self.make()
        loss.critic(REAL, Y, FAKE, Y_FAKE)
        assert loss == self.make()
        assert hash(loss) == hash(self.make())
        assert pickle.loads(pickle.dumps(loss)) == loss
        assert set(dataclasses.asdict(loss)) == {field.name for field in dataclasses.fields(loss)}
        assert eval(repr(loss)) == loss


class TestDefaults(AuxiliaryLossTester):
    critic = REAL_TERM
    generator = 0.1 * FAKE_TERM


class TestACGAN(AuxiliaryLossTester):
    options: ClassVar[dict] = {"real_weight": 1.0, "fake_weight": 1.0, "generator_weight": 1.0}
    critic = REAL_TERM + FAKE_TERM
    generator = FAKE_TERM


class TestFractions(AuxiliaryLossTester):
    options: ClassVar[dict] = {"real_weight": 0.5, "fake_weight": 0.25, "generator_weight": 2.0}
    critic = 0.5 * REAL_TERM + 0.25 * FAKE_TERM
    generator = 2 * FAKE_TERM


class TestClassWeightsActOnRealImagesOnly(AuxiliaryLossTester):
    options: ClassVar[dict] = {"fake_weight": 0.5, "class_weights": (1.0, 2.0, 4.0)}
    critic = cross_entropy(REAL_LOGITS, Y, weights=(1, 2, 4)) + 0.5 * FAKE_TERM
    generator = 0.1 * FAKE_TERM

    def test_only_ratios_matter(self):
        other = AuxiliaryClassifierLoss(fake_weight=0.5, class_weights=[10, 20, 40])
        assert other.critic(REAL, Y, FAKE, Y_FAKE).item() == pytest.approx(self.critic, rel=1e-12)


class TestClassPriorActsOnRealImagesOnly(AuxiliaryLossTester):
    options: ClassVar[dict] = {"fake_weight": 0.5, "class_prior": (0.7, 0.2, 0.1)}
    critic = cross_entropy(REAL_LOGITS, Y, prior=(0.7, 0.2, 0.1)) + 0.5 * FAKE_TERM
    generator = 0.1 * FAKE_TERM

    def test_counts_will_do(self):
        other = AuxiliaryClassifierLoss(fake_weight=0.5, class_prior=[700, 200, 100])
        assert other.critic(REAL, Y, FAKE, Y_FAKE).item() == pytest.approx(self.critic, rel=1e-12)


class TestPriorStrength(AuxiliaryLossTester):
    options: ClassVar[dict] = {"class_prior": (0.7, 0.2, 0.1), "prior_strength": 2.0, "class_weights": (3.0, 1.0, 1.0)}
    critic = cross_entropy(REAL_LOGITS, Y, weights=(3, 1, 1), prior=(0.49, 0.04, 0.01))
    generator = 0.1 * FAKE_TERM


def test_terms_of_weight_zero_are_not_computed():
    nothing = CriticOutput(SCORE)
    loss = AuxiliaryClassifierLoss(real_weight=0, fake_weight=0, generator_weight=0)
    assert loss.critic(nothing, None, nothing, None) == 0
    assert loss.generator(nothing, None) == 0
    # Without a weight the logits of generated images are not read.
    assert AuxiliaryClassifierLoss().critic(REAL, Y, nothing, None).item() == pytest.approx(REAL_TERM)


def test_missing_class_logits_name_the_mixin():
    loss = AuxiliaryClassifierLoss(fake_weight=1.0)
    plain = CriticOutput(SCORE)
    for call in (
        lambda: loss.critic(plain, Y, FAKE, Y_FAKE),
        lambda: loss.critic(REAL, Y, plain, Y_FAKE),
        lambda: loss.generator(plain, Y_FAKE),
    ):
        with pytest.raises(ValueError, match=r"needs class_logits.*class ACCritic\(AuxiliaryClassifierMixin"):
            call()


def test_missing_labels():
    loss = AuxiliaryClassifierLoss(fake_weight=1.0)
    with pytest.raises(ValueError, match=r"^y must be int64 labels of shape \(N,\), got None"):
        loss.critic(REAL, None, FAKE, Y_FAKE)
    with pytest.raises(ValueError, match=r"^y_fake must be int64"):
        loss.critic(REAL, Y, FAKE, None)
    with pytest.raises(ValueError, match=r"^y_fake must be int64"):
        loss.generator(FAKE, None)


def test_class_count_mismatch():
    with pytest.raises(ValueError, match=r"class_weights must have one value per class, shape \(3,\), got \(2,\)"):
        AuxiliaryClassifierLoss(class_weights=(1, 2)).critic(REAL, Y, FAKE, Y_FAKE)
    with pytest.raises(ValueError, match=r"y must have values in \[0, 3\).*got values in \[0, 3\]"):
        AuxiliaryClassifierLoss().critic(REAL, torch.tensor([0, 1, 3]), FAKE, Y_FAKE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"real_weight": -1}, "real_weight must be at least 0, got -1"),
        ({"fake_weight": float("nan")}, "fake_weight must be at least 0, got nan"),
        ({"generator_weight": -0.1}, "generator_weight must be at least 0"),
        ({"prior_strength": -1}, "prior_strength must be at least 0"),
        (
            {"class_weights": (1.0, 0.0)},
            r"class_weights must hold one positive finite value per class, got \(1.0, 0",
        ),
        ({"class_prior": ()}, "class_prior must hold one positive finite value per class"),
        ({"class_prior": (0.5, math.inf)}, "class_prior must hold one positive finite value per class"),
        ({"class_prior": (0.5, 0.5), "class_weights": (1, 1, 1)}, "one value per class, got 3 and 2"),
        ({"class_prior": (0.5, 0.5), "real_weight": 0}, "class_prior acts on the critic's term on real images"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AuxiliaryClassifierLoss(**options)


def test_class_constants_do_not_keep_what_made_them_first():
    loss = AuxiliaryClassifierLoss(class_weights=(1, 2, 3), class_prior=(1, 2, 3.5))
    with torch.inference_mode():
        expected = loss.critic(REAL, Y, FAKE, Y_FAKE).item()

    def of_logits(logits):
        return loss.critic(CriticOutput(SCORE, logits), Y, FAKE, Y_FAKE)

    logits = REAL_LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(of_logits(logits), logits)
    torch.testing.assert_close(torch.func.grad(of_logits)(REAL_LOGITS), gradient)
    assert of_logits(logits).item() == expected
    assert loss.critic(CriticOutput(SCORE.float(), REAL_LOGITS.float()), Y, FAKE, Y_FAKE).dtype == torch.float32


def test_compiles_to_one_graph():
    loss = AuxiliaryClassifierLoss(fake_weight=1.0, class_weights=(1, 2, 3), class_prior=(1, 2, 3))

    def of_logits(real, fake):
        return loss.critic(CriticOutput(SCORE, real), Y, CriticOutput(SCORE, fake), Y_FAKE)

    compiled = torch.compile(of_logits, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(REAL_LOGITS, FAKE_LOGITS), of_logits(REAL_LOGITS, FAKE_LOGITS))
