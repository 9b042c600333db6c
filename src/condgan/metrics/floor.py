"""Scores of generated images beside those of real images in their place, and the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from condgan.metrics.features import ExtractorInfo
from condgan.metrics.fidelity import Score, density_coverage, fid, inception_score, kid, precision_recall
from condgan.metrics.statistics import Estimate
from condgan.metrics.uncertainty import (
    Deviations,
    combine,
    fid_influence,
    group_deviations,
    inception_influence,
    interval,
    kid_influence,
    neighborhood_deviations,
)

_NARROW, _WIDE = 3, 5


@dataclass(frozen=True, slots=True)
class FidelityComparison:
    """A score of generated images beside the same score of as many real training images.

    Args:
        generated: Generated images against the real test images.
        floor: Real training images against the same test images: what a perfect generator would score.
        difference: `generated` less `floor`, with an interval over groups on all three sides.
    """

    generated: Score
    floor: Score
    difference: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Return everything as nested dictionaries and lists, ready for JSON."""
        return {
            "generated": self.generated.as_dict(),
            "floor": self.floor.as_dict(),
            "difference": self.difference.as_dict(),
        }


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
        """Return the first so many images."""
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
    """Return the first so many images of each part as one, on the side of the first."""
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

FIDELITY_METRICS = tuple(_MEASURES)


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
    """Return the mean of the folds' scores. A setting that differs between them becomes a list."""
    first = scores[0]
    settings = {name: [score.settings[name] for score in scores] for name in first.settings}
    return Score(
        first.metric,
        sum(score.value for score in scores) / len(scores),
        sum(score.samples for score in scores),
        first.reference_samples,
        first.extractor,
        {name: values[0] if values.count(values[0]) == len(values) else values for name, values in settings.items()},
        tuple(dict.fromkeys(note for score in scores for note in score.notes)),
    )
