"""Classification scores as functions of sample weights, so that a bootstrap computes all its resamples at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Labels = Tensor | np.ndarray | Sequence[int]
"""Integers, one a sample."""


def auroc(probabilities: Tensor | np.ndarray, labels: Labels, *, weights: Tensor | None = None) -> Tensor:
    r"""Area under the receiver operating characteristic.

    For two classes, the chance that a sample of class 1 has the higher probability of class 1 than a sample of
    class 0, ties counted half (the Mann-Whitney statistic):

    $$\frac{\sum_{i: y_i = 1} \sum_{j: y_j = 0} w_i w_j \left([p_i > p_j] + \tfrac12 [p_i = p_j]\right)}
    {\sum_{i: y_i = 1} w_i \sum_{j: y_j = 0} w_j}$$

    For more, the plain mean of the areas of each class against the rest. The cost is one sort, whatever the number
    of weights.

    Args:
        probabilities: Class probabilities of each sample.
        labels: True labels.
        weights: How often each sample counts; once by default.

    Shape:
        - `probabilities`: `(N, K)`, in [0, 1], rows add up to 1.
        - `labels`: `(N,)`, int64.
        - `weights`: `(*, N)`.
        - Returns: `(*)`, float64; NaN where a class has no weight.

    Raises:
        ValueError: If shapes or values do not fit.

    Examples:
        >>> float(auroc(torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.5, 0.5]]), [0, 0, 1]))
        0.75

    References:
        Hanley and McNeil 1982 (the area as a probability); Hand and Till 2001 discuss averages over classes.
    """
    p, y = check_probabilities(probabilities, labels)
    w = torch.ones(len(y), dtype=torch.float64) if weights is None else weights.cpu().double()
    classes = [1] if p.shape[1] == 2 else range(p.shape[1])
    return torch.stack([_area(p[:, c], y == c, w) for c in classes]).mean(0)


def _area(score: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    score, order = score.sort()
    last_of_ties = torch.cat([score.diff() != 0, torch.ones(1, dtype=torch.bool)])
    weights, positive = weights[..., order], positive[order]
    ill = (weights * positive).cumsum(-1)[..., last_of_ties]
    well = (weights * ~positive).cumsum(-1)[..., last_of_ties]
    zero = torch.zeros_like(ill[..., :1])
    # a positive beats the negatives below its tied block, and half of those inside
    pairs = ill.diff(dim=-1, prepend=zero) * (well - well.diff(dim=-1, prepend=zero) / 2)
    return pairs.sum(-1) / (ill[..., -1] * well[..., -1])


def confusion_matrix(decisions: Labels, labels: Labels, *, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """Count samples by true class (rows) and decided class (columns).

    Args:
        decisions: The class decided for.
        labels: True labels.
        num_classes: Number of classes K.
        weights: How often each sample counts; once by default.

    Shape:
        - `decisions`, `labels`: `(N,)`, int64 in `[0, K)`.
        - `weights`: `(*, N)`.
        - Returns: `(*, K, K)`, float64.

    Raises:
        ValueError: If shapes or values do not fit.

    Examples:
        >>> confusion_matrix([0, 1, 1], [0, 0, 1], num_classes=2).int().tolist()
        [[1, 1], [0, 1]]
    """
    y = check_labels("labels", labels, num_classes)
    decided = check_labels("decisions", decisions, num_classes)
    if decided.shape != y.shape:
        raise ValueError(f"decisions must have the shape of labels, {tuple(y.shape)}, got {tuple(decided.shape)}.")
    w = torch.ones(len(y), dtype=torch.float64) if weights is None else weights.cpu().double()
    cells = torch.nn.functional.one_hot(y * num_classes + decided, num_classes**2).double()
    return (w @ cells).reshape(*w.shape[:-1], num_classes, num_classes)


def best_threshold(probability: Tensor | np.ndarray, labels: Labels) -> float:
    """Return the threshold on the probability of class 1 with the highest balanced accuracy.

    Candidates are 0, 0.5 and the midpoints between neighbouring probabilities; of equally good ones, the nearest to
    0.5. Choose it on validation images and judge it on others.

    Args:
        probability: Probability of class 1.
        labels: True labels, 0 or 1.

    Shape:
        - `probability`: `(N,)`, in [0, 1].
        - `labels`: `(N,)`, int64.

    Raises:
        ValueError: If shapes or values do not fit, or one of the two classes does not occur.

    Examples:
        >>> best_threshold(torch.tensor([0.1, 0.2, 0.4, 0.9]), [0, 0, 1, 1])
        0.30000000447034836
    """
    p1 = torch.as_tensor(probability).cpu().double()
    p, y = check_probabilities(torch.stack([1 - p1, p1], -1), labels)
    counts = torch.bincount(y, minlength=2)
    if not counts.all():
        raise ValueError(f"both classes must occur among the labels, got {counts.tolist()} samples. Add images.")
    levels = torch.from_numpy(np.unique(p[:, 1].numpy()))
    candidates = torch.cat([(levels[1:] + levels[:-1]) / 2, torch.tensor([0.5, 0.0], dtype=torch.float64)])
    below = [torch.searchsorted(p[y == c, 1].sort().values, candidates).double() / counts[c] for c in (0, 1)]
    balanced = (below[0] + 1 - below[1]) / 2
    best = candidates[balanced >= balanced.max() - 1e-12]
    return float(best[(best - 0.5).abs().argmin()])


def check_labels(name: str, values: Labels, num_classes: int) -> Tensor:
    """Return labels as an int64 tensor on the CPU.

    Raises:
        ValueError: If they are no vector of integers in `[0, num_classes)`.
    """
    y = torch.as_tensor(values).cpu()
    if y.ndim != 1 or not len(y) or y.is_floating_point() or y.is_complex():
        raise ValueError(f"{name} must be integers of the shape (N,), got {y.dtype} of the shape {tuple(y.shape)}.")
    y = y.to(torch.int64)
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{name} must have values in [0, {num_classes}), got values in [{low}, {high}]. Labels start at 0, and "
            "there is one column of probabilities for each class."
        )
    return y


def check_probabilities(probabilities: Tensor | np.ndarray, labels: Labels) -> tuple[Tensor, Tensor]:
    """Return probabilities as float64 and labels as int64, on the CPU.

    Raises:
        ValueError: If shapes differ, or rows are no probabilities.
    """
    p = torch.as_tensor(probabilities).detach().cpu().double()
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(
            f"probabilities must have the shape (N, K) with at least two classes, got {tuple(p.shape)}. For one "
            "probability p of class 1, pass torch.stack([1 - p, p], 1)."
        )
    y = check_labels("labels", labels, p.shape[1])
    if len(p) != len(y):
        raise ValueError(f"probabilities and labels must be equally many, got {len(p)} and {len(y)}.")
    # also catches NaN; 1e-2 leaves room for probabilities of reduced precision
    if not bool(((p >= 0) & (p <= 1)).all() and ((p.sum(1) - 1).abs() < 1e-2).all()):
        raise ValueError(
            f"probabilities must lie in [0, 1] with rows that add up to 1, got values in [{p.min():.4g}, "
            f"{p.max():.4g}] and sums in [{p.sum(1).min():.4g}, {p.sum(1).max():.4g}]. Apply a softmax to logits first."
        )
    return p, y
