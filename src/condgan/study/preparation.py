"""What is done to the data of a study before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from condgan.data.dataset import ArrayDataset, check_compatible, check_disjoint
from condgan.metrics.neighbors import find_duplicates
from condgan.study.plan import StudyConfig, check_names


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data that a study can trust.

    Args:
        train: Training images, each once.
        validation: Images to choose epochs and thresholds on.
        test: Images to report on.
        test_groups: The group of each test image, its own without groups.
        description: What they are, ready for JSON.

    Shape:
        - `test_groups`: `(N,)`, int64.
    """

    train: ArrayDataset
    validation: ArrayDataset
    test: ArrayDataset
    test_groups: Tensor
    description: dict[str, Any]


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
    images that repeat one of a set behind them; numbers of both are in the description. The test set stays as it is.

    Args:
        config: The study.
        train: Training images.
        validation: Validation images.
        test: Test images.
        notice: What nobody may overlook about the data, for the top of the report.
        notes: What else must be known about them.

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
    fingerprints = {name: data.fingerprint for name, data in zip(_NAMES, sets.values(), strict=True)}
    distinct, repeated, leaked = _remove_repetitions(train, validation, test)
    parts = dict(zip(_NAMES, distinct, strict=True))
    unknown = (
        "Patients are unknown: whether one is in two of the sets could not be checked, and intervals by image are too "
        "narrow where patients have several."
    )
    description = {
        "source": train.source,
        "notice": notice,
        "attribution": train.attribution,
        "class_names": list(train.class_names),
        "image_shape": list(train.image_shape),
        "fingerprints": fingerprints,
        "counts": {name: list(data.class_counts) for name, data in parts.items()},
        "patients": {name: count_patients(data) for name, data in parts.items()},
        "duplicates_removed": repeated,
        "repeats_of_other_sets_removed": leaked,
        "notes": [*notes, *([] if known else [unknown])],
    }
    return Prepared(*distinct, groups, description)


def count_patients(data: ArrayDataset) -> int | None:
    """Return the number of patients, or None where they are unknown."""
    return None if data.groups is None else len(data.group_names)


_NAMES = ("train", "validation", "test")


def _check_test_classes(test: ArrayDataset, groups: Tensor) -> None:
    for label, name in enumerate(test.class_names):
        count = len(groups[test.labels == label].unique())
        if count < 2:
            raise ValueError(
                f"every class of the test set must come from at least two patients, got {count} of {name}. Intervals "
                "leave out one at a time: add patients."
            )


def _remove_repetitions(
    train: ArrayDataset, validation: ArrayDataset, test: ArrayDataset
) -> tuple[tuple[ArrayDataset, ArrayDataset, ArrayDataset], int, int]:
    begins = len(test), len(test) + len(validation)
    original = find_duplicates(torch.cat([test.images, validation.images, train.images])).original
    of_validation, of_train = original[begins[0] : begins[1]], original[begins[1] :]
    first = torch.arange(begins[1], len(original))
    leaked = [(of_train < begins[1]), (of_validation < begins[0])]
    repeated = ~leaked[0] & (of_train != first)
    parts = (_without(train, [leaked[0], repeated]), _without(validation, leaked[1:]), test)
    return parts, int(repeated.sum()), sum(int(mask.sum()) for mask in leaked)


def _without(data: ArrayDataset, masks: Iterable[Tensor]) -> ArrayDataset:
    drop = torch.stack(list(masks)).any(0)
    return data.subset((~drop).nonzero().flatten()) if bool(drop.any()) else data
