from pathlib import Path

import pytest
import torch

from condgan.data.checks import check_disjoint
from condgan.data.store import ArrayDataset


def data(groups, *, group_names=(), paths=()):
    images = torch.zeros(len(groups or paths), 1, 4, 4, dtype=torch.uint8)
    result = ArrayDataset(images, torch.arange(len(images)) % 2, groups=groups, paths=paths)
    if group_names:
        result.group_names = group_names
    return result


def test_numbers_compare_within_one_numbering():
    check_disjoint(data([0, 0, 1, 1]), data([2, 2, 3, 3]))
    with pytest.raises(ValueError, match="got 2 in both: 1, 2"):
        check_disjoint(data([0, 1, 2, 2]), data([1, 2, 3, 3]))


def test_names_compare_across_data_sets():
    first = data([0, 0, 1, 1], group_names=("ada", "ben"))
    check_disjoint(first, data([0, 0, 1, 1], group_names=("cyd", "dan")))
    with pytest.raises(ValueError, match="got 1 in both: ben"):
        check_disjoint(first, data([0, 0, 1, 1], group_names=("ben", "cyd")))


def test_paths_compare_by_rule():
    first = data(None, paths=["ada-1", "ada-2", "ben-1", "ben-2"])
    second = data(None, paths=["cyd-1", "cyd-2", "ben-3", "ben-4"])
    with pytest.raises(ValueError, match="got 1 in both: ben"):
        check_disjoint(first, second, group=lambda path: path.name.split("-")[0])
    check_disjoint(first, second, group=lambda path: Path(path).name)


def test_what_cannot_be_compared_does_not_pass():
    plain = data([0, 0, 1, 1])
    with pytest.raises(ValueError, match="must have groups"):
        check_disjoint(plain, data(None, paths=["a", "b", "c", "d"]))
    with pytest.raises(ValueError, match="must both have group_names"):
        check_disjoint(plain, data([0, 0, 1, 1], group_names=("ada", "ben")))
    with pytest.raises(ValueError, match="must have paths"):
        check_disjoint(plain, plain, group=str)


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match="and 5 more"):
        check_disjoint(data(list(range(15))), data(list(range(15))))
