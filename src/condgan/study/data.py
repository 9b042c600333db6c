"""Checks and preparation of the data of a study, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from condgan.data.dataset import ArrayDataset, check_compatible, check_disjoint
from condgan.devices import plain_defaults
from condgan.files import check_names
from condgan.metrics.fidelity_report import LEAST_IMAGES
from condgan.metrics.neighbors import find_duplicates
from condgan.study.config import StudyConfig
from condgan.study.results import DataDescription, PartDescription


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checked data of a study.

    Args:
        train: Training images, each once.
        validation: Images to choose epochs and thresholds on.
        test: Images to report on.
        test_groups: The group of each test image; without groups, each image is one of its own.
        description: Record of the data for the results.

    Shape:
        - `test_groups`: `(N,)`, int64.
    """

    train: ArrayDataset
    validation: ArrayDataset
    test: ArrayDataset
    test_groups: Tensor
    description: DataDescription


@plain_defaults()
def prepare(
    config: StudyConfig,
    train: ArrayDataset,
    validation: ArrayDataset,
    test: ArrayDataset,
    *,
    notice: str | None = None,
    notes: Sequence[str] = (),
) -> Prepared:
    """Check that three sets fit the study and share no patient, and remove repeated images.

    Training images that repeat another one (see `find_duplicates`) are removed, and so are training and validation
    images that also occur in a later set (validation, test). The description counts both. The test set stays as it is.

    Args:
        config: The study.
        train: Training images.
        validation: Validation images.
        test: Test images.
        notice: Warning about the data, for the top of the report.
        notes: Further remarks on the data, for the report.

    Raises:
        ValueError: If shapes or classes differ, a patient is in two of the sets, or a class of the test set comes from
            a single patient.
    """
    sets = {"training": train, "validation": validation, "test": test}
    for role, data in sets.items():
        check_compatible(f"the {role} set", data, train.class_names, config.image_shape)
    if config.reduced_class is not None:
        check_names("reduced_class", [config.reduced_class], train.class_names)
    known = any(data.groups is not None for data in sets.values())
    if known:
        check_disjoint(**sets)
    groups = torch.arange(len(test)) if test.groups is None else test.groups
    _check_test_classes(test, groups)
    fingerprints = [data.fingerprint for data in sets.values()]
    distinct, repeated, leaked = _remove_repetitions(train, validation, test)
    parts = [
        PartDescription(
            counts=data.class_counts,
            patients=None if data.groups is None else len(data.group_names),
            fingerprint=fingerprint,
        )
        for data, fingerprint in zip(distinct, fingerprints, strict=True)
    ]
    unknown = (
        "Patients are unknown: whether one is in two of the sets could not be checked, and intervals, which take each "
        "image for a patient, are too narrow where patients have several images."
    )
    description = DataDescription(
        source=train.source,
        notice=notice,
        attribution=train.attribution,
        class_names=train.class_names,
        image_shape=config.image_shape,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        duplicates_removed=repeated,
        repeats_of_other_sets_removed=leaked,
        notes=(*notes, *([] if known else [unknown])),
    )
    return Prepared(*distinct, groups, description)


def too_few_to_judge(*, training: ArrayDataset, folds: int, **others: ArrayDataset) -> str:
    """Return the classes with too few images to judge generated ones by, such as `"ill (12 in test, at least 20)"`.

    Args:
        training: Training images, which the folds of cross-fitted extractors share out.
        folds: Number of extractors; 1 for one that has not seen the training images.
        **others: Further sets of real images, by what messages call them.
    """
    sets = {"training": (training, folds * LEAST_IMAGES)}
    sets |= {role.replace("_", "-"): (data, LEAST_IMAGES) for role, data in others.items()}
    return ", ".join(
        f"{name} ({count} in {role}, at least {least})"
        for role, (data, least) in sets.items()
        for name, count in zip(data.class_names, data.class_counts, strict=True)
        if count < least
    )


def _check_test_classes(test: ArrayDataset, groups: Tensor) -> None:
    for label, name in enumerate(test.class_names):
        count = len(groups[test.labels == label].unique())
        if count < 2:
            raise ValueError(
                f"every class of the test set must come from at least two patients, got {count} of {name}. Intervals "
                "are over patients: add some."
            )


def _remove_repetitions(
    train: ArrayDataset, validation: ArrayDataset, test: ArrayDataset
) -> tuple[tuple[ArrayDataset, ArrayDataset, ArrayDataset], int, int]:
    begins = len(test), len(test) + len(validation)
    # none is left out of the test set, and an image of the others may repeat any of its images
    original = find_duplicates(torch.cat([test.images, validation.images, train.images]), retained=begins[1]).original
    of_validation, of_train = original[begins[0] : begins[1]], original[begins[1] :]
    first = torch.arange(begins[1], len(original))
    leaked = [(of_train < begins[1]), (of_validation < begins[0])]
    repeated = ~leaked[0] & (of_train != first)
    parts = (_without(train, [leaked[0], repeated]), _without(validation, leaked[1:]), test)
    return parts, int(repeated.sum()), sum(int(mask.sum()) for mask in leaked)


def _without(data: ArrayDataset, masks: Iterable[Tensor]) -> ArrayDataset:
    drop = torch.stack(list(masks)).any(0)
    return data.subset((~drop).nonzero().flatten()) if bool(drop.any()) else data


@plain_defaults()
def keep_patients(data: ArrayDataset, label: int, percent: float, *, seed: int = 0) -> ArrayDataset:
    """Return the data with a share of the patients of one class, to make this class rare.

    The seed determines an order of these patients, of whom the first are kept: a patient who is kept at some percentage
    is kept at every larger one. Of the others, the images of this class are dropped. All images of other classes stay.

    Args:
        data: Labeled images. Without groups, each image counts as a patient.
        label: The class.
        percent: Percentage of its patients to keep, rounded to whole patients, at least one.
        seed: Seed of the order.

    Raises:
        ValueError: If `label` or `percent` is out of range, or fewer than two images of the class remain.

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
            f"of {len(patients)} patients. Keep more patients."
        )
    return data.subset(remaining.nonzero().flatten())
