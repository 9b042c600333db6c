from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from condgan.data import group_split


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Groups of one to six samples, each of one class; every class has at least four groups."""
    labels, groups = [], []
    for label in range(draw(st.integers(1, 4))):
        for size in draw(st.lists(st.integers(1, 6), min_size=4, max_size=25)):
            number = 17 * len(groups) - 5
            labels += [label] * size
            groups += [number] * size
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return torch.tensor(labels)[order], torch.tensor(groups)[order]


fractions = st.floats(0.05, 0.95)


@settings(max_examples=100, deadline=None)
@given(data=labelled_groups(), fraction=fractions, seed=st.integers(0, 5))
def test_no_group_is_torn_and_every_sample_is_used_once(
    data: tuple[Tensor, Tensor], fraction: float, seed: int
) -> None:
    labels, groups = data
    rest, part = group_split(labels, groups, fraction=fraction, seed=seed)
    assert torch.equal(torch.cat([rest, part]).sort().values, torch.arange(len(labels)))
    assert not set(groups[rest].tolist()) & set(groups[part].tolist())
    assert torch.equal(part, part.sort().values)


@settings(max_examples=100, deadline=None)
@given(data=labelled_groups(), fraction=fractions)
def test_every_class_is_near_its_fraction(data: tuple[Tensor, Tensor], fraction: float) -> None:
    labels, groups = data
    _, part = group_split(labels, groups, fraction=fraction)
    sizes, held = labels.bincount(), labels[part].bincount(minlength=len(labels.bincount()))
    largest = int(groups.unique(return_counts=True)[1].max())
    assert ((held - fraction * sizes).abs() <= largest / 2 + 2).all()
    assert (held >= 2).all()
    assert (sizes - held >= 2).all()


@given(sizes=st.lists(st.integers(4, 60), min_size=1, max_size=5), fraction=fractions)
def test_without_groups_the_fraction_is_exact_to_one_sample(sizes: list[int], fraction: float) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    _, part = group_split(labels, None, fraction=fraction)
    for size, held in zip(sizes, labels[part].bincount().tolist(), strict=True):
        assert abs(held - min(max(fraction * size, 2), size - 2)) <= 0.5


@given(seed=st.integers(0, 1000))
def test_groups_of_several_classes_stay_whole(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (400,), generator=rng)
    groups = torch.randint(0, 150, (400,), generator=rng)
    rest, part = group_split(labels, groups, fraction=0.2, seed=seed)
    assert not set(groups[rest].tolist()) & set(groups[part].tolist())
    assert torch.allclose(labels[part].bincount() / labels.bincount(), torch.tensor(0.2), atol=0.02)


def test_a_seed_decides_and_the_global_state_does_not() -> None:
    labels = torch.arange(100) % 2
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = group_split(labels, None, fraction=0.3, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = group_split(labels, None, fraction=0.3, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[1], group_split(labels, None, fraction=0.3, seed=8)[1])


def test_large_groups_are_as_likely_in_the_part_as_small_ones() -> None:
    groups = torch.repeat_interleave(torch.arange(200), torch.tensor([1, 9]).repeat(100))
    labels = (groups >= 100).long()
    chosen = torch.zeros(200)
    for seed in range(60):
        _, part = group_split(labels, groups, fraction=0.2, seed=seed)
        chosen[groups[part].unique()] += 1
    small, large = chosen.view(100, 2).mean(0) / 60
    assert large == pytest.approx(0.2, abs=0.02)
    assert small == pytest.approx(0.2, abs=0.05)


def test_a_rare_class_keeps_two_samples_a_side() -> None:
    labels = torch.tensor([0] * 100 + [1] * 4)
    rest, part = group_split(labels, None, fraction=0.05)
    assert labels[part].bincount().tolist() == [5, 2]
    assert labels[rest].bincount().tolist() == [95, 2]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 15, float("nan")])
def test_fraction_outside_its_range(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\), got .* pass 0\.1"):
        group_split(torch.arange(8) % 2, None, fraction=fraction)


def test_too_few_samples_are_named_with_a_way_out() -> None:
    labels = torch.tensor([0] * 10 + [1] * 3 + [2] * 2)
    with pytest.raises(ValueError, match=r"at least 4 samples of each class.* class 1 \(3\), 2 \(2\)\. Add samples"):
        group_split(labels, None, fraction=0.2)


def test_a_class_of_one_patient_cannot_be_split() -> None:
    labels = torch.tensor([0] * 6 + [1] * 6)
    groups = torch.tensor([0, 1, 2, 3, 4, 5] + [6] * 6)
    with pytest.raises(ValueError, match=r"two groups in each class, got one in class 1.*groups=None"):
        group_split(labels, groups, fraction=0.2)


def test_groups_that_hold_most_of_a_class_cannot_be_split() -> None:
    labels = torch.tensor([0] * 6 + [1] * 6)
    groups = torch.tensor([0, 1, 2, 3, 4, 5] + [6] * 5 + [7])
    with pytest.raises(ValueError, match=r"no split with fraction=0\.2 .* nearer to 0\.5"):
        group_split(labels, groups, fraction=0.2)


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (torch.zeros(4), None, r"labels must be integers of the shape \(N,\).* got torch\.float32"),
        (torch.zeros(4, 1, dtype=torch.int64), None, r"labels must be integers of the shape"),
        (torch.zeros(4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), r"one entry a sample, 4, got 3"),
        (torch.zeros(0, dtype=torch.int64), None, r"at least one entry, got none"),
        (torch.tensor([-1, 0]), None, r"at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit(labels: Tensor, groups: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_split(labels, groups, fraction=0.5)
