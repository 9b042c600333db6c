"""Checks that an evaluation means what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from condgan.data.store import ArrayDataset

_SHOWN = 10


def check_disjoint(
    train: ArrayDataset, test: ArrayDataset, *, group: Callable[[Path], str | int] | None = None
) -> None:
    """Make sure that no group (patient) is in both data sets.

    Groups are compared by the names that `group` gives to `paths`; without it by `group_names` where both data sets
    have them, else by number. Numbers mean something only within one numbering: between the parts of one data set, or
    where you gave them yourself.

    Nothing calls this by itself, because equal names need not mean equal patients: two archives may both count from 1.

    Args:
        train: Data that something was trained or tuned on.
        test: Data that it is to be judged on.
        group: Maps a path to its group, as for `condgan.data.ImageFolder`.

    Raises:
        ValueError: If a group is in both, or groups are missing or cannot be compared.

    Examples:
        >>> from condgan.data import ArrayDataset
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> train = ArrayDataset(images, [0, 1, 0, 1], groups=[1, 2, 3, 4])
        >>> check_disjoint(train, ArrayDataset(images, [0, 1, 0, 1], groups=[5, 6, 7, 8]))
        >>> check_disjoint(train, ArrayDataset(images, [0, 1, 0, 1], groups=[4, 5, 6, 7]))
        Traceback (most recent call last):
            ...
        ValueError: train and test must not share groups, got 1 in both: 4. ...
    """
    shared = sorted(_shared_groups(train, test, group))
    if shared:
        more = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
        raise ValueError(
            f"train and test must not share groups, got {len(shared)} in both: {', '.join(shared[:_SHOWN])}{more}. "
            "Split by group with data.split, or drop these groups from one of the two."
        )


def check_compatible(role: str, data: ArrayDataset, class_names: Sequence[str], image_shape: tuple[int, ...]) -> None:
    """Make sure that data fit a classifier.

    Raises:
        ValueError: If samples are no uint8 images, or classes or image shape differ from the given ones.
    """
    if data.images.dtype != torch.uint8:
        raise ValueError(
            f"{role} must hold uint8 images, got {data.images.dtype}. Convert images in [-1, 1] with "
            "condgan.images.to_uint8."
        )
    if data.image_shape != tuple(image_shape):
        raise ValueError(
            f"{role} must have the image shape of the training set, {tuple(image_shape)}, got {data.image_shape}. "
            "Read all sets at one size."
        )
    if data.class_names != tuple(class_names):
        raise ValueError(
            f"{role} must have the classes of the training set, {tuple(class_names)}, got {data.class_names}. Pass "
            "the same class_names, in the same order, to all sets."
        )
    absent = [name for name, count in zip(data.class_names, data.class_counts, strict=True) if not count]
    if absent:
        raise ValueError(f"{role} must hold every class, got no images of {', '.join(absent)}.")


def _shared_groups(train: ArrayDataset, test: ArrayDataset, group: Callable[[Path], str | int] | None) -> set[str]:
    if group is not None:
        if not train.paths or not test.paths:
            raise ValueError("train and test must have paths for group= to read, got none. Compare groups without it.")
        first, second = ({str(group(Path(path))) for path in data.paths} for data in (train, test))
        return first & second
    if train.groups is None or test.groups is None:
        raise ValueError("train and test must have groups, got None. Pass groups= with the patient of each sample.")
    names = [getattr(data, "group_names", ()) for data in (train, test)]
    if bool(names[0]) != bool(names[1]):
        raise ValueError(
            "train and test must both have group_names or both have none, got them for one of the two. Numbers of "
            "different data sets do not compare: pass group=, the function that maps a path to its patient."
        )
    numbers = (set(train.groups.tolist()), set(test.groups.tolist()))
    first, second = (
        {str(own[number]) if own else str(number) for number in found}
        for own, found in zip(names, numbers, strict=True)
    )
    return first & second
