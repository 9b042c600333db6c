"""Whether generated images copy training images or reveal training patients: a report with a verdict on each class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from condgan.data.dataset import check_disjoint, check_same_classes, number_groups
from condgan.devices import plain_defaults
from condgan.files import NOT_IN_JSON
from condgan.metrics.copying import CopyTest, DataCopying, authenticity, c_t, copy_test, own_radius
from condgan.metrics.extractors import ExtractorInfo, ImagesInfo, describe, to_features
from condgan.metrics.membership import MembershipInference, membership_inference, separation
from condgan.metrics.neighbors import Neighbors, find_duplicates, nearest_neighbors, relative_distance
from condgan.stats import Estimate, group_bootstrap
from condgan.types import JudgedImages

_NEIGHBORS = 10
_LEAST_FOR_C_T = 20
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5)


class MemorizationVerdict(Enum):
    """What was found of one class, by the rule of `memorization_report`."""

    COPIES = "copies"
    CANNOT_TELL = "cannot_tell"
    PATIENTS_RECOGNIZED = "patients_recognized"
    NO_SIGN = "no_sign"

    @property
    def words(self) -> str:
        """The verdict in words, for readers."""
        return _WORDS[self]


_WORDS = {
    MemorizationVerdict.COPIES: "copies training images",
    MemorizationVerdict.CANNOT_TELL: "cannot tell: too few images",
    MemorizationVerdict.PATIENTS_RECOGNIZED: "members of the training set can be recognized",
    MemorizationVerdict.NO_SIGN: "no sign of copying",
}


@dataclass(frozen=True, slots=True)
class ClassMemorization:
    """What was found of one class.

    Args:
        verdict: The finding, by the rule of `memorization_report`.
        explanation: The numbers that led to it.
        images: Numbers of generated, training and held-out images, without duplicates.
        patients: Numbers of training and held-out patients.
        copies: Test of generated images that are far nearer to one training image than to others (`relative_distance`),
            and nearer than half of the held-out images are; the verdict depends on it.
        close: The same test by plain distance, which smooth images fail, too.
        c_t: The test of Meehan et al. within the class; None with fewer than 20 generated images or held-out patients.
        authenticity: Share of authentic generated images.
        authenticity_held_out: Share of authentic held-out images, for comparison.
        membership: The attack on training patients and its control.
        shift: Chance that a held-out image is farther from the training images than one of these is from those of
            other patients; 0.5 if both have the same distribution.
        distances: Quantiles 0, 0.01, 0.05, 0.25 and 0.5 of the distance of generated images to the nearest training
            image.
        distances_held_out: The same of held-out images.
    """

    verdict: MemorizationVerdict
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
class RemovedDuplicates:
    """Numbers of images that were removed before anything was measured.

    Args:
        exact: Training images that repeat an earlier one bit by bit.
        near: Training images that repeat an earlier one within the tolerance.
        held_out: Held-out images that repeat a training image or each other.
    """

    exact: int
    near: int
    held_out: int


@dataclass(frozen=True, slots=True)
class MemorizationSettings:
    """Everything that a `MemorizationReport` depends on: arguments of `memorization_report`, and the images.

    Args:
        rate: Share of held-out images whose relative distance counts as low.
        alpha: Level of the test for copies.
        share: Share of copies that must be detectable for a verdict without findings.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap and of the halves.
        tolerance: Root mean square difference up to which two images counted as duplicates.
        neighbors: Number of nearest training images that relative distances are computed from.
        generated: The generated images.
        train: The training images.
        held_out: The held-out images.
    """

    rate: float
    alpha: float
    share: float
    resamples: int
    seed: int
    tolerance: float
    neighbors: int
    generated: ImagesInfo
    train: ImagesInfo
    held_out: ImagesInfo


def _no_neighbors() -> Neighbors:
    return Neighbors(torch.empty(0, 0, dtype=torch.int64), torch.empty(0, 0, dtype=torch.float64))


@dataclass(frozen=True, slots=True)
class MemorizationReport:
    """Verdicts on every class, and the nearest training images of every generated one.

    Args:
        extractor: What the features are.
        per_class: The classes by name.
        duplicates: What was removed first.
        settings: Everything the numbers depended on.
        neighbors: The ten training images nearest to each generated image, for `neighbor_grid`; indices count in the
            training set as it was passed. They are not written to JSON; a report that was read back has none.
    """

    extractor: ExtractorInfo
    per_class: dict[str, ClassMemorization]
    duplicates: RemovedDuplicates
    settings: MemorizationSettings
    neighbors: Neighbors = field(default_factory=_no_neighbors, repr=False, compare=False, metadata=NOT_IN_JSON)


@plain_defaults()
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
    """Decide for each class whether generated images copy training images or reveal training patients.

    The verdict of a class is the first `MemorizationVerdict` of these that holds:

    - `COPIES`: more generated images than expected are far nearer to one training image than to others. These are the
      images whose `relative_distance` is below that of all but a share `rate` of the held-out images; their number is
      tested at the level `alpha` (`copy_test`). An image that is not nearer to the training images than half of the
      held-out ones are does not count: a shapeless image may have its relative distance from one unusual training
      image without resembling it.
    - `CANNOT_TELL`, too few images: a generator that copies a share of `share` would be missed by that test more often
      than one time in ten.
    - `PATIENTS_RECOGNIZED`: the 95 % interval of the membership attack lies above 0.5, while held-out images are no
      farther from the training images than these are from each other (`shift`).
    - `NO_SIGN`.

    For a generator whose relative distances have the distribution of those of new real images, the first verdict is
    given with a probability of at most `alpha` per class, the third with about 2.5 %.

    Plain distances, $C_T$ and authenticity are reported, but the verdict does not depend on them: smooth images are
    nearer to every training image than real ones are, and these three mistake them for copies. The distance relative to
    further neighbours is far less affected, though not immune. It misses copies that the extractor does not place near
    their originals: in pixels, mirrored ones and, at 32 pixels, some that are shifted by one pixel.

    Held-out images must come from the source of the training images. A test set from elsewhere is far from the training
    images, which looks like membership; `shift` measures this without any generated image.

    Distances are measured to the training images of all classes. Duplicates are removed first: repeated training
    images, and held-out images that repeat a training image or each other. Patients are the independent units: tests
    take the first held-out image of each patient, intervals resample patients, and no patient may be in both sets.
    Without groups each image is a unit of its own.

    Args:
        generated: Generated images with the labels that they were generated for.
        train: The images that the generator was trained on.
        held_out: Real images of other patients, from the same source.
        extractor: Maps uint8 images to features; it must not have been trained on `train`. Without one, the pixels
            are the features.
        rate: Share of held-out images whose relative distance counts as low.
        alpha: Level of the test for copies.
        share: Share of copies that must be detectable for a verdict without findings.
        tolerance: Root mean square difference in grey levels up to which two images are duplicates.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap and of the halves.

    Raises:
        ValueError: If the sets do not fit each other, share a patient, or a class lacks two training or held-out
            patients or two generated images.

    References:
        Carlini et al. 2023, arXiv:2301.13188 (relative distances); Meehan, Chaudhuri and Dasgupta 2020,
        arXiv:2004.05675 (a copy is nearer than held-out images are).
    """
    for role, data in (("generated", generated), ("held_out", held_out)):
        check_same_classes(role, data, "train", train.class_names, train.image_shape)
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
    fakes, neighbors = _locate(to_features(generated.images, extractor), generated.labels.cpu(), own, known)
    reals, _ = _locate(
        to_features(held_out.images[kept_held_out], extractor),
        held_out.labels.cpu()[kept_held_out],
        held_out_groups[kept_held_out],
        known,
    )
    unit = "images" if train.groups is None else "patients"
    settings = MemorizationSettings(
        rate=rate,
        alpha=alpha,
        share=share,
        resamples=resamples,
        seed=seed,
        tolerance=found.tolerance,
        neighbors=neighbors.indices.shape[1],
        generated=ImagesInfo.of(generated),
        train=ImagesInfo.of(train),
        held_out=ImagesInfo.of(held_out),
    )
    return MemorizationReport(
        extractor=describe(extractor),
        per_class={
            name: _judge_class(
                _of_class(fakes, label, name, unit),
                _of_class(reals, label, name, unit),
                _of_class(known, label, name, unit),
                fakes.features,
                settings,
                unit,
            )
            for label, name in enumerate(train.class_names)
        },
        duplicates=RemovedDuplicates(
            exact=int(found.exact[:count].sum()),
            near=int(found.near[:count].sum()),
            held_out=len(held_out.labels) - len(kept_held_out),
        ),
        settings=settings,
        neighbors=Neighbors(kept[neighbors.indices], neighbors.distances),
    )


class _Known(NamedTuple):
    """Training images, with the distance of each to the nearest one of another patient."""

    features: Tensor
    labels: Tensor
    groups: Tensor
    radius: Tensor


class _Queries(NamedTuple):
    """Generated or held-out images, with their distances to the training images."""

    features: Tensor
    labels: Tensor
    groups: Tensor
    nearest: Tensor
    relative: Tensor
    authentic: Tensor


_Side = TypeVar("_Side", _Known, _Queries)


def _locate(features: Tensor, labels: Tensor, groups: Tensor, known: _Known) -> tuple[_Queries, Neighbors]:
    neighbors = nearest_neighbors(features, known.features, k=min(_NEIGHBORS, len(known.features)))
    found = (neighbors.distances[:, 0], relative_distance(neighbors), authenticity(neighbors, known.radius))
    return _Queries(features, labels, groups, *found), neighbors


def _of_class(side: _Side, label: int, name: str, unit: str) -> _Side:
    rows = side.labels == label
    count = len(side.groups[rows].unique())
    if count < 2:
        raise ValueError(
            f"every class needs two or more generated images, training {unit} and held-out {unit} after removal of "
            f"duplicates, got {count} of {name}. Add images, or leave the class out."
        )
    return type(side)(*(field[rows] for field in side))


def _judge_class(
    fakes: _Queries, reals: _Queries, known: _Known, every_fake: Tensor, settings: MemorizationSettings, unit: str
) -> ClassMemorization:
    _, patient = reals.groups.unique(return_inverse=True)
    index = torch.arange(len(patient))
    # the first image of each patient
    single = torch.full((int(patient.max()) + 1,), len(patient)).scatter_reduce(0, patient, index, "amin")
    # counting fewer images than the test allows for keeps its level
    near = fakes.relative.where(fakes.nearest < reals.nearest[single].median(), torch.inf)
    copies, close = (
        copy_test(ours, theirs[single], rate=settings.rate, alpha=settings.alpha)
        for ours, theirs in ((near, reals.relative), (fakes.nearest, reals.nearest))
    )
    enough = min(len(fakes.features), len(single)) >= _LEAST_FOR_C_T
    copying = c_t(fakes.features, reals.features[single], known.features, least=_LEAST_FOR_C_T) if enough else None
    membership = membership_inference(
        known.features,
        reals.features,
        every_fake,
        member_groups=known.groups,
        non_member_groups=reals.groups,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    shift = separation(
        (known.radius, known.groups), (reals.nearest, reals.groups), resamples=settings.resamples, seed=settings.seed
    )
    verdict, explanation = decide(
        copies, close, membership, shift, alpha=settings.alpha, share=settings.share, unit=unit
    )
    quantiles = torch.tensor(_QUANTILES, dtype=torch.float64)
    return ClassMemorization(
        verdict=verdict,
        explanation=explanation,
        images=(len(fakes.features), len(known.features), len(reals.features)),
        patients=(len(known.groups.unique()), len(single)),
        copies=copies,
        close=close,
        c_t=copying,
        authenticity=_authentic_share(fakes, settings),
        authenticity_held_out=_authentic_share(reals, settings),
        membership=membership,
        shift=shift,
        distances=tuple(fakes.nearest.quantile(quantiles).tolist()),
        distances_held_out=tuple(reals.nearest.quantile(quantiles).tolist()),
    )


def _authentic_share(side: _Queries, settings: MemorizationSettings) -> Estimate:
    """Return the share of authentic images, with its interval."""
    return group_bootstrap(
        lambda weights: weights @ side.authentic.double() / weights.sum(1),
        side.groups,
        resamples=settings.resamples,
        seed=settings.seed,
    )


def decide(
    copies: CopyTest,
    close: CopyTest,
    membership: MembershipInference,
    shift: Estimate,
    *,
    alpha: float,
    share: float,
    unit: str = "patients",
) -> tuple[MemorizationVerdict, str]:
    """Return the verdict by the rule of `memorization_report`, and a sentence on the numbers that led to it.

    Args:
        copies: The test of relative distances.
        close: The test of plain distances, which adds a note only.
        membership: The attack and its control.
        shift: Chance that a held-out image is farther from the training images than these are from each other.
        alpha: Level of the test for copies.
        share: Share of copies that must be detectable for a verdict without findings.
        unit: What is independent: `"patients"`, or `"images"` where patients are not known.
    """
    found = (
        f"{copies.count} of {copies.generated} generated images are far nearer to one training image than to others; "
        f"{copies.expected:.1f} of as many new real images are expected to be (p = {copies.p_value:.2g})."
    )
    attack = (
        f"The attack separates training from held-out {unit} with an AUROC of {membership.auroc} (members from "
        f"members: {membership.control})."
    )
    notes = []
    if close.p_value <= alpha < copies.p_value:
        notes.append(
            f"{close.count} images are near training images, {close.expected:.1f} expected, but not nearer to one than "
            "to others, as smooth images are."
        )
    if not shift.low <= 0.5 <= shift.high:
        notes.append(
            f"Held-out images are {'farther from' if shift.value > 0.5 else 'nearer to'} the training images than "
            f"these are from each other (AUROC {shift}): they seem to come from elsewhere, which makes the attack, C_T "
            "and plain distances unreliable."
        )
    if copies.p_value <= alpha:
        verdict = MemorizationVerdict.COPIES
    elif copies.detectable > share:
        verdict = MemorizationVerdict.CANNOT_TELL
        found += (
            f" Only a share of copies of {copies.detectable:.0%} or more would have been found with a probability of "
            f"0.9: more than {copies.generated} generated images or {copies.held_out} held-out {unit} are needed."
        )
    elif membership.auroc.low > 0.5 and shift.low <= 0.5:
        verdict = MemorizationVerdict.PATIENTS_RECOGNIZED
    else:
        verdict = MemorizationVerdict.NO_SIGN
        found += f" A share of copies of {copies.detectable:.0%} would have been found with a probability of 0.9."
    return verdict, " ".join([found, attack, *notes])
