import dataclasses
import math
import pickle
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import normalize

from condgan.auxiliary import (
    AuxiliaryClassifierLoss,
    DataToDataCrossEntropyLoss,
    DiscriminativeClassifierLoss,
    MultiClassHingeLoss,
    TwinAuxiliaryClassifierLoss,
)
from condgan.types import AuxiliaryLoss, CriticOutput

REAL_LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [2.0, 2.0, -4.0]], dtype=torch.float64)
FAKE_LOGITS = torch.tensor([[0.5, 0.5, 0.0], [-1.0, 2.0, 1.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
REAL_TWINS, FAKE_TWINS = FAKE_LOGITS.roll(1, 0) / 2 - 0.25, REAL_LOGITS.roll(1, 1) / 2 + 0.25
SCORE = torch.zeros(3, dtype=torch.float64)
OFF_TIES = torch.tensor([0.125, -0.25, 0.0], dtype=torch.float64)
REAL, FAKE = CriticOutput(SCORE, REAL_LOGITS, REAL_TWINS), CriticOutput(SCORE, FAKE_LOGITS, FAKE_TWINS)
Y, Y_FAKE = torch.tensor([0, 2, 0]), torch.tensor([1, 1, 2])


def log_sum_exp(row) -> float:
    return math.log(sum(math.exp(value) for value in row))


def cross_entropy(logits, y, weights=(1, 1, 1), prior=(1, 1, 1)) -> float:
    total = 0.0
    for row, label in zip(logits.tolist(), y.tolist(), strict=True):
        odds = [math.exp(value) * p for value, p in zip(row, prior, strict=True)]
        total -= weights[label] * math.log(odds[label] / sum(odds))
    return total / sum(weights[label] for label in y.tolist())


REAL_TERM, FAKE_TERM = cross_entropy(REAL_LOGITS, Y), cross_entropy(FAKE_LOGITS, Y_FAKE)


class AuxiliaryLossTester:
    """What every auxiliary loss must do; `critic` and `generator` are its sides on the outputs above."""

    loss_class: type = AuxiliaryClassifierLoss
    options: ClassVar[dict] = {}
    reads: ClassVar[tuple] = ("class_logits",)
    real: ClassVar[CriticOutput] = REAL
    fake: ClassVar[CriticOutput] = FAKE
    mixin = "AuxiliaryClassifierMixin"
    critic: float
    generator: float

    def make(self):
        return self.loss_class(**self.options)

    def values(self) -> tuple[torch.Tensor, torch.Tensor]:
        loss = self.make()
        return loss.critic(self.real, Y, self.fake, Y_FAKE), loss.generator(self.fake, Y_FAKE)

    def test_hand_computed_values(self):
        for value, expected in zip(self.values(), (self.critic, self.generator), strict=True):
            assert value.shape == ()
            assert value.dtype == torch.float64
            assert value.item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
    def test_derivatives(self, check):
        def moved(output, tensors):
            return output._replace(**dict(zip(self.reads, tensors, strict=True)))

        def critic(*tensors):
            half = len(self.reads)
            return self.make().critic(moved(self.real, tensors[:half]), Y, moved(self.fake, tensors[half:]), Y_FAKE)

        def generator(*tensors):
            return self.make().generator(moved(self.fake, tensors), Y_FAKE)

        real, fake = (
            [getattr(output, name).clone().requires_grad_() for name in self.reads] for output in (self.real, self.fake)
        )
        assert check(critic, (*real, *fake))
        assert check(generator, fake)

    def test_bfloat16_reduces_in_float32(self):
        real, fake = (
            CriticOutput(*(None if field is None else field.bfloat16() for field in output))
            for output in (self.real, self.fake)
        )
        values = self.make().critic(real, Y, fake, Y_FAKE), self.make().generator(fake, Y_FAKE)
        for value, expected in zip(values, (self.critic, self.generator), strict=True):
            assert value.dtype == torch.float32
            assert value.item() == pytest.approx(expected, rel=0.03, abs=0.003)

    def test_missing_outputs_name_the_mixin(self):
        loss, plain = self.make(), CriticOutput(SCORE)
        with pytest.raises(ValueError, match=rf"needs .*{self.reads[0]}.*class MyCritic\({self.mixin}, YourCritic\)"):
            loss.critic(plain, Y, self.fake, Y_FAKE)
        with pytest.raises(ValueError, match=rf"needs .*{self.reads[0]}.*class MyCritic\({self.mixin}, YourCritic\)"):
            loss.generator(plain, Y_FAKE)

    def test_missing_labels_are_named(self):
        with pytest.raises(ValueError, match=r"^y must be int64 labels of shape \(N,\), got None"):
            self.make().critic(self.real, None, self.fake, Y_FAKE)
        with pytest.raises(ValueError, match=r"^y_fake must be int64"):
            self.make().generator(self.fake, None)

    def test_labels_that_are_no_class_are_refused(self):
        with pytest.raises(ValueError, match=r"y must have values in \[0, 3\).*got values in \[0, 3\]"):
            self.make().critic(self.real, torch.tensor([0, 1, 3]), self.fake, Y_FAKE)
        with pytest.raises(ValueError, match=r"y must have values in \[0, 3\).*got values in \[-1, 1\]"):
            self.make().generator(self.fake, torch.tensor([0, 1, -1]))
        with pytest.raises(ValueError, match=r"y must be int64 of shape \(3,\).*got torch.int64 of shape \(3, 1\)"):
            self.make().generator(self.fake, Y_FAKE[:, None])

    def test_follows_the_protocol(self):
        assert isinstance(self.make(), AuxiliaryLoss)

    def test_is_a_value(self):
        loss = self.make()
        loss.critic(self.real, Y, self.fake, Y_FAKE)
        assert loss == self.make()
        assert hash(loss) == hash(self.make())
        assert pickle.loads(pickle.dumps(loss)) == loss
        assert eval(repr(loss)) == loss
        assert set(dataclasses.asdict(loss)) == {field.name for field in dataclasses.fields(loss)}

    def test_compiles_to_one_graph(self):
        def critic(real, fake):
            return self.make().critic(real, Y, fake, Y_FAKE)

        torch.compiler.reset()
        compiled = torch.compile(critic, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(self.real, self.fake), critic(self.real, self.fake))


class SingleWeightTester(AuxiliaryLossTester):
    def test_weight_multiplies_both_sides(self):
        halved = dataclasses.replace(self.make(), weight=self.make().weight / 2)
        assert halved.critic(self.real, Y, self.fake, Y_FAKE).item() == pytest.approx(self.critic / 2, rel=1e-12)
        assert halved.generator(self.fake, Y_FAKE).item() == pytest.approx(self.generator / 2, rel=1e-12)

    @pytest.mark.parametrize("weight", [-1.0, float("nan")])
    def test_bad_weights_are_refused(self, weight):
        with pytest.raises(ValueError, match=f"weight must be at least 0, got {weight}"):
            self.loss_class(weight)


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


def test_class_weights_follow_their_classes():
    order = torch.tensor([2, 0, 1])
    loss = AuxiliaryClassifierLoss(fake_weight=0.5, class_weights=(1.0, 2.0, 4.0), class_prior=(0.7, 0.2, 0.1))
    moved = {name: [getattr(loss, name)[k] for k in order] for name in ("class_weights", "class_prior")}
    relabelled = dataclasses.replace(loss, **moved)
    real, fake, y, y_fake = with_other_labels(order, REAL, FAKE, Y, Y_FAKE)
    torch.testing.assert_close(relabelled.critic(real, y, fake, y_fake), loss.critic(REAL, Y, FAKE, Y_FAKE))


def test_terms_of_weight_zero_are_not_computed():
    nothing = CriticOutput(SCORE)
    loss = AuxiliaryClassifierLoss(real_weight=0, fake_weight=0, generator_weight=0)
    assert loss.critic(nothing, None, nothing, None) == 0
    assert loss.generator(nothing, None) == 0
    # Without a weight the logits of generated images are not read.
    assert AuxiliaryClassifierLoss().critic(REAL, Y, nothing, None).item() == pytest.approx(REAL_TERM)


def test_class_count_mismatch():
    with pytest.raises(ValueError, match=r"class_weights must have one value per class, shape \(3,\), got \(2,\)"):
        AuxiliaryClassifierLoss(class_weights=(1, 2)).critic(REAL, Y, FAKE, Y_FAKE)


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


def hinge(logits, y) -> float:
    rows = zip(logits.tolist(), y.tolist(), strict=True)
    return sum(max(0, 1 - row[k] + max(row[:k] + row[k + 1 :])) for row, k in rows) / len(y)


class TestMultiClassHinge(AuxiliaryLossTester):
    loss_class = MultiClassHingeLoss
    critic = hinge(REAL_LOGITS + OFF_TIES, Y)
    generator = 0.1 * hinge(FAKE_LOGITS + OFF_TIES, Y_FAKE)
    real: ClassVar[CriticOutput] = CriticOutput(SCORE, REAL_LOGITS + OFF_TIES)
    fake: ClassVar[CriticOutput] = CriticOutput(SCORE, FAKE_LOGITS + OFF_TIES)

    def test_a_lead_of_the_margin_is_enough(self):
        logits = torch.tensor([[2.0, 1.0, -5.0], [0.0, 1.0, 2.5]], requires_grad=True)
        loss = MultiClassHingeLoss(2.0, generator_weight=3.0)
        assert loss.critic(CriticOutput(logits[:, 0], logits), torch.tensor([0, 2]), FAKE, Y_FAKE) == 0
        behind = loss.generator(CriticOutput(logits[:, 0], logits), torch.tensor([1, 1]))
        assert behind.item() == pytest.approx(3 * (2.0 + 2.5) / 2)
        (gradient,) = torch.autograd.grad(behind, logits)
        torch.testing.assert_close(gradient, torch.tensor([[1.5, -1.5, 0.0], [0.0, -1.5, 1.5]]))

    @pytest.mark.parametrize("name", ["real_weight", "generator_weight"])
    def test_negative_weights_are_refused(self, name):
        with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
            MultiClassHingeLoss(**{name: -1.0})


class TestTwinAuxiliaryClassifier(SingleWeightTester):
    loss_class = TwinAuxiliaryClassifierLoss
    options: ClassVar[dict] = {"weight": 1.5}
    reads: ClassVar[tuple] = ("class_logits", "twin_logits")
    mixin = "TwinAuxiliaryClassifierMixin"
    critic = 1.5 * (cross_entropy(REAL_LOGITS, Y) + cross_entropy(FAKE_TWINS, Y_FAKE))
    generator = 1.5 * (cross_entropy(FAKE_LOGITS, Y_FAKE) - cross_entropy(FAKE_TWINS, Y_FAKE))

    def test_the_critic_reads_each_head_on_its_own_images(self):
        loss = self.make()
        expected = loss.critic(REAL, Y, FAKE, Y_FAKE)
        assert loss.critic(REAL._replace(twin_logits=None), Y, FAKE._replace(class_logits=None), Y_FAKE) == expected

    def test_the_generator_is_content_with_heads_that_agree(self):
        logits = FAKE_LOGITS.clone().requires_grad_()
        loss = self.make().generator(CriticOutput(SCORE, logits, logits), Y_FAKE)
        assert loss == 0
        assert not torch.autograd.grad(loss, logits)[0].any()

    def test_optimal_heads_give_the_divergence_of_the_posteriors(self):
        """On one image whose classes are generated in shares q and real ones have p: KL(q, p)."""
        q, p = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.5, 0.25])
        y = torch.tensor([0, 0, 1, 2])
        output = CriticOutput(torch.zeros(4), p.log().expand(4, 3), q.log().expand(4, 3))
        divergence = (q * (q / p).log()).sum()
        torch.testing.assert_close(TwinAuxiliaryClassifierLoss().generator(output, y), divergence)


def joint(own, other, y) -> float:
    rows = zip(own.tolist(), other.tolist(), y.tolist(), strict=True)
    return sum(log_sum_exp(row + others) - row[label] for row, others, label in rows) / len(y)


class TestDiscriminativeClassifier(SingleWeightTester):
    loss_class = DiscriminativeClassifierLoss
    options: ClassVar[dict] = {"weight": 0.5}
    reads: ClassVar[tuple] = ("class_logits", "twin_logits")
    mixin = "DiscriminativeClassifierMixin"
    critic = 0.5 * (joint(REAL_LOGITS, REAL_TWINS, Y) + joint(FAKE_TWINS, FAKE_LOGITS, Y_FAKE))
    generator = 0.5 * (joint(FAKE_LOGITS, FAKE_TWINS, Y_FAKE) - joint(FAKE_TWINS, FAKE_LOGITS, Y_FAKE))

    def test_is_the_cross_entropy_of_classes_2y_and_2y_plus_1(self):
        """The paper's numbering, in which the classes of real and generated images alternate."""
        real, fake = (torch.stack([out.class_logits, out.twin_logits], dim=2).flatten(1) for out in (REAL, FAKE))
        critic = torch_cross_entropy(real, 2 * Y) + torch_cross_entropy(fake, 2 * Y_FAKE + 1)
        generator = torch_cross_entropy(fake, 2 * Y_FAKE) - torch_cross_entropy(fake, 2 * Y_FAKE + 1)
        loss = DiscriminativeClassifierLoss()
        torch.testing.assert_close(loss.critic(REAL, Y, FAKE, Y_FAKE), critic)
        torch.testing.assert_close(loss.generator(FAKE, Y_FAKE), generator)

    def test_exchanging_the_halves_negates_the_generators_loss(self):
        exchanged = CriticOutput(SCORE, FAKE_TWINS, FAKE_LOGITS)
        assert self.make().generator(exchanged, Y_FAKE) == -self.make().generator(FAKE, Y_FAKE)


def embedded(angles, proxies=(0.3, 1.9, -2.0)) -> CriticOutput:
    """Return an output with embeddings and proxies at these angles of the unit circle."""
    f, v = (torch.tensor([[math.cos(a), math.sin(a)] for a in each], dtype=torch.float64) for each in (angles, proxies))
    return CriticOutput(torch.zeros(len(f), dtype=torch.float64), class_logits=f @ v.T, embedding=f)


def data_to_data(angles, y, margin, temperature, proxies=(0.3, 1.9, -2.0)) -> float:
    """The paper's equation, sample by sample."""
    total = 0.0
    for i, label in enumerate(y.tolist()):
        near = math.exp(min(math.cos(angles[i] - proxies[label]) - margin, 0) / temperature)
        far = sum(
            math.exp(max(math.cos(angles[i] - angles[j]) - (1 - margin), 0) / temperature)
            for j, other in enumerate(y.tolist())
            if other != label
        )
        total -= math.log(near / (near + far))
    return total / len(y)


REAL_ANGLES, FAKE_ANGLES = (0.1, -1.0, 2.0), (1.8, 0.2, 0.9)


class TestDataToDataCrossEntropy(SingleWeightTester):
    loss_class = DataToDataCrossEntropyLoss
    reads: ClassVar[tuple] = ("class_logits", "embedding")
    real: ClassVar[CriticOutput] = embedded(REAL_ANGLES)
    fake: ClassVar[CriticOutput] = embedded(FAKE_ANGLES)
    mixin = "ContrastiveMixin"
    critic = 0.5 * data_to_data(REAL_ANGLES, Y, 0.98, 0.5)
    generator = 0.5 * data_to_data(FAKE_ANGLES, Y_FAKE, 0.98, 0.5)

    @pytest.mark.parametrize(("margin", "temperature"), [(0.5, 0.1), (0.0, 1.0), (1.0, 0.25), (-0.5, 2.0)])
    def test_other_margins_and_temperatures(self, margin, temperature):
        loss = DataToDataCrossEntropyLoss(1.0, margin=margin, temperature=temperature)
        expected = data_to_data(REAL_ANGLES, Y, margin, temperature)
        assert loss.critic(self.real, Y, self.fake, Y_FAKE).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("count", [1, 3])
    def test_a_batch_of_one_class_costs_nothing(self, count):
        output = CriticOutput(*(None if field is None else field[:count].requires_grad_() for field in self.real))
        loss = self.make().critic(output, torch.full((count,), 2), self.fake, Y_FAKE)
        assert loss == 0
        gradients = torch.autograd.grad(loss, (output.class_logits, output.embedding), create_graph=True)
        assert not any(gradient.any() for gradient in gradients)

    def test_what_is_similar_enough_has_no_gradient(self):
        """One class at its proxy, and the other orthogonal to it and to its own proxy."""
        f = torch.eye(2, dtype=torch.float64).requires_grad_()
        cosines = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        output = CriticOutput(torch.zeros(2), class_logits=cosines, embedding=f)
        loss = DataToDataCrossEntropyLoss(1.0, margin=0.9, temperature=1.0).generator(output, torch.tensor([0, 1]))
        pulled, pushed = torch.autograd.grad(loss, (cosines, f))
        assert not pushed.any()
        assert pulled.nonzero().tolist() == [[1, 1]]
        assert pulled[1, 1] < 0

    def test_embeddings_alone_are_not_enough(self):
        with pytest.raises(ValueError, match=r"needs class_logits.*ContrastiveMixin"):
            self.make().generator(self.fake._replace(class_logits=None), Y_FAKE)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"margin": 1.5}, r"margin must lie in \[-1, 1\].*got 1.5"),
            ({"margin": float("nan")}, "margin must lie"),
            ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
            ({"temperature": math.inf}, "temperature must be positive and finite, got inf"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            DataToDataCrossEntropyLoss(**options)


LOSSES = [
    AuxiliaryClassifierLoss(fake_weight=1.0),
    MultiClassHingeLoss(),
    TwinAuxiliaryClassifierLoss(),
    DiscriminativeClassifierLoss(),
    DataToDataCrossEntropyLoss(),
]


def random_output(rng, count, classes) -> CriticOutput:
    """Return outputs with all fields; the class logits are cosines, which any loss may read."""
    f, v = (normalize(torch.randn(n, 4, generator=rng, dtype=torch.float64), dim=1) for n in (count, classes))
    twins = torch.randn(count, classes, generator=rng, dtype=torch.float64)
    return CriticOutput(torch.zeros(count, dtype=torch.float64), f @ v.T, twins, f)


def with_other_labels(order, real, fake, y, y_fake):
    """Rename class `order[k]` to `k`."""

    def renamed(output):
        logits = {name: getattr(output, name)[:, order] for name in ("class_logits", "twin_logits")}
        return output._replace(**logits)

    place = order.argsort()
    return renamed(real), renamed(fake), place[y], place[y_fake]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 7), classes=st.integers(2, 5))
def test_order_and_names_change_nothing(loss, seed, count, classes):
    rng = torch.Generator().manual_seed(seed)
    real, fake = (random_output(rng, count, classes) for _ in range(2))
    y, y_fake = torch.randint(classes, (2, count), generator=rng)
    critic, generator = loss.critic(real, y, fake, y_fake), loss.generator(fake, y_fake)
    assert critic >= 0
    order = torch.randperm(count, generator=rng)
    first, second = (CriticOutput(*(field[order] for field in output)) for output in (real, fake))
    torch.testing.assert_close(loss.critic(first, y[order], second, y_fake[order]), critic)
    torch.testing.assert_close(loss.generator(second, y_fake[order]), generator)
    names = torch.randperm(classes, generator=rng)
    first, second, y, y_fake = with_other_labels(names, real, fake, y, y_fake)
    torch.testing.assert_close(loss.critic(first, y, second, y_fake), critic)
    torch.testing.assert_close(loss.generator(second, y_fake), generator)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 7), margin=st.floats(-1, 1), temperature=st.floats(0.1, 3))
def test_data_to_data_lies_within_its_bounds(seed, count, margin, temperature):
    rng = torch.Generator().manual_seed(seed)
    output, y = random_output(rng, count, 3), torch.randint(3, (count,), generator=rng)
    loss = DataToDataCrossEntropyLoss(1.0, margin=margin, temperature=temperature).generator(output, y)
    # At worst an embedding is opposite to its proxy, and equal to those of all other classes.
    worst = (1 + margin) / temperature + max(0, 1 - (1 - margin)) / temperature
    assert 0 <= loss <= math.log(1 + (count - 1) * math.exp(worst)) + 1e-9
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=rng, dtype=torch.float64))
    turned = output._replace(embedding=output.embedding @ turn)
    again = DataToDataCrossEntropyLoss(1.0, margin=margin, temperature=temperature).generator(turned, y)
    torch.testing.assert_close(again, loss)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), shift=st.floats(-50, 50))
def test_a_shift_of_all_logits_of_an_image_changes_nothing(seed, shift):
    rng = torch.Generator().manual_seed(seed)
    output, y = random_output(rng, 5, 3), torch.randint(3, (5,), generator=rng)
    shifted = output._replace(class_logits=output.class_logits + shift, twin_logits=output.twin_logits + shift)
    for loss in LOSSES[:-1]:
        torch.testing.assert_close(loss.critic(shifted, y, shifted, y), loss.critic(output, y, output, y))
        torch.testing.assert_close(loss.generator(shifted, y), loss.generator(output, y))
