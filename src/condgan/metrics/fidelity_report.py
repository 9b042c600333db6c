"""Fidelity of generated images beside that of real training images in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from condgan.metrics.features import CrossFit, Extractor, ExtractorInfo, Fold
from condgan.metrics.floor import FIDELITY_METRICS, FidelityComparison, Images, Options, Trio, compare, join
from condgan.types import LabelledData

_BLOCKS = 10  # of groups, for the jackknife
_LEAST = 20  # images of a class on each side: neighborhoods of five must be left when a tenth is left out


class JudgedImages(LabelledData, Protocol):
    """What a report asks of images. `condgan.data.ArrayDataset` and its relatives have it."""

    @property
    def groups(self) -> Tensor | None:
        """`(N,)` int64, the group (patient) of each image; None makes each image its own."""

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups, in the order of their numbers."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """Scores of generated images and their floors, over all classes and for each.

    Args:
        extractor: The network of the features.
        overall: Comparisons by score, over images of all classes in the proportions of the test set.
        per_class: The same within each class, by class name.
        settings: Everything they depended on, ready for JSON.
    """

    extractor: ExtractorInfo
    overall: dict[str, FidelityComparison]
    per_class: dict[str, dict[str, FidelityComparison]]
    settings: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as nested dictionaries and lists, ready for JSON."""
        return {
            "extractor": asdict(self.extractor),
            "overall": {name: comparison.as_dict() for name, comparison in self.overall.items()},
            "per_class": {
                label: {name: comparison.as_dict() for name, comparison in comparisons.items()}
                for label, comparisons in self.per_class.items()
            },
            "settings": self.settings,
        }


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
    given the networks. It knows nothing of another training of the generator, and leaves out the noise of the KID's
    random subsets. KID, FID and Inception Score take influences summed over groups; the others a jackknife over ten
    blocks of groups, which is too wide rather than too narrow.

    Args:
        generated: Images of the generator, uint8, with the labels they were asked for.
        train: Real images that the generator was trained on.
        test: Real images of other patients, see `condgan.data.check_disjoint`.
        extractor: The network of the features, or networks cross-fitted on `train`.
        metrics: Which to compute: `"kid"`, `"fid"`, `"neighborhoods"` (precision, recall, density and coverage) and
            `"inception_score"`, which is left out where the extractor has no logits. The FID of 2048 features takes
            tens of seconds a comparison.
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
        looks = [
            _look(f"generated {number}", generated, _cut(fake, counts), fold.extractor, groups[0]),
            _look(f"train {number}", train, _cut(real, counts), fold.extractor, groups[1]),
            _look("test", test, all_test, fold.extractor, groups[2]),
        ]
        mixed = _proportional(counts, test.class_counts)
        overall = Trio(
            *(join(parts, sizes) for parts, sizes in zip(looks, (mixed, mixed, test.class_counts), strict=True))
        )
        rounds.append([overall, *map(Trio, *looks)])
    options = Options(extractor.info, kid_subset_size, kid_subsets, seed)
    first, *per_class = (compare(trios, metrics, options, level=level) for trios in zip(*rounds, strict=True))
    sides = {"generated": generated, "train": train, "test": test}
    return FidelityReport(
        extractor=extractor.info,
        overall=first,
        per_class=dict(zip(test.class_names, per_class, strict=True)),
        settings={
            "metrics": list(metrics),
            "kid_subset_size": kid_subset_size,
            "kid_subsets": kid_subsets,
            "folds": len(folds),
            "jackknife_blocks": _BLOCKS,
            "level": level,
            "seed": seed,
            **{name: {"fingerprint": data.fingerprint, "images": len(data.labels)} for name, data in sides.items()},
        },
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
    """Deal the images of each class out to so many equal shares, at random."""
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


def _look(
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
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}. Give a coverage such as 0.95.")
    for name, data in (("generated", generated), ("train", train)):
        if data.class_names != test.class_names:
            raise ValueError(
                f"{name} must have the classes of test, {test.class_names}, got {data.class_names}. Pass the same "
                "class_names, in the same order, to all sets."
            )
        if data.image_shape != test.image_shape:
            raise ValueError(
                f"{name} must have the image shape of test, {test.image_shape}, got {data.image_shape}. Read all sets "
                "at one size: a resize of one side alone shows in the features."
            )


def _check_counts(counts: Sequence[int], test: JudgedImages, folds: int) -> None:
    for name, count, size in zip(test.class_names, counts, test.class_counts, strict=True):
        if min(count, size) < _LEAST:
            raise ValueError(
                f"every class needs at least {_LEAST} generated, training and test images in each fold, got {count} "
                f"generated and training images and {size} test images of {name} with {folds} folds. Generate more, "
                "lower the number of folds, or merge rare classes."
            )
