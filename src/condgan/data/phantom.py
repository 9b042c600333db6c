"""Drawn chest X-ray phantoms: labelled pictures for tests and demonstrations, without any download."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from condgan.data.anatomy import Anatomy, Illness, draw, draw_illness, render
from condgan.data.store import ArrayDataset

CLASS_NAMES: dict[int, tuple[str, ...]] = {2: ("normal", "pneumonia"), 3: ("normal", "bacterial", "viral")}
PATIENTS_PER_CLASS = 2**20
MAX_SEED = 2**32
MIN_SIDE = 16


class ChestPhantom(ArrayDataset):
    """Procedurally drawn frontal chest X-rays of children: normal, bacterial and viral pneumonia.

    These are drawings. They simulate no X-ray physics and no disease, were fitted to no patient's images, and serve
    only tests and demonstrations that must run without a download; nothing clinical follows from them. Bacterial
    pneumonia is drawn as one or two dense foci in one lung, viral pneumonia as haze and a fine net in both lungs with
    some hyperinflation.

    Patients are drawn once and imaged several times: their images share the anatomy and the illness and differ in
    position, exposure, borders, marker and grain. Every image depends only on `seed`, its patient and its number, so
    larger `counts` keep the images of smaller ones, and the drawing does not depend on `image_shape`. The same seed
    gives the same bits on one machine; another processor's arithmetic may move a pixel by one grey level.

    Args:
        counts: Number of images of each class.
        classes: 3 for normal, bacterial and viral; 2 for normal and pneumonia, whose patients are drawn as bacterial
            or viral about two to one.
        image_shape: Channels (1, or 3 equal ones), height and width; both sides from 16 up.
        images_per_patient: Mean number of images of a patient, at least 1.
        difficulty: 0 for plain opacities, 1 for the faintest. A small network learns two classes at 64 pixels to
            a balanced accuracy of about 0.94 at 0.2, 0.91 at 0.4 and 0.84 at 0.6.
        seed: Seed of everything, in `[0, 2**32)`. Patients (`groups`) are numbered from `seed * 2**22`, each class
            from a multiple of `2**20` on, so data sets of different seeds share no patient.

    Shape:
        - `images`: `(N, C, H, W)` uint8, class by class, where N is the sum of `counts`.
        - `labels`, `groups`: `(N,)`, int64.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> data = ChestPhantom((4, 4, 4), image_shape=(1, 32, 32))
        >>> data
        ChestPhantom(12 samples of shape (1, 32, 32); normal: 4, bacterial: 4, viral: 4; from phantom, seed 0)
        >>> ChestPhantom((2, 6), classes=2, image_shape=(3, 16, 24)).class_names
        ('normal', 'pneumonia')
    """

    def __init__(
        self,
        counts: Sequence[int] = (300, 560, 300),
        *,
        classes: int = 3,
        image_shape: tuple[int, int, int] = (1, 64, 64),
        images_per_patient: float = 1.5,
        difficulty: float = 0.4,
        seed: int = 0,
    ) -> None:
        _check_arguments(counts, classes, image_shape, images_per_patient, difficulty, seed)
        channels, height, width = image_shape
        images = np.empty((sum(counts), 1, height, width), dtype=np.uint8)
        groups = np.empty(len(images), dtype=np.int64)
        views = chain.from_iterable(
            islice(_views(name, (4 * seed + label) * PATIENTS_PER_CLASS, images_per_patient, difficulty), counts[label])
            for label, name in enumerate(CLASS_NAMES[classes])
        )
        for index, (patient, body, illness, rng) in enumerate(views):
            images[index, 0], groups[index] = render(body, illness, height, width, rng), patient
        super().__init__(
            images.repeat(channels, axis=1),
            np.repeat(np.arange(classes), counts),
            class_names=CLASS_NAMES[classes],
            groups=groups,
            source=f"phantom, seed {seed}",
        )


def _views(
    name: str, patient: int, images_per_patient: float, difficulty: float
) -> Iterator[tuple[int, Anatomy, Illness, np.random.Generator]]:
    """Go through the images of a class, patient by patient, without end.

    Every patient and every image has a generator of its own, so that more of them leave the first ones as they were.
    """
    while True:
        rng = np.random.default_rng(np.random.SeedSequence(patient))
        images = int(rng.geometric(1 / images_per_patient))
        body, illness = draw(Anatomy, rng), draw_illness(name, difficulty, rng)
        for image in range(images):
            yield patient, body, illness, np.random.default_rng(np.random.SeedSequence(patient, spawn_key=(image,)))
        patient += 1


def _check_arguments(
    counts: Sequence[int],
    classes: int,
    image_shape: tuple[int, int, int],
    images_per_patient: float,
    difficulty: float,
    seed: int,
) -> None:
    if classes not in CLASS_NAMES:
        raise ValueError(
            f"classes must be 2 (normal, pneumonia) or 3 (normal, bacterial, viral), got {classes}. Merge or drop "
            "classes with subset() for others."
        )
    if len(counts) != classes:
        names = ", ".join(CLASS_NAMES[classes])
        raise ValueError(
            f"counts must have {classes} entries, one for each of {names}, got {len(counts)}: {tuple(counts)}. "
            f"Give {classes} counts, or pass classes={len(counts)}."
        )
    if not all(2 <= count <= PATIENTS_PER_CLASS for count in counts):
        raise ValueError(
            f"counts must be in [2, {PATIENTS_PER_CLASS}], got {tuple(counts)}. Every class needs two images."
        )
    if len(image_shape) != 3 or image_shape[0] not in (1, 3) or min(image_shape[1:]) < MIN_SIDE:
        raise ValueError(
            f"image_shape must be (channels, height, width) with 1 or 3 channels and sides of at least {MIN_SIDE}, "
            f"got {tuple(image_shape)}. A chest is not recognizable in fewer pixels."
        )
    if not images_per_patient >= 1:
        raise ValueError(f"images_per_patient must be at least 1, got {images_per_patient}. It is a mean, not a share.")
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty must be in [0, 1], got {difficulty}. 0 draws plain opacities, 1 the faintest.")
    if not 0 <= seed < MAX_SEED:
        raise ValueError(f"seed must be in [0, {MAX_SEED}), got {seed}. Patients are numbered from it without overlap.")
