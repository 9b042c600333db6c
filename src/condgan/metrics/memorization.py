"""A verdict on each class: does the generator copy its training images, or give its patients away?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from condgan.data.dataset import check_disjoint, number_groups
from condgan.metrics.copying import CopyTest, DataCopying, authentic, c_t, copy_test, own_radius
from condgan.metrics.features import ExtractorInfo
from condgan.metrics.fidelity_report import JudgedImages
from condgan.metrics.membership import MembershipInference, membership_inference, separation
from condgan.metrics.neighbors import (
    Neighbors,
    describe,
    find_duplicates,
    nearest_neighbors,
    relative_distance,
    to_features,
)
from condgan.metrics.statistics import Estimate, group_bootstrap
from condgan.metrics.verdict import Verdict, decide

_NEIGHBORS = 10
_LEAST_FOR_C_T = 20
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class ClassMemorization:
    """What was found of one class.

    Args:
        verdict: The finding in a few words, by the rule of `memorization_report`.
        explanation: The numbers that led to it.
        images: Numbers of generated, training and held-out images, duplicates removed.
        patients: Numbers of training and held-out patients.
        copies: Generated images that stand out as near one training image (`relative_distance`); this decides.
        close: Generated images near a training image by plain distance; smooth images are, too.
        c_t: The test of Meehan et al., the class as a cell; None with fewer than 20 generated images or held-out
            patients.
        authenticity: Share of authentic generated images.
        authenticity_held_out: Share of authentic held-out images, the level to compare with.
        membership: The attack on training patients and its control.
        shift: Chance that a held-out image is farther from the training images than one of these is from those of
            other patients; 0.5 if both are drawn alike.
        distances: Quantiles 0, 0.01, 0.05, 0.25 and 0.5 of the distance of generated images to the nearest training
            image.
        distances_held_out: The same of held-out images.
    """

    verdict: Verdict
    explanation: str
    images: tuple[int, int, int]
    patients: tuple[int, int]
    copies: CopyTest
    close: CopyTest
    c_t: DataCopying | None
    authenticity: Estimate
    authenticity_held_out: Estimate
    membership: MembershipInference
    shift: Estimate
    distances: tuple[float, ...]
    distances_held_out: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class MemorizationReport:
    """Verdicts on every class, and the nearest training images of every generated one.

    Args:
        extractor: What the features are.
        per_class: The classes by name.
        duplicates: Numbers of `exact` and `near` duplicates removed from the training set, and of images `held_out`
            removed because they repeat a training image or each other.
        settings: Everything the numbers depended on, ready for JSON.
        neighbors: The ten training images nearest to each generated image, for `neighbor_grid`; not part of
            `as_dict`. Indices count in the training set as it was passed.
    """

    extractor: ExtractorInfo
    per_class: dict[str, ClassMemorization]
    duplicates: dict[str, int]
    settings: dict[str, Any]
    neighbors: Neighbors

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the neighbours as nested dictionaries and lists, ready for JSON."""
        return {
            "extractor": asdict(self.extractor),
            "per_class": {name: asdict(entry) for name, entry in self.per_class.items()},
            "duplicates": self.duplicates,
            "settings": self.settings,
        }


def memorization_report(
    generated: JudgedImages,
    train: JudgedImages,
    held_out: JudgedImages,
    extractor: Callable[[Tensor], Tensor] | None = None,
    *,
    rate: float = 0.01,
    alpha: float = 0.01,
    share: float = 0.1,
    tolerance: float = 2.0,
    resamples: int = 2000,
    seed: int = 0,
) -> MemorizationReport:
    """Judge for each class whether generated images copy training images or give training patients away.

    The verdict of a class is the first of these that holds:

    - *copies training images*: more generated images stand out as near one training image than held-out ones let
      expect. An image stands out where its `relative_distance` is below the lowest `rate` of the held-out images, and
      the number is too large for chance at the level `alpha` (`copy_test`).
    - *cannot tell: too few images*: a generator that copies a share of `share` would have been missed by that test
      more often than one time in ten.
    - *training patients can be recognized*: the 95 % interval of the membership attack lies above 0.5, while
      held-out images are no farther from the training images than these are from each other (`shift`).
    - *no sign of copying*.

    For a generator whose relative distances are those of fresh real images, the first verdict is false with a
    probability of at most `alpha` a class, the third with about 2.5 %.

    Plain distances, $C_T$ and authenticity are reported and do not decide: smooth images lie nearer to every training
    image than real ones do, and these three take them for copies. The distance relative to further neighbours is
    far less affected, though not immune. It misses copies that the extractor does not place near their originals: in
    pixels, mirrored ones and, at 32 pixels, some that are moved by one.

    Held-out images must come from the source of the training images. A shifted test set looks far from what was
    trained on, which passes for membership; `shift` measures it without any generated image.

    Distances go to training images of all classes. Duplicates are removed first, from the training set and from
    held-out images that repeat a training image. Independence is by patient: tests take the first held-out image of
    each patient, intervals resample patients, and no patient may be both trained on and held out.

    Args:
        generated: Images of the generator with the labels they were asked for.
        train: The images the generator was trained on.
        held_out: Real images of other patients, from the same source.
        extractor: Maps uint8 images to features; it must not have been trained on `train`. Without one, the pixels
            are the features.
        rate: Share of held-out images whose relative distance is called low.
        alpha: Level of the test for copies.
        share: Share of copies that must be detectable for a verdict without findings.
        tolerance: Root mean square difference in grey levels up to which two images are duplicates.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap and of the halves.

    Raises:
        ValueError: If the sets do not fit each other, share a patient, or a class lacks two training or held-out
            patients or two generated images.
    """
    _check(generated, train, held_out)
    train_groups, held_out_groups = number_groups(train, held_out)
    if train.groups is not None:
        check_disjoint(**{"training": train, "held-out": held_out})
    found = find_duplicates(
        torch.cat([train.images.cpu(), held_out.images.cpu()]),
        tolerance=tolerance if train.images.dtype == torch.uint8 else 0.0,
    )
    count = len(train.labels)
    kept, kept_held_out = found.kept[found.kept < count], found.kept[found.kept >= count] - count
    features = to_features(train.images[kept], extractor)
    known = _Known(features, train.labels.cpu()[kept], train_groups[kept], own_radius(features, train_groups[kept]))
    own = torch.arange(len(generated.labels))
    fakes, neighbors = _look(to_features(generated.images, extractor), generated.labels.cpu(), own, known)
    reals, _ = _look(
        to_features(held_out.images[kept_held_out], extractor),
        held_out.labels.cpu()[kept_held_out],
        held_out_groups[kept_held_out],
        known,
    )
    options = _Options(rate, alpha, share, resamples, seed)
    sides = {"generated": generated, "train": train, "held_out": held_out}
    return MemorizationReport(
        extractor=describe(extractor),
        per_class={
            name: _measure(
                _of_class(fakes, label, name),
                _of_class(reals, label, name),
                _of_class(known, label, name),
                fakes.features,
                options,
            )
            for label, name in enumerate(train.class_names)
        },
        duplicates={
            "exact": int(found.exact[:count].sum()),
            "near": int(found.near[:count].sum()),
            "held_out": len(held_out.labels) - len(kept_held_out),
        },
        settings={
            **options._asdict(),
            "tolerance": found.tolerance,
            "neighbors": neighbors.indices.shape[1],
            **{name: {"fingerprint": data.fingerprint, "images": len(data.labels)} for name, data in sides.items()},
        },
        neighbors=Neighbors(kept[neighbors.indices], neighbors.distances),
    )


class _Options(NamedTuple):
    rate: float
    alpha: float
    share: float
    resamples: int
    seed: int


class _Known(NamedTuple):
    """Training images, and the distance of each to the nearest one of another patient."""

    features: Tensor
    labels: Tensor
    groups: Tensor
    radius: Tensor


class _Queries(NamedTuple):
    """Other images, and where each lies among the training images."""

    features: Tensor
    labels: Tensor
    groups: Tensor
    nearest: Tensor
    relative: Tensor
    authentic: Tensor


_Side = TypeVar("_Side", _Known, _Queries)


def _look(features: Tensor, labels: Tensor, groups: Tensor, known: _Known) -> tuple[_Queries, Neighbors]:
    neighbors = nearest_neighbors(features, known.features, k=min(_NEIGHBORS, len(known.features)))
    places = (neighbors.distances[:, 0], relative_distance(neighbors), authentic(neighbors, known.radius))
    return _Queries(features, labels, groups, *places), neighbors


def _of_class(side: _Side, label: int, name: str) -> _Side:
    rows = side.labels == label
    if len(side.groups[rows].unique()) < 2:
        raise ValueError(
            f"every class needs two or more generated images, training patients and held-out patients after removal of "
            f"duplicates, got {int(rows.sum())} images of {len(side.groups[rows].unique())} of {name}. Add images, or "
            "leave the class out."
        )
    return type(side)(*(field[rows] for field in side))


def _measure(
    fakes: _Queries, reals: _Queries, known: _Known, every_fake: Tensor, options: _Options
) -> ClassMemorization:
    _, patient = reals.groups.unique(return_inverse=True)
    index = torch.arange(len(patient))
    single = torch.full((int(patient.max()) + 1,), len(patient)).scatter_reduce(0, patient, index, "amin")
    copies, close = (
        copy_test(ours, theirs[single], rate=options.rate, alpha=options.alpha)
        for ours, theirs in ((fakes.relative, reals.relative), (fakes.nearest, reals.nearest))
    )
    enough = min(len(fakes.features), len(single)) >= _LEAST_FOR_C_T
    copying = c_t(fakes.features, reals.features[single], known.features, least=_LEAST_FOR_C_T) if enough else None
    membership = membership_inference(
        known.features,
        reals.features,
        every_fake,
        member_groups=known.groups,
        non_member_groups=reals.groups,
        resamples=options.resamples,
        seed=options.seed,
    )
    shift = separation(
        (known.radius, known.groups), (reals.nearest, reals.groups), resamples=options.resamples, seed=options.seed
    )
    verdict, explanation = decide(copies, close, membership, shift, alpha=options.alpha, share=options.share)
    quantiles = torch.tensor(_QUANTILES, dtype=torch.float64)
    return ClassMemorization(
        verdict=verdict,
        explanation=explanation,
        images=(len(fakes.features), len(known.features), len(reals.features)),
        patients=(len(known.groups.unique()), len(single)),
        copies=copies,
        close=close,
        c_t=copying,
        authenticity=_share(fakes, options),
        authenticity_held_out=_share(reals, options),
        membership=membership,
        shift=shift,
        distances=tuple(fakes.nearest.quantile(quantiles).tolist()),
        distances_held_out=tuple(reals.nearest.quantile(quantiles).tolist()),
    )


def _share(side: _Queries, options: _Options) -> Estimate:
    """Return the share of authentic images, with its interval."""
    return group_bootstrap(
        lambda weights: weights @ side.authentic.double() / weights.sum(1),
        side.groups,
        resamples=options.resamples,
        seed=options.seed,
    )


def _check(generated: JudgedImages, train: JudgedImages, held_out: JudgedImages) -> None:
    for name, data in (("generated", generated), ("held_out", held_out)):
        if data.class_names != train.class_names or data.image_shape != train.image_shape:
            raise ValueError(
                f"{name} must have the classes and image shape of train, {train.class_names} and {train.image_shape}, "
                f"got {data.class_names} and {data.image_shape}. Pass the same class_names, in the same order, and "
                "read all sets at one size."
            )
