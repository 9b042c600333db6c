"""How well class probabilities fit labels, with intervals over patients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgan.metrics.limits import limits_without_spread
from condgan.metrics.scores import Labels, auroc, check_probabilities, confusion_matrix
from condgan.metrics.statistics import Estimate, group_weights, percentile_estimate


@dataclass(frozen=True, slots=True)
class ThresholdReport:
    """Two-class metrics where an image counts as class 1 if its probability reaches a threshold.

    Args:
        threshold: The threshold, fixed beforehand on other images.
        accuracy: Share of right decisions.
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

    Decisions are the most probable class, the lowest such label at equal probabilities.

    Args:
        class_names: Names of the classes, in label order.
        samples: Number of test samples N.
        groups: Number of groups (patients) they come from.
        accuracy: Share of right decisions.
        balanced_accuracy: Mean recall of the classes; 1/K for a constant decision.
        auroc: Area under the receiver operating characteristic, see `auroc`.
        macro_f1: Mean over the classes of the harmonic mean of recall and precision.
        recall: Recall of each class.
        precision: Precision of each class; 0 for a class that is never decided for.
        confusion: Counts, one row a true class and one column a decided class.
        at_threshold: The same at a given threshold, for two classes; None if none was given.
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

    def as_dict(self) -> dict[str, Any]:
        """Return everything as nested dictionaries and lists, ready for JSON; class names key the per-class values."""
        return {
            "class_names": list(self.class_names),
            "samples": self.samples,
            "groups": self.groups,
            "resamples": self.resamples,
            "seed": self.seed,
            "accuracy": self.accuracy.as_dict(),
            "balanced_accuracy": self.balanced_accuracy.as_dict(),
            "auroc": self.auroc.as_dict(),
            "macro_f1": self.macro_f1.as_dict(),
            "recall": self._by_class(self.recall),
            "precision": self._by_class(self.precision),
            "confusion": [list(row) for row in self.confusion],
            "at_threshold": None
            if self.at_threshold is None
            else {
                "threshold": self.at_threshold.threshold,
                "accuracy": self.at_threshold.accuracy.as_dict(),
                "balanced_accuracy": self.at_threshold.balanced_accuracy.as_dict(),
                "recall": self._by_class(self.at_threshold.recall),
            },
        }

    def _by_class(self, estimates: Iterable[Estimate]) -> dict[str, dict[str, float]]:
        return {name: estimate.as_dict() for name, estimate in zip(self.class_names, estimates, strict=True)}


def classification_report(
    probabilities: Tensor | np.ndarray,
    labels: Labels,
    *,
    groups: Labels | None = None,
    class_names: Sequence[str] | None = None,
    threshold: float | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> ClassificationReport:
    """Compute every classification metric with intervals over groups.

    All metrics share their resamples. A resample in which a class does not occur is left out of the intervals of the
    metrics that need this class. Where a metric is 0 or 1 in all resamples, the interval is the one of Clopper and
    Pearson 1934 for the groups that it rests on: those of the class for its recall, those of samples decided for the
    class for its precision, else all. It is about 3.7 / groups long at 95 %.

    Args:
        probabilities: Class probabilities of each sample.
        labels: True labels; every class must occur.
        groups: The group (patient) of each sample. By default each sample is its own.
        class_names: Names of the classes. By default their labels, as strings.
        threshold: For two classes: also decide for class 1 where its probability is at least this. Fix it on
            validation images (see `best_threshold`), never on these.
        resamples: Number of bootstrap resamples.
        level: Nominal coverage of the intervals.
        seed: Seed of the bootstrap.

    Shape:
        - `probabilities`: `(N, K)`, in [0, 1], rows add up to 1.
        - `labels`, `groups`: `(N,)`, int64.

    Raises:
        ValueError: If shapes or values do not fit, a class does not occur, or a threshold meets more than two classes.

    Examples:
        >>> p = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
        >>> report = classification_report(p, [0, 0, 1, 1])
        >>> report.accuracy.value, report.auroc.value, report.confusion
        (0.75, 1.0, ((1, 1), (0, 2)))
    """
    p, y = check_probabilities(probabilities, labels)
    k = p.shape[1]
    names, g = _check(y, k, groups, class_names, threshold)

    decided = {"": p.argmax(1)}
    if threshold is not None:
        decided[" at threshold"] = (p[:, 1] >= threshold).long()

    def statistics(weights: Tensor) -> dict[str, Tensor]:
        found = {"auroc": auroc(p, y, weights=weights)}
        for when, decisions in decided.items():
            scores = decision_scores(decisions, y, k, weights)
            found |= {name + when: values for name, values in scores.items()}
        return found

    value = statistics(torch.ones(1, len(y), dtype=torch.float64))
    blocks = [statistics(weights) for weights in group_weights(g, resamples=resamples, seed=seed)]
    rests_on = {f"recall {c}{when}": y == c for when in decided for c in range(k)}
    rests_on |= {f"precision {c}{when}": decisions == c for when, decisions in decided.items() for c in range(k)}
    estimate = {
        name: _estimate(
            float(value[name]), torch.cat([block[name] for block in blocks]), g[rests_on.get(name, ...)], level
        )
        for name in value
    }
    at_threshold = None
    if threshold is not None:
        at_threshold = ThresholdReport(
            threshold=threshold,
            accuracy=estimate["accuracy at threshold"],
            balanced_accuracy=estimate["balanced accuracy at threshold"],
            recall=tuple(estimate[f"recall {c} at threshold"] for c in range(k)),
        )
    confusion = confusion_matrix(p.argmax(1), y, num_classes=k)
    return ClassificationReport(
        class_names=names,
        samples=len(y),
        groups=len(np.unique(g.numpy())),
        accuracy=estimate["accuracy"],
        balanced_accuracy=estimate["balanced accuracy"],
        auroc=estimate["auroc"],
        macro_f1=estimate["macro F1"],
        recall=tuple(estimate[f"recall {c}"] for c in range(k)),
        precision=tuple(estimate[f"precision {c}"] for c in range(k)),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        at_threshold=at_threshold,
        resamples=resamples,
        seed=seed,
    )


def decision_scores(decisions: Tensor, y: Tensor, num_classes: int, weights: Tensor) -> dict[str, Tensor]:
    r"""Return `accuracy`, `balanced accuracy`, `macro F1`, and `recall k` and `precision k` of each class k.

    With weighted counts $n_{ij}$ of samples of class i that were decided to be j, $n_{i\cdot}$ and $n_{\cdot j}$ their
    sums,

    $$ \mathrm{recall}_k = \frac{n_{kk}}{n_{k\cdot}}, \qquad \mathrm{precision}_k = \frac{n_{kk}}{n_{\cdot k}}, \qquad
       F_{1,k} = \frac{2 n_{kk}}{n_{k\cdot} + n_{\cdot k}}; $$

    the balanced accuracy is the mean recall, macro F1 the mean of the $F_{1,k}$. The precision of a class that nobody
    decided for is 0.

    Args:
        decisions: Decided classes.
        y: Labels.
        num_classes: Number of classes K.
        weights: How often each sample counts, one row for each resample.

    Shape:
        - `decisions`, `y`: `(N,)`, int64 in `[0, K)`; `weights`: `(R, N)`. Each score: `(R,)`.

    Raises:
        ValueError: If labels or weights do not fit, see `confusion_matrix`.
    """
    confusion = confusion_matrix(decisions, y, num_classes=num_classes, weights=weights)
    right, of_class, decided = confusion.diagonal(dim1=-2, dim2=-1), confusion.sum(-1), confusion.sum(-2)
    recall = right / of_class
    precision = (right / decided).nan_to_num(0.0)
    f1 = 2 * right / (of_class + decided)
    scores = {
        "accuracy": right.sum(-1) / of_class.sum(-1),
        "balanced accuracy": recall.mean(-1),
        "macro F1": f1.mean(-1),
    }
    for c in range(num_classes):
        scores |= {f"recall {c}": recall[..., c], f"precision {c}": precision[..., c]}
    return scores


def _estimate(value: float, resampled: Tensor, groups: Tensor, level: float) -> Estimate:
    """Return a metric with its interval; `groups` are those of the samples that it rests on."""
    found = percentile_estimate(value, resampled, level=level)
    if found.low == found.high and value in (0, 1) and len(groups):
        low, _, high = limits_without_spread(value, len(groups.unique()), level)
        return replace(found, low=low, high=high)
    return found


def _check(
    y: Tensor, k: int, groups: Labels | None, class_names: Sequence[str] | None, threshold: float | None
) -> tuple[tuple[str, ...], Tensor]:
    names = tuple(map(str, range(k))) if class_names is None else tuple(class_names)
    if len(names) != k:
        raise ValueError(f"class_names must name {k} classes, one for each column, got {len(names)}: {names}.")
    absent = [name for name, count in zip(names, torch.bincount(y, minlength=k), strict=True) if not count]
    if absent:
        raise ValueError(
            f"every class must occur among the labels, got none of {', '.join(absent)}. Add samples of it, or drop its "
            "column and rescale the others."
        )
    if threshold is not None and k != 2:
        raise ValueError(f"a threshold needs two classes, got {k}. Leave it out: the most probable class is decided.")
    g = torch.arange(len(y)) if groups is None else torch.as_tensor(groups).cpu()
    if g.shape != y.shape:
        raise ValueError(f"groups must have the shape {tuple(y.shape)}, one for each sample, got {tuple(g.shape)}.")
    return names, g
