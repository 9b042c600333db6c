"""Splits that keep the proportions of the classes and every patient whole."""

from __future__ import annotations

import torch
from torch import Tensor

from condgan.devices import plain_defaults

_MINIMUM = 2


@plain_defaults()
def group_split(labels: Tensor, groups: Tensor | None, *, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""Split samples into two parts that keep the proportions of the classes and every group whole.

    The samples are cut into $k$ = round(1 / `fraction`) folds, see `group_folds`. The part is the fold that minimizes
    $\sum_c (p_c / n_c - f)^2$, where $p_c$ of the $n_c$ samples of class $c$ are in the fold and $f$ is the fraction.
    So 0.15 gives about a seventh of the samples, and 0.4 gives about half of them. A fraction above 1/2 takes
    $k$ = round(1 / (1 - `fraction`)) folds and leaves one of them as the rest.

    A patient's images resemble each other. If some of them are in training and others in the test, a network that
    recognizes the patient seems to recognize the disease.

    Args:
        labels: Class of each sample.
        groups: Group of each sample, such as its patient. None makes each sample a group of its own.
        fraction: Share of each class in the part, rounded as above.
        seed: Seed of the folds. The global random state is neither read nor changed.

    Shape:
        - `labels`: `(N,)`, int64, at least 0.
        - `groups`: `(N,)`, int64, or None.
        - returned indices: `(N - M,)` and `(M,)`, int64, ascending.

    Returns:
        Indices of the rest and indices of the part.

    Raises:
        ValueError: If `fraction` is not in (0, 1), shapes do not fit, or no fold leaves two groups of each class on
            either side.

    Examples:
        >>> labels = torch.tensor([0] * 12 + [1] * 12)
        >>> patients = torch.arange(24) // 2
        >>> rest, part = group_split(labels, patients, fraction=1 / 3)
        >>> labels[part].bincount()
        tensor([4, 4])
        >>> set(patients[rest].tolist()) & set(patients[part].tolist())
        set()
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be in (0, 1), got {fraction}. For a tenth of the samples pass 0.1.")
    share = min(fraction, 1 - fraction)
    folds = group_folds(labels, groups, round(1 / share), seed=seed)
    _, classes = labels.cpu().unique(return_inverse=True)
    sizes = classes.bincount()
    chosen, distance = None, float("inf")
    for fold in folds:
        inside = torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, fold, True)
        found = float(((classes[inside].bincount(minlength=len(sizes)) / sizes - share) ** 2).sum())
        possible = min(int(groups_per_class(labels, groups, side).min()) for side in (inside, ~inside)) >= _MINIMUM
        if possible and found < distance:
            chosen, distance = inside, found
    if chosen is None:
        raise ValueError(
            f"fraction={fraction} must leave at least {_MINIMUM} {_unit(groups)} of each class on either side, and "
            f"none of {len(folds)} folds does: the classes have {groups_per_class(labels, groups).tolist()}. Choose a "
            f"fraction nearer to 0.5, or add {_unit(groups)}."
        )
    part = chosen if fraction <= 0.5 else ~chosen
    return torch.nonzero(~part).flatten(), torch.nonzero(part).flatten()


@plain_defaults()
def group_folds(labels: Tensor, groups: Tensor | None, folds: int, *, seed: int = 0) -> list[Tensor]:
    """Cut samples into folds that keep the proportions of the classes and every group whole.

    These are the folds of scikit-learn's `StratifiedGroupKFold`, and of `StratifiedKFold` without groups.

    Args:
        labels: Class of each sample.
        groups: Group of each sample, such as its patient. None makes each sample a group of its own.
        folds: Number of folds.
        seed: Seed of the folds. The global random state is neither read nor changed.

    Shape:
        - `labels`: `(N,)`, int64, at least 0.
        - `groups`: `(N,)`, int64, or None.
        - each fold: `(M,)`, int64, ascending.

    Returns:
        Indices of the samples of each fold. Each sample is in exactly one.

    Raises:
        ValueError: If shapes do not fit, or a class has fewer groups than there are folds.

    Examples:
        >>> labels, patients = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
        >>> [len(fold) for fold in group_folds(labels, patients, 2)]
        [4, 4]
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    _check_labels_and_groups(labels, groups)
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}.")
    available = groups_per_class(labels, groups)
    if int(available.min()) < folds:
        raise ValueError(
            f"{folds} folds need {folds} {_unit(groups)} of each class, got {available.tolist()} of the classes. "
            f"Add {_unit(groups)}, or ask for fewer folds; a split has fewer the nearer its fraction is to 0.5."
        )
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    owners = None if groups is None else groups.cpu().numpy()
    y = labels.cpu().numpy()
    return [torch.from_numpy(part) for _, part in splitter.split(y, y, owners)]


def _check_labels_and_groups(labels: Tensor, groups: Tensor | None) -> None:
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and (values.ndim != 1 or values.is_floating_point()):
            raise ValueError(
                f"{name} must be integers of the shape (N,), one for each sample, got {values.dtype} of the shape "
                f"{tuple(values.shape)}."
            )
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f"groups must have one entry for each sample, {len(labels)}, got {len(groups)}.")
    if len(labels) == 0:
        raise ValueError("labels must have at least one entry, got none: there is nothing to split.")
    if int(labels.min()) < 0:
        raise ValueError(f"labels must be at least 0, got {int(labels.min())}.")


def _unit(groups: Tensor | None) -> str:
    return "samples" if groups is None else "groups"


def groups_per_class(labels: Tensor, groups: Tensor | None, chosen: Tensor | None = None) -> Tensor:
    """Return the number of groups of each class that occurs, `(K,)` int64, counted among the chosen samples."""
    owners = torch.arange(len(labels)) if groups is None else groups.cpu()
    classes = labels.cpu().unique(return_inverse=True)[1]
    pairs = torch.stack([classes, owners], 1)
    pairs = (pairs if chosen is None else pairs[chosen]).unique(dim=0)
    return torch.bincount(pairs[:, 0], minlength=int(classes.max()) + 1)
