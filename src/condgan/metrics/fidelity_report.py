"""Scores of generated images, the same scores of real training images, and the differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from condgan.data.dataset import check_same_classes
from condgan.devices import plain_defaults
from condgan.files import check_names
from condgan.metrics.extractors import CrossFit, Extractor, ExtractorInfo, Fold, ImagesInfo
from condgan.metrics.fidelity import (
    Deviations,
    Score,
    Setting,
    combine_deviations,
    density_coverage,
    fid,
    fid_influence,
    group_deviations,
    inception_influence,
    inception_score,
    kid,
    kid_influence,
    neighborhood_deviations,
    normal_interval,
    precision_recall,
)
from condgan.stats import Estimate
from condgan.stats.estimates import check_level
from condgan.types import JudgedImages

FIDELITY_METRICS = ("kid", "fid", "neighborhoods", "inception_score")
"""What `fidelity_report` can compute."""

_NARROW, _WIDE = 3, 5  # neighborhoods of precision and recall, and of density and coverage
_BLOCKS = 10  # of groups, for the jackknife
LEAST_IMAGES = 20  # images per class and side: neighborhoods of five must remain when a tenth is left out


@dataclass(frozen=True, slots=True)
class FidelityComparison:
    """A score of generated images and the same score of as many real training images.

    Args:
        generated: Generated images against the real test images.
        floor: Real training images against the same test images: the score of a perfect generator.
        difference: `generated` minus `floor`, with an interval over the groups of all three sets.
    """

    generated: Score
    floor: Score
    difference: Estimate


@dataclass(frozen=True, slots=True)
class FidelitySettings:
    """Everything that a `FidelityReport` depends on: arguments of `fidelity_report`, and the images.

    Args:
        metrics: The requested metrics.
        kid_subset_size: Largest number of images in a subset of the KID.
        kid_subsets: Number of subsets.
        folds: Number of cross-fitted extractors; 1 for one that has not seen the images.
        jackknife_blocks: Number of blocks of groups.
        level: Nominal coverage of the intervals.
        seed: Seed of all random draws.
        generated: The generated images.
        train: The training images.
        test: The test images.
    """

    metrics: tuple[str, ...]
    kid_subset_size: int
    kid_subsets: int
    folds: int
    jackknife_blocks: int
    level: float
    seed: int
    generated: ImagesInfo
    train: ImagesInfo
    test: ImagesInfo


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """Scores of generated images and their floors, over all classes and for each class.

    Args:
        extractor: The network of the features.
        overall: Comparisons by score, over images of all classes in the proportions of the test set.
        per_class: The same within each class, by class name.
        settings: Everything that the numbers depended on.
    """

    extractor: ExtractorInfo
    overall: dict[str, FidelityComparison]
    per_class: dict[str, dict[str, FidelityComparison]]
    settings: FidelitySettings


@plain_defaults()
def fidelity_report(
    generated: JudgedImages,
    train: JudgedImages,
    test: JudgedImages,
    extractor: Extractor | CrossFit,
    *,
    metrics: Sequence[str] = FIDELITY_METRICS,
    kid_subset_size: int = 1000,
    kid_subsets: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> FidelityReport:
    """Compare generated images with real test images, and real training images with the same test images.

    The reference is always the test set: a generator that repeats its training images is no better than the floor, and
    one whose images are as good as real ones has a difference of 0, even if the test set is shifted against the
    training set. Most scores depend on the number of images, so as many generated as training images are drawn of each
    class; over all classes, as many of each as keep the proportions of the test set.

    With cross-fitted extractors each fold compares the training images that its network has not seen, and an equal
    share of the generated ones, with all test images, in the features of its own network. Each training and each
    generated image takes part in one fold at most, and scores are means over the folds. The generator has seen the
    training images of all folds: its copies of these may be images that a network was trained on.

    An interval states how much the difference would vary with other images of the same generator and other patients,
    given the networks. It does not include the variation between trainings of the generator, nor the noise of the KID's
    random subsets. KID, FID and Inception Score use influences summed over groups; the others a jackknife over ten
    blocks of groups, whose intervals are too wide rather than too narrow.

    Args:
        generated: Generated images, uint8, with the labels that they were generated for.
        train: Real images that the generator was trained on.
        test: Real images of other patients, see `condgan.data.check_disjoint`.
        extractor: The network of the features, or networks cross-fitted on `train`.
        metrics: Which to compute: `"kid"`, `"fid"`, `"neighborhoods"` (precision, recall, density and coverage) and
            `"inception_score"`, which is left out if the extractor has no logits. The FID of 2048 features takes tens
            of seconds per comparison.
        kid_subset_size: Largest number of images in a subset of the KID; it is lowered to the number of images.
        kid_subsets: Number of subsets.
        level: Nominal coverage of the intervals.
        seed: Seed of the choice of images, of the KID's subsets, of the blocks and of the Inception Score's splits.

    Raises:
        ValueError: If the sets do not fit each other or the extractor, a class has too few images or groups, or a
            metric is unknown.

    References:
        Naeem et al. 2020, arXiv:2002.09797, and Stein et al. 2023, arXiv:2306.04675, on scores of real images as the
        level to reach.
    """
    _check_arguments(generated, train, test, metrics, level)
    rng = torch.Generator().manual_seed(seed)
    folds = _folds(extractor, train)
    shares = _deal(generated.labels, len(folds), rng)
    groups = [_draw_groups(data, rng) for data in (generated, train, test)]
    rounds: list[list[_Trio]] = []
    for number, (fold, share) in enumerate(zip(folds, shares, strict=True)):
        held_out = fold.held_out[torch.randperm(len(fold.held_out), generator=rng)]
        fake, real, all_test = (
            _by_class(index, data)
            for index, data in ((share, generated), (held_out, train), (torch.arange(len(test.labels)), test))
        )
        counts = [min(len(a), len(b)) for a, b in zip(fake, real, strict=True)]
        _check_counts(counts, test, len(folds))
        sides = [
            _extract(f"generated {number}", generated, _cut(fake, counts), fold.extractor, groups[0]),
            _extract(f"train {number}", train, _cut(real, counts), fold.extractor, groups[1]),
            _extract("test", test, all_test, fold.extractor, groups[2]),
        ]
        mixed = _proportional(counts, test.class_counts)
        overall = _Trio(
            *(_join(parts, sizes) for parts, sizes in zip(sides, (mixed, mixed, test.class_counts), strict=True))
        )
        rounds.append([overall, *map(_Trio, *sides)])
    options = _Options(extractor.info, kid_subset_size, kid_subsets, seed)
    first, *per_class = (_compare(trios, metrics, options, level=level) for trios in zip(*rounds, strict=True))
    return FidelityReport(
        extractor=extractor.info,
        overall=first,
        per_class=dict(zip(test.class_names, per_class, strict=True)),
        settings=FidelitySettings(
            metrics=tuple(metrics),
            kid_subset_size=kid_subset_size,
            kid_subsets=kid_subsets,
            folds=len(folds),
            jackknife_blocks=_BLOCKS,
            level=level,
            seed=seed,
            generated=ImagesInfo.of(generated),
            train=ImagesInfo.of(train),
            test=ImagesInfo.of(test),
        ),
    )


def _folds(extractor: Extractor | CrossFit, train: JudgedImages) -> Sequence[Fold]:
    if isinstance(extractor, Extractor):
        return [Fold(extractor, torch.arange(len(train.labels)))]
    if extractor.fingerprint != train.fingerprint:
        raise ValueError(
            f"the extractors must have been cross-fitted on train, {train.fingerprint}, got some of "
            f"{extractor.fingerprint}. Their networks may have seen these images: fit them on this set."
        )
    return extractor.folds


def _deal(labels: Tensor, count: int, rng: torch.Generator) -> list[Tensor]:
    """Deal the images of each class out to `count` equal shares, at random."""
    order = torch.randperm(len(labels), generator=rng)
    # sorted by class, so that taking every count-th image is fair to each class
    order = order[labels[order].argsort(stable=True)]
    return [order[number::count] for number in range(count)]


def _draw_groups(data: JudgedImages, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the group of each image, and the random block of groups that it is in."""
    names = torch.arange(len(data.labels)) if data.groups is None else data.groups
    groups = torch.unique(names, return_inverse=True)[1]
    blocks = torch.randperm(int(groups.max()) + 1, generator=rng) % _BLOCKS
    return groups, blocks[groups]


def _by_class(index: Tensor, data: JudgedImages) -> list[Tensor]:
    return [index[data.labels[index] == label] for label in range(data.num_classes)]


def _cut(chosen: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    return [index[:count] for index, count in zip(chosen, counts, strict=True)]


def _extract(
    side: str, data: JudgedImages, chosen: Sequence[Tensor], extractor: Extractor, groups: tuple[Tensor, Tensor]
) -> list[_Images]:
    """Extract the features of chosen images, class by class."""
    index = torch.cat(list(chosen))
    features, logits = extractor.extract(data.images[index])
    images = _Images(side, features.double(), logits, *(names[index] for names in groups))
    parts = images.split([len(part) for part in chosen])
    for name, part in zip(data.class_names, parts, strict=True):
        if len(part.features) - int(part.blocks.bincount().max()) < LEAST_IMAGES // 2:
            raise ValueError(
                f"the {len(part.features)} images of class {name} on the side {side.split()[0]!r} must come from "
                f"several groups, got {len(part.groups.unique())}, of which a tenth hold nearly all. An interval over "
                "groups needs more of them: add patients."
            )
    return parts


def _proportional(counts: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return the largest counts below the given ones in the proportions of `sizes`."""
    scale = min(count / size for count, size in zip(counts, sizes, strict=True))
    return [int(scale * size + 1e-9) for size in sizes]


def _check_arguments(
    generated: JudgedImages, train: JudgedImages, test: JudgedImages, metrics: Sequence[str], level: float
) -> None:
    if not metrics:
        raise ValueError(f"metrics must be some of {', '.join(FIDELITY_METRICS)}, got none.")
    check_names("metrics", metrics, FIDELITY_METRICS)
    check_level(level)
    for role, data in (("generated", generated), ("train", train)):
        check_same_classes(role, data, "test", test.class_names, test.image_shape)


def _check_counts(counts: Sequence[int], test: JudgedImages, folds: int) -> None:
    for name, count, size in zip(test.class_names, counts, test.class_counts, strict=True):
        if min(count, size) < LEAST_IMAGES:
            raise ValueError(
                f"every class needs at least {LEAST_IMAGES} generated, training and test images in each fold, got "
                f"{count} generated and training images and {size} test images of {name} with {folds} folds. Generate "
                "more, lower the number of folds, or merge rare classes."
            )


class _Images(NamedTuple):
    """The images of one side of a comparison.

    Shape:
        - `features`: `(N, D)`; `logits`: `(N, K)` or None.
        - `groups`, `blocks`: `(N,)`, int64: the group of each image and the block of groups that it is in.
    """

    side: str
    features: Tensor
    logits: Tensor | None
    groups: Tensor
    blocks: Tensor

    def split(self, sizes: Sequence[int]) -> list[_Images]:
        """Split into parts of these sizes, in order."""
        ends = list(accumulate(sizes, initial=0))
        return [self._rows(slice(*pair)) for pair in pairwise(ends)]

    def first(self, count: int) -> _Images:
        """Return the first `count` images."""
        return self._rows(slice(count))

    def _rows(self, rows: slice) -> _Images:
        logits = None if self.logits is None else self.logits[rows]
        return _Images(self.side, self.features[rows], logits, self.groups[rows], self.blocks[rows])


class _Trio(NamedTuple):
    """The three sides of a comparison."""

    generated: _Images
    train: _Images
    test: _Images


class _Options(NamedTuple):
    """Settings of the scores."""

    info: ExtractorInfo
    kid_subset_size: int
    kid_subsets: int
    seed: int


_Measured = dict[str, tuple[Score, Deviations]]


def _compare(
    trios: Sequence[_Trio], metrics: Iterable[str], options: _Options, *, level: float
) -> dict[str, FidelityComparison]:
    """Compare generated with training images in each fold, and average over the folds.

    The groups of the test images must be the same in all folds; the other sides have one name per fold.

    Raises:
        ValueError: If nothing is left to compute.
    """
    folds = [
        (
            _scores_with_deviations(metrics, trio.generated, trio.test, options),
            _scores_with_deviations(metrics, trio.train, trio.test, options),
        )
        for trio in trios
    ]
    if not folds[0][0]:
        raise ValueError(
            f"the Inception Score needs class logits, which {options.info.name} does not return. Ask for other metrics."
        )
    share = 1 / len(folds)
    comparisons = {}
    for name in folds[0][0]:
        generated = _average([fold[0][name][0] for fold in folds])
        floor = _average([fold[1][name][0] for fold in folds])
        deviations = combine_deviations(
            term for fold in folds for term in ((share, fold[0][name][1]), (-share, fold[1][name][1]))
        )
        difference = normal_interval(generated.value - floor.value, deviations, level=level)
        comparisons[name] = FidelityComparison(generated, floor, difference)
    return comparisons


def _join(parts: Sequence[_Images], counts: Sequence[int]) -> _Images:
    """Return the first images of each part, as many as in `counts`, as one side under the name of the first."""
    cut = [part.first(count) for part, count in zip(parts, counts, strict=True)]
    logits = [part.logits for part in cut if part.logits is not None]
    return _Images(
        cut[0].side,
        torch.cat([part.features for part in cut]),
        torch.cat(logits) if logits else None,
        torch.cat([part.groups for part in cut]),
        torch.cat([part.blocks for part in cut]),
    )


def _scores_with_deviations(metrics: Iterable[str], x: _Images, y: _Images, options: _Options) -> _Measured:
    measured: _Measured = {}
    for metric in metrics:
        measured |= _MEASURES[metric](x, y, options)
    return measured


def _kid(x: _Images, y: _Images, options: _Options) -> _Measured:
    score = kid(
        x.features,
        y.features,
        subset_size=options.kid_subset_size,
        subsets=options.kid_subsets,
        seed=options.seed,
        extractor=options.info,
    )
    return {"kid": (score, _from_influence(x, y, *kid_influence(x.features, y.features)))}


def _fid(x: _Images, y: _Images, options: _Options) -> _Measured:
    score = fid(x.features, y.features, extractor=options.info)
    return {"fid": (score, _from_influence(x, y, *fid_influence(x.features, y.features)))}


def _neighborhoods(x: _Images, y: _Images, options: _Options) -> _Measured:
    scores = [
        *precision_recall(x.features, y.features, neighborhood=_NARROW, extractor=options.info),
        *density_coverage(x.features, y.features, neighborhood=_WIDE, extractor=options.info),
    ]
    by_x, by_y = neighborhood_deviations(
        x.features, y.features, _consecutive(x.blocks), _consecutive(y.blocks), narrow=_NARROW, wide=_WIDE
    )
    return {score.metric: (score, {x.side: by_x[:, i], y.side: by_y[:, i]}) for i, score in enumerate(scores)}


def _inception_score(x: _Images, y: _Images, options: _Options) -> _Measured:
    if x.logits is None:
        return {}
    score = inception_score(x.logits, seed=options.seed, extractor=options.info)
    return {
        "inception_score": (score, {x.side: group_deviations(inception_influence(x.logits), _consecutive(x.groups))})
    }


_MEASURES: dict[str, Callable[[_Images, _Images, _Options], _Measured]] = {
    "kid": _kid,
    "fid": _fid,
    "neighborhoods": _neighborhoods,
    "inception_score": _inception_score,
}


def _from_influence(x: _Images, y: _Images, of_x: Tensor, of_y: Tensor) -> Deviations:
    return {
        x.side: group_deviations(of_x, _consecutive(x.groups)),
        y.side: group_deviations(of_y, _consecutive(y.groups)),
    }


def _consecutive(names: Tensor) -> Tensor:
    """Return numbers replaced by 0, 1, 2, ... in ascending order."""
    numbers: Tensor = torch.unique(names, return_inverse=True)[1]
    return numbers


def _average(scores: Sequence[Score]) -> Score:
    """Return the mean of the folds' scores. A setting that differs between them becomes a tuple."""
    first = scores[0]
    settings: dict[str, Setting] = {}
    for name, value in first.settings.items():
        values = [score.settings[name] for score in scores]
        numbers = tuple(number for number in values if not isinstance(number, tuple))
        settings[name] = value if values.count(value) == len(values) else numbers
    return Score(
        first.metric,
        sum(score.value for score in scores) / len(scores),
        sum(score.samples for score in scores),
        first.reference_samples,
        first.extractor,
        settings,
        tuple(dict.fromkeys(note for score in scores for note in score.notes)),
    )
