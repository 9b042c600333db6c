from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import condgan as cg
from condgan.training.inputs import Request
from condgan.types import CriticBatch, CriticOutput, StepInputs
from saved import assert_same, saved


class SmallCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.embed = nn.Embedding(2, 4)
        self.double()

    def forward(self, x, y=None):
        h = nn.functional.softplus(self.conv(x)).mean(dim=3).amax(dim=2)
        return CriticOutput(score=(h * self.embed(y)).sum(1))


class SumOfPixels(nn.Module):
    def forward(self, x, y=None):
        return CriticOutput(score=x.sum((1, 2, 3)) + y)


def make_batch(critic, transform, *, count=4, shape=(1, 6, 5), seed=0) -> CriticBatch:
    rng = torch.Generator().manual_seed(seed)
    x, x_fake = torch.randn(2, count, *shape, generator=rng, dtype=torch.float64)
    y, y_fake = torch.randint(2, (2, count), generator=rng)
    draws = [transform.draw(count, shape, rng=rng, device=x.device) for _ in range(2)]
    inputs = StepInputs(x=x, y=y, z=x.flatten(1), y_fake=y_fake, epsilon=y, transformation=tuple(draws))
    return CriticBatch(
        x=x, y=y, x_fake=x_fake, y_fake=y_fake, real=critic(x, y), fake=critic(x_fake, y_fake), inputs=inputs
    )


SHIFT = cg.DiffAugment("translation", translation_ratio=0.4)


def test_parity_with_the_formula_image_by_image():
    critic = SmallCritic()
    batch = make_batch(critic, SHIFT)
    total = 0.0
    for x, y, draws, ratio in zip(
        (batch.x, batch.x_fake), (batch.y, batch.y_fake), batch.inputs.transformation, (1.0, 0.5), strict=True
    ):
        for n in range(4):
            down, right = draws["translation"][n].tolist()
            padded = nn.functional.pad(x[n], (6, 6, 6, 6))
            shifted = padded[:, 6 - down : 12 - down, 6 - right : 11 - right]
            difference = critic(x[n : n + 1], y[n : n + 1]).score - critic(shifted[None], y[n : n + 1]).score
            total += ratio * difference.item() ** 2 / 4
    regularizer = cg.ConsistencyRegularizer(3.0, fake_ratio=0.5, transform=SHIFT, every=2)
    assert total > 0
    assert regularizer(critic, batch).item() == pytest.approx(6 * total)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_closed_form_of_brightness(seed):
    """Brighter by b: the sum of P pixels changes by b P."""
    brighter = cg.DiffAugment("brightness")
    batch = make_batch(SumOfPixels(), brighter, seed=seed)
    real, fake = (draws["brightness"].double() for draws in batch.inputs.transformation)
    expected = 30**2 * (real.square().mean() + fake.square().mean())
    torch.testing.assert_close(cg.ConsistencyRegularizer(1.0, transform=brighter)(SumOfPixels(), batch), expected)


def test_a_critic_that_ignores_the_transformation_pays_nothing():
    class MeanOfShape(nn.Module):
        def forward(self, x, y=None):
            return CriticOutput(score=y.double())

    assert cg.ConsistencyRegularizer(transform=SHIFT)(MeanOfShape(), make_batch(MeanOfShape(), SHIFT)) == 0


def test_derivatives_of_the_critic_of_first_and_second_order():
    critic = SmallCritic()
    weight = critic.conv.weight.detach().clone().requires_grad_()

    def penalty(weight):
        def moved(x, y):
            return torch.func.functional_call(critic, {"conv.weight": weight}, (x, y))

        return cg.ConsistencyRegularizer(transform=SHIFT)(moved, make_batch(moved, SHIFT, count=2))

    torch.autograd.gradcheck(penalty, (weight,))
    torch.autograd.gradgradcheck(penalty, (weight,))


def test_missing_draws_and_bad_ratios_are_refused():
    critic = SmallCritic()
    batch = make_batch(critic, SHIFT)
    batch = replace(batch, inputs=replace(batch.inputs, transformation=None))
    with pytest.raises(ValueError, match=r"needs batch.inputs.transformation, got None"):
        cg.ConsistencyRegularizer()(critic, batch)
    with pytest.raises(ValueError, match="fake_ratio must be at least 0"):
        cg.ConsistencyRegularizer(fake_ratio=-1.0)


def test_draws_come_after_all_others_and_differ_between_real_and_generated(make_trainer, tiny_images):
    plain = make_trainer(augment=cg.DiffAugment())
    trainer = make_trainer(augment=cg.DiffAugment(), regularizers=[cg.ConsistencyRegularizer(transform=SHIFT)])
    one, other = (t._make_sampler(tiny_images, 2**32).draw(Request(8)) for t in (plain, trainer))
    assert one.transformation is None
    assert_same(one.augmentation, other.augmentation)
    assert torch.equal(one.z, other.z)
    real, fake = (draws["translation"] for draws in other.transformation)
    assert real.shape == (8, 2)
    assert not torch.equal(real, fake)
    tensors = other.tensors()
    assert sum(tensor is real or tensor is fake for tensor in tensors) == 2
    assert len(tensors) == len(one.tensors()) + 2


def test_training_with_it_is_reproducible_and_one_at_most_transforms(make_trainer, tiny_images):
    def build():
        return make_trainer(regularizers=[cg.ConsistencyRegularizer(0.1, transform=SHIFT)], critic_steps=2)

    first, again = build(), build()
    for trainer in (first, again):
        trainer.fit(tiny_images, steps=2, batch_size=6)
    assert first.read_metrics()["critic/consistency_regularizer"] > 0
    assert_same(saved(first), saved(again))
    with pytest.raises(ValueError, match="one regularizer at most may transform images, got Consistency"):
        make_trainer(regularizers=[cg.ConsistencyRegularizer(), cg.ConsistencyRegularizer()])
