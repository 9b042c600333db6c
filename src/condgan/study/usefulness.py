"""What generated images are good for, beside the scores of the arms."""

from __future__ import annotations

import torch

from condgan.data.dataset import ArrayDataset
from condgan.metrics import ClassificationReport, Estimate
from condgan.study.classifier import Classifier


def gan_test(
    classifier: Classifier, generated: ArrayDataset, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> ClassificationReport:
    """Let a classifier that was trained on real images judge generated ones (GAN-test).

    A recall far below that on real test images says that images of this class do not show it; one above it, that they
    exaggerate it or repeat training images. Whether a class is varied it does not tell: a generator that makes one
    good image of each gets full marks. Read it beside the arms that train on generated images.

    Args:
        classifier: A classifier trained on real images only.
        generated: Generated images with the labels that they were asked for.
        resamples: Number of bootstrap resamples.
        level: Nominal coverage of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        Recall of each class, balanced accuracy and the rest. Intervals are over the images of this one generator.

    Raises:
        ValueError: If classes or image shape are not those of the training.

    References:
        Shmelkov et al. 2018, arXiv:1807.09499.
    """
    return classifier.evaluate(generated, resamples=resamples, level=level, seed=seed)


def relative_usefulness(synthetic: Estimate, real: Estimate, *, chance: float) -> float:
    r"""Return how much of what real images teach is learned from generated ones.

    $$\frac{s_\text{synthetic} - s_\text{chance}}{s_\text{real} - s_\text{chance}}$$

    It is 1 if generated images are as good as real ones, 0 if they teach nothing, and may lie outside.

    Args:
        synthetic: Score of the arm in question.
        real: The same score of the arm with real images only.
        chance: The score of guessing: 1/K for balanced accuracy, 1/2 for AUROC.

    Raises:
        ValueError: If the interval of the real score reaches down to chance: the ratio could then be anything.

    Examples:
        >>> relative_usefulness(Estimate(0.8, 0.75, 0.85), Estimate(0.9, 0.87, 0.93), chance=0.5)
        0.75...
    """
    if not real.low > chance:
        raise ValueError(
            f"the interval of the real score must lie above chance, {chance:g}, got {real}. Real images taught the "
            "classifier nothing that could be told from chance: train it for longer or on more images."
        )
    return (synthetic.value - chance) / (real.value - chance)


def keep_patients(data: ArrayDataset, label: int, percent: float, *, seed: int = 0) -> ArrayDataset:
    """Return the data with a share of one class's patients, to make this class rare.

    Patients of the class are put in an order that follows from the seed, and the first of them are kept: who is kept
    at some percentage is kept at every larger one. Of the others, the images of this class are dropped; images of
    other classes all stay.

    Args:
        data: Labeled images. Without groups, each image counts as a patient.
        label: The class.
        percent: Share of its patients to keep, rounded to whole patients, at least one.
        seed: Seed of the order.

    Raises:
        ValueError: If `label` is no class, `percent` is not in (0, 100], or fewer than two images of the class remain.

    Examples:
        >>> images = torch.zeros(12, 1, 8, 8, dtype=torch.uint8)
        >>> data = ArrayDataset(images, [0] * 4 + [1] * 8, groups=torch.arange(12) // 2)
        >>> [keep_patients(data, 1, percent).class_counts for percent in (25, 50, 100)]
        [(4, 2), (4, 4), (4, 8)]
    """
    if not 0 <= label < data.num_classes or not 0 < percent <= 100:
        raise ValueError(
            f"label must lie in [0, {data.num_classes}) and percent in (0, 100], got {label} and {percent}. For a "
            "tenth of the patients pass 10."
        )
    of_class = data.labels == label
    owners = torch.arange(len(data)) if data.groups is None else data.groups
    patients = owners[of_class].unique()
    order = torch.randperm(len(patients), generator=torch.Generator().manual_seed(seed))
    kept = patients[order[: max(1, round(len(patients) * percent / 100))]]
    remaining = ~of_class | torch.isin(owners, kept)
    left = int((of_class & remaining).sum())
    if left < 2:
        raise ValueError(
            f"at least two images of class {data.class_names[label]!r} must remain, got {left} with percent={percent} "
            f"of {len(patients)} patients. Keep more of them."
        )
    return data.subset(remaining.nonzero().flatten())
