"""Scores of generated images beside those of real images in their place, and the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from condgan.metrics.extractors import CrossFit, Extractor, ExtractorInfo, Fold
from condgan.metrics.fidelity import (
    Deviations,
    Score,
    Setting,
    combine,
    density_coverage,
    fid,
    fid_influence,
    group_deviations,
    inception_influence,
    inception_score,
    interval,
    kid,
    kid_influence,
    neighborhood_deviations,
    precision_recall,
)
from condgan.metrics.judged import ImagesInfo, check_same_classes
from condgan.stats import Estimate
from condgan.stats.estimates import check_level
from condgan.types import JudgedImages

FIDELITY_METRICS = ("kid", "fid", "neighborhoods", "inception_score")
"""What `fidelity_report` can compute."""

_NARROW, _WIDE = 3, 5  # neighborhoods of precision and recall, and of density and coverage
_BLOCKS = 10  # of groups, for the jackknife
_LEAST = 20  # images of a class on each side: neighborhoods of five must be left when a tenth is left out


@dataclass(frozen=True, slots=True)
class FidelityComparison:
    """A score of generated images beside the same score of as many real training images.

    Args:
        generated: Generated images against the real test images.
        floor: Real training images against the same test images: what a perfect generator would score.
        difference: `generated` minus `floor`, with an interval over groups on all three sides.
    """

    generated: Score
    floor: Score
    difference: Estimate


@dataclass(frozen=True, slots=True)
class FidelitySettings:
    """Everything that a `FidelityReport` depends on: arguments of `fidelity_report`, and the images.

    Args:
        metrics: What was asked for.
        kid_subset_size: Images in a subset of the KID, at most.
        kid_subsets: Number of subsets.
        folds: Number of cross-fitted extractors; 1 for one that has not seen the images.
        jackknife_blocks: Number of blocks of groups.
        level: Nominal coverage of the intervals.
        seed: Seed of everything random.
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
    """Scores of generated images and their floors, over all classes and for each.

    Args:
        extractor: The network of the features.
        overall: Comparisons by score, over images of all classes in the proportions of the test set.
        per_class: The same within each class, by class name.
        settings: Everything they depended on.
    """

    extractor: ExtractorInfo
    overall: dict[str, FidelityComparison]
    per_class: dict[str, dict[str, FidelityComparison]]
    settings: FidelitySettings


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
    """Compare generated with real test images, and real training images with the same test images beside it.

    The reference is the test set throughout: a generator that repeats its training images is no better than the
    floor, and one that is as good as real images has a difference of 0, also where the test set is shifted against
    the training set. Most scores depend on the number of images, so of each class as many generated as training
    images are drawn; over all classes, as many of each as keep the proportions of the test set.

    With cross-fitted extractors each fold compares the training images that its network has not seen, and an equal
    share of the generated ones, with all test images, in the features of its own network. Each training and each
    generated image takes part in one fold at most, and scores are means over the folds. The generator has seen the
    training images of all folds: where it repeats them, the networks know its images as they know no unseen ones.

    An interval says how far the difference would move with other images of the same generator and other patients,
    given the networks. It does not cover the spread between trainings of the generator, nor the noise of the KID's
    random subsets. KID, FID and Inception Score take influences summed over groups; the others a jackknife over ten
    blocks of groups, which is too wide rather than too narrow.

    Args:
        generated: Images of the generator, uint8, with the labels they were asked for.
        train: Real images that the generator was trained on.
        test: Real images of other patients, see `condgan.data.check_disjoint`.
        extractor: The network of the features, or networks cross-fitted on `train`.
        metrics: Which to compute: `"kid"`, `"fid"`, `"neighborhoods"` (precision, recall, density and coverage) and
            `"inception_score"`, which is left out where the extractor has no logits. The FID of 2048 features takes
            tens of seconds per comparison.
        kid_subset_size: Images in a subset of the KID, at most; it is lowered to the number of images.
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
    _check(generated, train, test, metrics, level)
    rng = torch.Generator().manual_seed(seed)
    folds = _folds(extractor, train)
    shares = _deal(generated.labels, len(folds), rng)
    groups = [_draw_groups(data, rng) for data in (generated, train, test)]
    rounds: list[list[Trio]] = []
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
        overall = Trio(
            *(join(parts, sizes) for parts, sizes in zip(sides, (mixed, mixed, test.class_counts), strict=True))
        )
        rounds.append([overall, *map(Trio, *sides)])
    options = Options(extractor.info, kid_subset_size, kid_subsets, seed)
    first, *per_class = (compare(trios, metrics, options, level=level) for trios in zip(*rounds, strict=True))
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
    """Return the group of each image, and a random block of groups it lies in."""
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
) -> list[Images]:
    """Extract the features of chosen images, class by class."""
    index = torch.cat(list(chosen))
    features, logits = extractor.extract(data.images[index])
    images = Images(side, features, logits, *(names[index] for names in groups))
    parts = images.split([len(part) for part in chosen])
    for name, part in zip(data.class_names, parts, strict=True):
        if len(part.features) - int(part.blocks.bincount().max()) < _LEAST // 2:
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


def _check(
    generated: JudgedImages, train: JudgedImages, test: JudgedImages, metrics: Sequence[str], level: float
) -> None:
    unknown = sorted(set(metrics) - set(FIDELITY_METRICS))
    if unknown or not metrics:
        raise ValueError(f"metrics must be some of {', '.join(FIDELITY_METRICS)}, got {unknown or 'none'}.")
    check_level(level)
    check_same_classes(test, "test", generated=generated, train=train)


def _check_counts(counts: Sequence[int], test: JudgedImages, folds: int) -> None:
    for name, count, size in zip(test.class_names, counts, test.class_counts, strict=True):
        if min(count, size) < _LEAST:
            raise ValueError(
                f"every class needs at least {_LEAST} generated, training and test images in each fold, got {count} "
                f"generated and training images and {size} test images of {name} with {folds} folds. Generate more, "
                "lower the number of folds, or merge rare classes."
            )


class Images(NamedTuple):
    """What is known of the images of one side of a comparison.

    Shape:
        - `features`: `(N, D)`; `logits`: `(N, K)` or None.
        - `groups`, `blocks`: `(N,)`, int64: group of each image and block of groups it lies in.
    """

    side: str
    features: Tensor
    logits: Tensor | None
    groups: Tensor
    blocks: Tensor

    def split(self, sizes: Sequence[int]) -> list[Images]:
        """Split into parts of these sizes, in order."""
        ends = list(accumulate(sizes, initial=0))
        return [self._rows(slice(*pair)) for pair in pairwise(ends)]

    def first(self, count: int) -> Images:
        """Return the first `count` images."""
        return self._rows(slice(count))

    def _rows(self, rows: slice) -> Images:
        logits = None if self.logits is None else self.logits[rows]
        return Images(self.side, self.features[rows], logits, self.groups[rows], self.blocks[rows])


class Trio(NamedTuple):
    """The three sides of a comparison."""

    generated: Images
    train: Images
    test: Images


class Options(NamedTuple):
    """Settings of the scores."""

    info: ExtractorInfo
    kid_subset_size: int
    kid_subsets: int
    seed: int


_Measured = dict[str, tuple[Score, Deviations]]


def compare(
    trios: Sequence[Trio], metrics: Iterable[str], options: Options, *, level: float
) -> dict[str, FidelityComparison]:
    """Compare generated with training images in each fold, and average over the folds.

    Groups of the test images must be the same in all folds; those of the other sides differ by the name of the side.

    Raises:
        ValueError: If nothing is left to compute.
    """
    folds = [
        (_measure(metrics, trio.generated, trio.test, options), _measure(metrics, trio.train, trio.test, options))
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
        deviations = combine(term for fold in folds for term in ((share, fold[0][name][1]), (-share, fold[1][name][1])))
        difference = interval(generated.value - floor.value, deviations, level=level)
        comparisons[name] = FidelityComparison(generated, floor, difference)
    return comparisons


def join(parts: Sequence[Images], counts: Sequence[int]) -> Images:
    """Return the first images of each part, as many as `counts` says, as one, on the side of the first."""
    cut = [part.first(count) for part, count in zip(parts, counts, strict=True)]
    logits = [part.logits for part in cut if part.logits is not None]
    return Images(
        cut[0].side,
        torch.cat([part.features for part in cut]),
        torch.cat(logits) if logits else None,
        torch.cat([part.groups for part in cut]),
        torch.cat([part.blocks for part in cut]),
    )


def _measure(metrics: Iterable[str], x: Images, y: Images, options: Options) -> _Measured:
    measured: _Measured = {}
    for metric in metrics:
        measured |= _MEASURES[metric](x, y, options)
    return measured


def _kid(x: Images, y: Images, options: Options) -> _Measured:
    score = kid(
        x.features,
        y.features,
        subset_size=options.kid_subset_size,
        subsets=options.kid_subsets,
        seed=options.seed,
        extractor=options.info,
    )
    return {"kid": (score, _from_influence(x, y, *kid_influence(x.features, y.features)))}


def _fid(x: Images, y: Images, options: Options) -> _Measured:
    score = fid(x.features, y.features, extractor=options.info)
    return {"fid": (score, _from_influence(x, y, *fid_influence(x.features, y.features)))}


def _neighborhoods(x: Images, y: Images, options: Options) -> _Measured:
    scores = [
        *precision_recall(x.features, y.features, neighborhood=_NARROW, extractor=options.info),
        *density_coverage(x.features, y.features, neighborhood=_WIDE, extractor=options.info),
    ]
    by_x, by_y = neighborhood_deviations(
        x.features, y.features, _number(x.blocks), _number(y.blocks), narrow=_NARROW, wide=_WIDE
    )
    return {score.metric: (score, {x.side: by_x[:, i], y.side: by_y[:, i]}) for i, score in enumerate(scores)}


def _inception_score(x: Images, y: Images, options: Options) -> _Measured:
    if x.logits is None:
        return {}
    score = inception_score(x.logits, seed=options.seed, extractor=options.info)
    return {"inception_score": (score, {x.side: group_deviations(inception_influence(x.logits), _number(x.groups))})}


_MEASURES: dict[str, Callable[[Images, Images, Options], _Measured]] = {
    "kid": _kid,
    "fid": _fid,
    "neighborhoods": _neighborhoods,
    "inception_score": _inception_score,
}


def _from_influence(x: Images, y: Images, of_x: Tensor, of_y: Tensor) -> Deviations:
    return {
        x.side: group_deviations(of_x, _number(x.groups)),
        y.side: group_deviations(of_y, _number(y.groups)),
    }


def _number(names: Tensor) -> Tensor:
    """Return names as 0, 1, 2, ... in ascending order."""
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
