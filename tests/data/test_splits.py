from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from condgan.data.splits import group_folds, group_split


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Groups of one to six samples, each of one class; every class has at least ten groups."""
    labels, groups = [], []
    for label in range(draw(st.integers(1, 4))):
        for size in draw(st.lists(st.integers(1, 6), min_size=10, max_size=25)):
            number = 17 * len(groups) - 5
            labels += [label] * size
            groups += [number] * size
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return torch.tensor(labels)[order], torch.tensor(groups)[order]


@settings(max_examples=30, deadline=None)
@given(data=labelled_groups(), fraction=st.floats(0.15, 0.85), seed=st.integers(0, 5))
def test_groups_stay_whole_and_each_side_keeps_two_of_each_class(
    data: tuple[Tensor, Tensor], fraction: float, seed: int
) -> None:
    labels, groups = data
    try:
        rest, part = group_split(labels, groups, fraction=fraction, seed=seed)
    except ValueError:
        assume(False)
    assert torch.equal(torch.cat([rest, part]).sort().values, torch.arange(len(labels)))
    assert not set(groups[rest].tolist()) & set(groups[part].tolist())
    assert torch.equal(part, part.sort().values)
    for side in (rest, part):
        assert all(len(groups[side][labels[side] == label].unique()) >= 2 for label in labels.unique())


@settings(max_examples=30, deadline=None)
@given(data=labelled_groups(), folds=st.integers(2, 10), seed=st.integers(0, 5))
def test_folds_hold_every_sample_once_and_groups_whole(data: tuple[Tensor, Tensor], folds: int, seed: int) -> None:
    labels, groups = data
    parts = group_folds(labels, groups, folds, seed=seed)
    assert len(parts) == folds
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(labels)))
    owners = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, owners)) == len(set.union(*owners))


@given(
    sizes=st.lists(st.integers(20, 60), min_size=1, max_size=4),
    folds=st.integers(2, 9),
    above_half=st.booleans(),
)
def test_without_groups_the_part_is_one_fold(sizes: list[int], folds: int, above_half: bool) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    share = 1 / folds
    _, part = group_split(labels, None, fraction=1 - share if above_half and folds > 2 else share)
    for size, held in zip(sizes, labels[part].bincount().tolist(), strict=True):
        held = size - held if above_half and folds > 2 else held
        assert abs(held - share * size) < 1


@pytest.mark.parametrize(("fraction", "share"), [(0.15, 1 / 7), (0.1, 0.1), (0.3, 1 / 3), (0.4, 0.5), (0.85, 6 / 7)])
def test_a_fraction_is_rounded_to_whole_folds(fraction: float, share: float) -> None:
    labels = torch.arange(840) % 2
    _, part = group_split(labels, torch.arange(840) // 4 * 2 + labels, fraction=fraction)
    assert len(part) / 840 == pytest.approx(share, abs=0.005)


def test_the_part_is_the_fold_nearest_to_the_fraction() -> None:
    groups = torch.tensor([size for size in range(1, 25) for _ in range(size)])
    labels = groups % 2
    folds = group_folds(labels, groups, 4, seed=1)
    _, part = group_split(labels, groups, fraction=0.25, seed=1)
    errors = [((labels[fold].bincount() / labels.bincount() - 0.25) ** 2).sum().item() for fold in folds]
    assert torch.equal(part, folds[errors.index(min(errors))])
    assert min(errors) < max(errors)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_groups_of_several_classes_stay_whole(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (400,), generator=rng)
    groups = torch.randint(0, 150, (400,), generator=rng)
    rest, part = group_split(labels, groups, fraction=0.2, seed=seed)
    assert not set(groups[rest].tolist()) & set(groups[part].tolist())
    assert torch.allclose(labels[part].bincount() / labels.bincount(), torch.tensor(0.2), atol=0.05)


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
    for seed in range(20):
        _, part = group_split(labels, groups, fraction=0.2, seed=seed)
        chosen[groups[part].unique()] += 1
    small, large = chosen.view(100, 2).mean(0) / 20
    assert large == pytest.approx(0.2, abs=0.02)
    assert small == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 15, float("nan")])
def test_fraction_outside_its_range(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\), got .* pass 0\.1"):
        group_split(torch.arange(8) % 2, None, fraction=fraction)


def test_a_class_with_fewer_patients_than_folds_says_how_many() -> None:
    labels = torch.tensor([0] * 10 + [1] * 3)
    with pytest.raises(ValueError, match=r"5 folds need 5 samples of each class, got \[10, 3\].*nearer its fraction"):
        group_split(labels, None, fraction=0.2)
    with pytest.raises(ValueError, match=r"2 folds need 2 groups of each class, got \[6, 1\]"):
        group_split(torch.tensor([0] * 6 + [1] * 6), torch.tensor([0, 1, 2, 3, 4, 5] + [6] * 6), fraction=0.5)
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        group_folds(labels, None, 1)


def test_two_patients_of_each_class_must_remain_on_either_side() -> None:
    labels = torch.tensor([0] * 20 + [1] * 5)
    with pytest.raises(ValueError, match=r"at least 2 samples .* none of 5 folds does: .* \[20, 5\].* nearer to 0\.5"):
        group_split(labels, None, fraction=0.2)
    with pytest.raises(ValueError, match=r"at least 2 groups of each class"):
        group_split(torch.tensor([0] * 6 + [1] * 6), torch.tensor([0, 1, 2, 3, 4, 5] + [6] * 4 + [7, 8]), fraction=0.5)


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (torch.zeros(4), None, r"labels must be integers of the shape \(N,\).* got torch\.float32"),
        (torch.zeros(4, 1, dtype=torch.int64), None, r"labels must be integers of the shape"),
        (torch.zeros(4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), r"one entry for each sample, 4, got 3"),
        (torch.zeros(0, dtype=torch.int64), None, r"at least one entry, got none"),
        (torch.tensor([-1, 0]), None, r"at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit(labels: Tensor, groups: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_split(labels, groups, fraction=0.5)
