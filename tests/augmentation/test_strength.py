import inspect

import pytest
import torch
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.augmentation import AdaptiveStrength
from condgan.types import AdaptiveAugmentation


def observe(strength, real, fake=0.0):
    before = strength.p.item()
    assert strength.observe(torch.as_tensor(real), torch.as_tensor(fake) + torch.zeros(len(real))) == before
    return strength.p.item()


def test_p_rises_above_the_target_and_falls_below_it():
    strength = AdaptiveStrength(target=0.5, images=32, every=1)
    assert strength.p == 0
    assert observe(strength, [1.0, 0.1, 3.0, 2.0]) == 4 / 32
    assert observe(strength, [1.0, 2.0, 2.0, -9.0]) == 4 / 32, "exactly at the target"
    assert observe(strength, [1.0] * 8) == 12 / 32
    assert observe(strength, [-1.0, 1.0]) == 10 / 32
    assert observe(strength, [-1.0] * 16) == 0, "not below 0"
    assert observe(strength, [1.0] * 40) == 1, "nor above 1"


def test_the_mean_is_over_the_steps_between_moves():
    strength = AdaptiveStrength(target=0.2, images=64, every=4)
    for scores in ([1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]):
        assert observe(strength, scores) == 0
    assert observe(strength, [1.0, -1.0]) == 8 / 64  # (2 - 2 + 2 + 0) / 8 = 0.25
    for _ in range(3):
        observe(strength, [1.0, 1.0])
    assert observe(strength, [-5.0, -5.0]) == 16 / 64


def test_relative_strength_ignores_a_shift_of_all_scores():
    for shift in (-10.0, 0.0, 10.0):
        strength = AdaptiveStrength(target=0.0, images=8, every=1, relative=True)
        real, fake = torch.tensor([1.0, 2.0, 3.0]) + shift, torch.tensor([0.0, 3.0, 1.0]) + shift
        assert observe(strength, real, fake) == 3 / 8


def by_hand(batches, target, images, every):
    """The rule of the paper's authors: a list of signs, and a Python number."""
    p, signs = 0.0, []
    for number, scores in enumerate(batches, start=1):
        signs += scores
        if number % every == 0:
            direction = (sum(signs) / len(signs) > target) - (sum(signs) / len(signs) < target)
            p = min(max(p + direction * len(signs) / images, 0.0), 1.0)
            signs = []
    return p


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.sampled_from([-1.0, 1.0]), min_size=6, max_size=6), min_size=1, max_size=20),
    st.floats(-0.95, 0.95),
    st.integers(20, 500),
    st.integers(1, 5),
)
def test_parity_with_numbers_by_hand(batches, target, images, every):
    strength = AdaptiveStrength(target=target, images=images, every=every).double()
    for scores in batches:
        p = observe(strength, scores)
    assert p == pytest.approx(by_hand(batches, target, images, every), abs=1e-6)
    assert 0 <= p <= 1


def test_the_state_is_saved_between_moves():
    whole, cut = (AdaptiveStrength(images=64, every=3) for _ in range(2))
    scores = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) + 1
    for row in scores:
        observe(whole, row)
    for row in scores[:5]:
        observe(cut, row)
    resumed = AdaptiveStrength(images=64, every=3)
    resumed.load_state_dict(cut.state_dict())
    for row in scores[5:]:
        observe(resumed, row)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_scores_keep_their_graph():
    score = torch.ones(3, requires_grad=True)
    strength = AdaptiveStrength()
    strength.observe(score, score)
    assert not strength.p.requires_grad
    assert not strength.signs.requires_grad


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": 1.5}, r"target must be in \[-1, 1\], a mean of signs, got 1.5"),
        ({"images": 0}, "images must be at least 1"),
        ({"every": 0}, "every must be at least 1"),
    ],
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveStrength(**wrong)


def test_what_adapts_is_told_apart():
    from condgan import AdaptiveAugment, DiffAugment

    assert isinstance(AdaptiveAugment(), AdaptiveAugmentation)
    for name in typing_extensions.get_protocol_members(AdaptiveAugmentation):
        inspect.getattr_static(AdaptiveAugment(), name)  # as isinstance looks them up from Python 3.12 on
    assert not isinstance(DiffAugment(), AdaptiveAugmentation)
