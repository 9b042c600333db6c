"""Splits that keep every class in proportion and every patient whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_MINIMUM = 2
_ATTEMPTS = 64


def group_split(labels: Tensor, groups: Tensor | None, *, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""Split samples into two parts, class by class in proportion, without tearing a group apart.

    Groups are visited in random order, and one joins the part if that brings the part closer to its targets
    $t_k = \min(\max(f n_k, 2), n_k - 2)$, where $n_k$ is the size of class $k$ and $f$ the fraction. The distance is
    $\sum_k ((p_k - t_k) / n_k)^2$, where $p_k$ counts the part's samples of class $k$. Single groups then move over
    as long as that lessens the distance. Where each group holds one class only, the part ends within half of the
    class's largest group of its target, unless the minimum of two samples a side asks for more. A group may hold
    several classes.

    A patient's images resemble each other. If some of them are in training and others in the test, a network that
    recognizes the patient passes for one that recognizes the disease.

    Args:
        labels: Class of each sample.
        groups: Group of each sample, such as its patient. None makes each sample a group of its own.
        fraction: Share of each class that the part holds, about.
        seed: Seed of the order of visits. The global random state is neither read nor changed.

    Shape:
        - `labels`: `(N,)`, int64, at least 0.
        - `groups`: `(N,)`, int64, or None.
        - returned indices: `(M,)` and `(N - M,)`, int64, ascending.

    Returns:
        Indices of the rest and indices of the part.

    Raises:
        ValueError: If `fraction` is not in (0, 1), shapes do not fit, or some class cannot have two samples on
            each side.

    Examples:
        >>> labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
        >>> patients = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
        >>> rest, part = group_split(labels, patients, fraction=1 / 3)
        >>> labels[part].bincount()
        tensor([2, 2])
        >>> set(patients[rest].tolist()) & set(patients[part].tolist())
        set()
    """
    _check_arguments(labels, groups, fraction)
    counts, owners = _count_table(labels, groups)
    _check_possible(counts)
    sizes = counts.sum(0)
    targets = np.clip(fraction * sizes, _MINIMUM, sizes - _MINIMUM)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(_ATTEMPTS):
        order = torch.randperm(len(counts), generator=rng).tolist()
        chosen = _improve(counts, targets, _fill(counts, targets, order))
        if _shortfall(chosen @ counts, sizes) == 0:
            mask = torch.from_numpy(chosen[owners])
            return torch.nonzero(~mask).flatten(), torch.nonzero(mask).flatten()
    raise ValueError(
        f"no split with fraction={fraction} was found that leaves at least {_MINIMUM} samples of each class on both "
        f"sides without tearing a group apart ({len(counts)} groups, class sizes {sizes.tolist()}). Some groups hold "
        "most of a class: choose a fraction nearer to 0.5, add samples, or split without groups."
    )


def _check_arguments(labels: Tensor, groups: Tensor | None, fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be in (0, 1), got {fraction}. For a tenth of the samples pass 0.1.")
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and (values.ndim != 1 or values.is_floating_point()):
            raise ValueError(
                f"{name} must be integers of the shape (N,), one a sample, got {values.dtype} of the shape "
                f"{tuple(values.shape)}."
            )
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f"groups must have one entry a sample, {len(labels)}, got {len(groups)}.")
    if len(labels) == 0:
        raise ValueError("labels must have at least one entry, got none: there is nothing to split.")
    if int(labels.min()) < 0:
        raise ValueError(f"labels must be at least 0, got {int(labels.min())}.")


def _count_table(labels: Tensor, groups: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of each group in each class `(G, K)`, and the group's row of each sample `(N,)`."""
    _, classes = np.unique(labels.cpu().numpy(), return_inverse=True)
    owners = np.arange(len(labels))
    if groups is not None:
        _, owners = np.unique(groups.cpu().numpy(), return_inverse=True)
    counts = np.zeros((owners.max() + 1, classes.max() + 1), dtype=np.int64)
    np.add.at(counts, (owners, classes), 1)
    return counts, owners


def _check_possible(counts: np.ndarray) -> None:
    needed = 2 * _MINIMUM
    small = [f"{k} ({n})" for k, n in enumerate(counts.sum(0).tolist()) if n < needed]
    if small:
        raise ValueError(
            f"a split needs at least {needed} samples of each class, {_MINIMUM} a side, got fewer in class "
            f"{', '.join(small)}. Add samples, merge rare classes, or use a fixed split made by hand."
        )
    single = [str(k) for k, n in enumerate((counts > 0).sum(0).tolist()) if n < 2]
    if single:
        raise ValueError(
            f"a split needs at least two groups in each class, got one in class {', '.join(single)}. All its samples "
            "belong to one patient: add patients, or pass groups=None and say in your results that patients were "
            "torn apart."
        )


def _fill(counts: np.ndarray, targets: np.ndarray, order: Sequence[int]) -> np.ndarray:
    sizes = counts.sum(0).tolist()
    part = [0] * len(sizes)
    goal = targets.tolist()
    # Sparse rows and plain Python: most groups hold one class, and there may be as many groups as samples.
    rows: list[list[tuple[int, int]]] = [[] for _ in range(len(counts))]
    for g, k in zip(*(axis.tolist() for axis in np.nonzero(counts)), strict=True):
        rows[g].append((k, int(counts[g, k])))
    chosen = np.zeros(len(counts), dtype=bool)
    for g in order:
        change = sum(((part[k] + n - goal[k]) ** 2 - (part[k] - goal[k]) ** 2) / sizes[k] ** 2 for k, n in rows[g])
        if change < 0:
            chosen[g] = True
            for k, n in rows[g]:
                part[k] += n
    return chosen


def _improve(counts: np.ndarray, targets: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Move the best single group to the other side until no move helps. A missing sample outweighs any distance."""
    sizes = counts.sum(0)
    chosen = chosen.copy()

    def cost(part: np.ndarray) -> np.ndarray:
        distance = (((part - targets) / sizes) ** 2).sum(-1)
        return np.asarray(distance + 4 * len(sizes) * _shortfall(part, sizes))

    part = chosen @ counts
    while True:
        moved = part + np.where(chosen[:, None], -counts, counts)
        costs = cost(moved)
        best = int(costs.argmin())
        # The margin keeps rounding errors from moving a group back and forth for ever.
        if costs[best] >= cost(part) - 1e-12:
            return chosen
        chosen[best] = ~chosen[best]
        part = moved[best]


def _shortfall(part: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return how many samples are missing to the minimum of each class on both sides."""
    return np.asarray((np.maximum(_MINIMUM - part, 0) + np.maximum(_MINIMUM - (sizes - part), 0)).sum(-1))
