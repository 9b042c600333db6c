"""How well class probabilities fit labels: scores as functions of sample weights, and a report with intervals.

Scores take weights, so that a bootstrap or a jackknife computes all its resamples at once. Each metric has one name:
`accuracy`, `balanced_accuracy`, `auroc`, `macro_f1`, and `recall/<class>` and `precision/<class>` of each class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from condgan.devices import plain_defaults
from condgan.stats.estimates import (
    Estimate,
    Groups,
    bootstrap_replicates,
    logit_limits,
    off_the_boundary,
    percentile_estimate,
)

_T = TypeVar("_T")

Labels = Tensor | np.ndarray | Sequence[int]
"""Integers, one per sample."""

OVERALL_METRICS = ("accuracy", "balanced_accuracy", "auroc", "macro_f1")
"""Names of the metrics that are not those of one class."""


def recall_of(class_name: str) -> str:
    """Return the name of the metric that is the recall of a class."""
    return f"recall/{class_name}"


def precision_of(class_name: str) -> str:
    """Return the name of the metric that is the precision of a class."""
    return f"precision/{class_name}"


@dataclass(frozen=True, slots=True)
class DecisionScores:
    """Scores of decisions, one for each row of weights.

    Args:
        accuracy: Share of correct decisions.
        balanced_accuracy: Mean recall of the classes; 1/K for a constant decision.
        macro_f1: Mean over the classes of the harmonic mean of recall and precision.
        recall: Recall of each class.
        precision: Precision of each class; 0 for a class that is never predicted.

    Shape:
        - `accuracy`, `balanced_accuracy`, `macro_f1`: `(*)`, float64.
        - `recall`, `precision`: `(K, *)`, float64.
    """

    accuracy: Tensor
    balanced_accuracy: Tensor
    macro_f1: Tensor
    recall: Tensor
    precision: Tensor

    def by_name(self, class_names: Sequence[str]) -> dict[str, Tensor]:
        """Return the scores by the names of their metrics."""
        overall = {name: getattr(self, name) for name in OVERALL_METRICS if name != "auroc"}
        return overall | _by_class(class_names, self.recall, self.precision)


@dataclass(frozen=True, slots=True)
class ThresholdReport:
    """Two-class metrics where an image counts as class 1 if its probability reaches a threshold.

    Args:
        threshold: The threshold, fixed beforehand on other images.
        accuracy: Share of correct decisions.
        balanced_accuracy: Mean recall of the classes.
        recall: Recall of each class, in label order.
    """

    threshold: float
    accuracy: Estimate
    balanced_accuracy: Estimate
    recall: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Quality of a classifier on a test set; intervals are percentiles of the bootstrap over groups.

    The decision is the most probable class, the lowest label of equally probable ones.

    Args:
        class_names: Names of the classes, in label order.
        samples: Number of test samples N.
        groups: Number of groups (patients) they come from.
        accuracy: Share of correct decisions.
        balanced_accuracy: Mean recall of the classes; 1/K for a constant decision.
        auroc: Area under the receiver operating characteristic, see `auroc`.
        macro_f1: Mean over the classes of the harmonic mean of recall and precision.
        recall: Recall of each class.
        precision: Precision of each class; 0 for a class that is never predicted.
        confusion: Counts, one row per true class and one column per predicted class.
        at_threshold: Metrics at a given threshold, for two classes; None if none was given.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.
    """

    class_names: tuple[str, ...]
    samples: int
    groups: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    auroc: Estimate
    macro_f1: Estimate
    recall: tuple[Estimate, ...]
    precision: tuple[Estimate, ...]
    confusion: tuple[tuple[int, ...], ...]
    at_threshold: ThresholdReport | None
    resamples: int
    seed: int

    @property
    def metrics(self) -> dict[str, Estimate]:
        """All metrics by name."""
        return {name: getattr(self, name) for name in OVERALL_METRICS} | _by_class(
            self.class_names, self.recall, self.precision
        )


@plain_defaults()
def classification_report(
    probabilities: Tensor | np.ndarray,
    labels: Labels,
    *,
    groups: Groups | None = None,
    class_names: Sequence[str] | None = None,
    threshold: float | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> ClassificationReport:
    r"""Compute every classification metric with intervals over groups.

    All metrics share their resamples. A resample in which a class does not occur is left out of the intervals of the
    metrics that need this class. A metric that is 0 or 1 in all resamples gets the interval of `logit_limits` around
    the value of `off_the_boundary`, with n - 1 degrees of freedom. Here n is the number of groups that the metric rests
    on: those of the class for a recall, those with samples predicted as the class for a precision, else all. For a
    score of 1 on 50 groups the 95 % interval is [0.85, 0.9994].

    Args:
        probabilities: Class probabilities of each sample.
        labels: True labels; every class must occur.
        groups: The group (patient) of each sample. By default each sample is its own.
        class_names: Names of the classes. By default their labels, as strings.
        threshold: For two classes: also report the metrics where class 1 is predicted from this probability on. Fix it
            on validation images (see `best_threshold`), never on these.
        resamples: Number of bootstrap resamples.
        level: Nominal coverage of the intervals.
        seed: Seed of the bootstrap.

    Shape:
        - `probabilities`: `(N, K)`, in [0, 1], rows add up to 1.
        - `labels`, `groups`: `(N,)`, int64.

    Raises:
        ValueError: If shapes or values do not fit, a class does not occur, or a threshold is given for more than two
            classes.

    Examples:
        >>> p = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
        >>> report = classification_report(p, [0, 0, 1, 1])
        >>> report.accuracy.value, report.metrics["auroc"].value, report.confusion
        (0.75, 1.0, ((1, 1), (0, 2)))
    """
    p, y = check_probabilities(probabilities, labels)
    k = p.shape[1]
    names, g = _check_report_arguments(y, k, groups, class_names, threshold)
    decisions = p.argmax(1)
    decided_at = None if threshold is None else (p[:, 1] >= threshold).long()

    def rows(decided: Tensor, weights: Tensor) -> list[Tensor]:
        scores = decision_scores(decided, y, k, weights)
        return [scores.accuracy, scores.balanced_accuracy, scores.macro_f1, *scores.recall, *scores.precision]

    def statistics(weights: Tensor) -> Tensor:
        found = [auroc(p, y, weights=weights), *rows(decisions, weights)]
        return torch.stack(found if decided_at is None else [*found, *rows(decided_at, weights)])

    everyone = torch.ones_like(y, dtype=torch.bool)

    def rests_on(decided: Tensor) -> list[Tensor]:
        return [everyone] * 3 + [y == c for c in range(k)] + [decided == c for c in range(k)]

    members = [everyone, *rests_on(decisions), *(rests_on(decided_at) if decided_at is not None else [])]
    value, replicates = bootstrap_replicates(statistics, g, resamples=resamples, seed=seed)
    auroc_estimate, accuracy, balanced, macro_f1, *rest = (
        _metric_estimate(float(v), r, len(g[m].unique()), level)
        for v, r, m in zip(value, replicates, members, strict=True)
    )
    by_class, at = rest[: 2 * k], rest[2 * k :]
    return ClassificationReport(
        class_names=names,
        samples=len(y),
        groups=len(g.unique()),
        accuracy=accuracy,
        balanced_accuracy=balanced,
        auroc=auroc_estimate,
        macro_f1=macro_f1,
        recall=tuple(by_class[:k]),
        precision=tuple(by_class[k:]),
        confusion=tuple(tuple(map(int, row)) for row in confusion_matrix(decisions, y, num_classes=k)),
        at_threshold=None if threshold is None else ThresholdReport(threshold, at[0], at[1], tuple(at[3 : 3 + k])),
        resamples=resamples,
        seed=seed,
    )


def score_functions(labels: Labels, class_names: Sequence[str]) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return the metrics by name, as functions of probabilities `(N, K)` and weights `(R, N)`.

    They are what `seed_interval` and `paired_difference` take.

    Args:
        labels: True labels.
        class_names: Names of the K classes.

    Shape:
        - `labels`: `(N,)`, int64 in `[0, K)`.

    Examples:
        >>> scores = score_functions([0, 0, 1, 1], ["normal", "ill"])
        >>> p = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
        >>> float(scores["recall/normal"](p, torch.ones(1, 4)))
        0.5
    """
    y, names = check_labels("labels", labels, len(class_names)), tuple(class_names)

    def of_decisions(metric: str) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda p, weights: decision_scores(p.argmax(1), y, len(names), weights).by_name(names)[metric]

    return {
        metric: (lambda p, weights: auroc(p, y, weights=weights)) if metric == "auroc" else of_decisions(metric)
        for metric in (*OVERALL_METRICS, *_by_class(names, names, names))
    }


def decision_scores(decisions: Tensor, y: Tensor, num_classes: int, weights: Tensor) -> DecisionScores:
    r"""Score decisions, for each row of weights.

    With weighted counts $n_{ij}$ of samples of class i that were predicted as j, and $n_{i\cdot}$ and $n_{\cdot j}$
    their sums,

    $$ \mathrm{recall}_k = \frac{n_{kk}}{n_{k\cdot}}, \qquad \mathrm{precision}_k = \frac{n_{kk}}{n_{\cdot k}}, \qquad
       F_{1,k} = \frac{2 n_{kk}}{n_{k\cdot} + n_{\cdot k}}; $$

    the balanced accuracy is the mean recall, macro F1 the mean of the $F_{1,k}$. The precision of a class that is never
    predicted is 0.

    Args:
        decisions: Predicted classes.
        y: Labels.
        num_classes: Number of classes K.
        weights: How often each sample counts, one row for each resample.

    Shape:
        - `decisions`, `y`: `(N,)`, int64 in `[0, K)`; `weights`: `(*, N)`.

    Raises:
        ValueError: If labels or weights do not fit, see `confusion_matrix`.

    Examples:
        >>> scores = decision_scores(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2, torch.ones(1, 3))
        >>> float(scores.balanced_accuracy), scores.recall[:, 0].tolist()
        (0.75, [0.5, 1.0])
    """
    confusion = confusion_matrix(decisions, y, num_classes=num_classes, weights=weights)
    right, of_class, decided = confusion.diagonal(dim1=-2, dim2=-1), confusion.sum(-1), confusion.sum(-2)
    recall = right / of_class
    return DecisionScores(
        accuracy=right.sum(-1) / of_class.sum(-1),
        balanced_accuracy=recall.mean(-1),
        macro_f1=(2 * right / (of_class + decided)).mean(-1),
        recall=recall.movedim(-1, 0),
        precision=(right / decided).nan_to_num(0.0).movedim(-1, 0),
    )


@plain_defaults()
def auroc(probabilities: Tensor | np.ndarray, labels: Labels, *, weights: Tensor | None = None) -> Tensor:
    r"""Area under the receiver operating characteristic.

    For two classes, the chance that a sample of class 1 has the higher probability of class 1 than a sample of
    class 0, ties counted half (the Mann-Whitney statistic):

    $$\frac{\sum_{i: y_i = 1} \sum_{j: y_j = 0} w_i w_j \left([p_i > p_j] + \tfrac12 [p_i = p_j]\right)}
    {\sum_{i: y_i = 1} w_i \sum_{j: y_j = 0} w_j}$$

    For more classes, the unweighted mean of the areas of each class against the rest. The scores are sorted once,
    whatever the number of weights.

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
    positives = (weights * positive).cumsum(-1)[..., last_of_ties]
    negatives = (weights * ~positive).cumsum(-1)[..., last_of_ties]
    zero = torch.zeros_like(positives[..., :1])
    # a positive beats the negatives below its tied block, and half of those inside
    pairs = positives.diff(dim=-1, prepend=zero) * (negatives - negatives.diff(dim=-1, prepend=zero) / 2)
    return pairs.sum(-1) / (positives[..., -1] * negatives[..., -1])


@plain_defaults()
def confusion_matrix(decisions: Labels, labels: Labels, *, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """Count samples by true class (rows) and predicted class (columns).

    Args:
        decisions: Predicted classes.
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


@plain_defaults()
def best_threshold(probability: Tensor | np.ndarray, labels: Labels) -> float:
    """Return the threshold on the probability of class 1 with the highest balanced accuracy.

    Candidates are 0, 0.5 and the midpoints between neighbouring probabilities; of equally good ones, the nearest to
    0.5 is returned. Choose it on validation images and evaluate it on others.

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
        ValueError: If they are not a vector of integers in `[0, num_classes)`.
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
        ValueError: If shapes differ, or rows are not probabilities.
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


def _by_class(class_names: Sequence[str], recall: Iterable[_T], precision: Iterable[_T]) -> dict[str, _T]:
    recalls = {recall_of(name): value for name, value in zip(class_names, recall, strict=True)}
    return recalls | {precision_of(name): value for name, value in zip(class_names, precision, strict=True)}


def _metric_estimate(value: float, replicates: Tensor, groups: int, level: float) -> Estimate:
    """Return a metric with its interval; `groups` is the number of groups that it rests on."""
    found = percentile_estimate(value, replicates, level=level)
    if found.low < found.high or value not in (0, 1) or not groups:
        return found
    low, high = logit_limits(*off_the_boundary(value, 0.0, groups), max(groups - 1, 1), alpha=1 - level)
    return Estimate(value, float(low), float(high), level)


def _check_report_arguments(
    y: Tensor, k: int, groups: Groups | None, class_names: Sequence[str] | None, threshold: float | None
) -> tuple[tuple[str, ...], Tensor]:
    names = tuple(map(str, range(k))) if class_names is None else tuple(class_names)
    if len(names) != k:
        raise ValueError(f"class_names must name {k} classes, one for each column, got {len(names)}: {names}.")
    absent = [name for name, count in zip(names, torch.bincount(y, minlength=k), strict=True) if not count]
    if absent:
        raise ValueError(
            f"every class must occur among the labels, got no samples of {', '.join(absent)}. Add samples of it, or "
            "drop its column and rescale the others."
        )
    if threshold is not None and k != 2:
        raise ValueError(
            f"a threshold needs two classes, got {k}. Leave it out: the most probable class is then predicted."
        )
    g = torch.arange(len(y)) if groups is None else torch.as_tensor(groups).cpu()
    if g.shape != y.shape:
        raise ValueError(f"groups must have the shape {tuple(y.shape)}, one for each sample, got {tuple(g.shape)}.")
    return names, g
