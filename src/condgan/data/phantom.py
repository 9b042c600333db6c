"""Drawn chest X-ray phantoms: labelled images for tests and demonstrations, without any download."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from condgan.data.dataset import ArrayDataset

CLASS_NAMES: dict[int, tuple[str, ...]] = {2: ("normal", "pneumonia"), 3: ("normal", "bacterial", "viral")}
BACTERIAL_SHARE = 2 / 3
PATIENTS_PER_CLASS = 2**20
MAX_SEED = 2**32
MIN_SIDE = 16
_FINE_SIDE = 64


class ChestPhantom(ArrayDataset):
    """Stylized drawings of frontal chest X-rays: normal, bacterial and viral pneumonia.

    These are drawings for tests and demonstrations that must run without a download. They simulate neither X-ray
    physics nor disease, and nothing clinical follows from them. Bacterial pneumonia is drawn as one or two dense foci
    in one lung, viral pneumonia as haze and a fine net in both lungs.

    Images of one patient share anatomy and illness, and differ in position, exposure and grain. Every image depends
    only on `seed`, its patient and its number: larger `counts` keep the images of smaller ones, and all values of
    `image_shape` show the same drawing. The same seed gives the same bits on one machine; on another processor a pixel
    may differ by one grey level.

    Args:
        counts: Number of images of each class.
        classes: 3 for normal, bacterial and viral; 2 for normal and pneumonia, of which two thirds are bacterial.
        image_shape: Channels (1, or 3 equal ones), height and width; both sides are at least 16.
        images_per_patient: Mean number of images per patient, at least 1.
        difficulty: 0 for plain opacities, 1 for the faintest.
        seed: Seed of all random draws, in `[0, 2**32)`. Patients are numbered from `seed * 2**22`, each class from a
            multiple of `2**20` on, so data sets of different seeds share no patient.

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
        _check_phantom_arguments(counts, classes, image_shape, images_per_patient, difficulty, seed)
        channels, height, width = image_shape
        images: list[np.ndarray] = []
        groups: list[int] = []
        for label, name in enumerate(CLASS_NAMES[classes]):
            patient, end = (4 * seed + label) * PATIENTS_PER_CLASS, len(images) + counts[label]
            while len(images) < end:
                # a separate generator for each patient and image: larger counts leave the first images unchanged
                rng = np.random.default_rng(np.random.SeedSequence(patient))
                views = min(int(rng.geometric(1 / images_per_patient)), end - len(images))
                body, signs, focal = rng.random(22).tolist(), rng.random(10).tolist(), rng.random() < BACTERIAL_SHARE
                strength = (1 - 0.5 * difficulty) * rng.uniform(0.6 * (1 - difficulty), 1) * (name != "normal")
                bacterial = name == "bacterial" or (name == "pneumonia" and focal)
                focus, haze = (strength, 0.0) if bacterial else (0.0, strength)
                for view in range(views):
                    own = np.random.default_rng(np.random.SeedSequence(patient, spawn_key=(view,)))
                    images.append(_render(body, signs, focus, haze, height, width, own))
                groups += [patient] * views
                patient += 1
        super().__init__(
            np.stack(images)[:, None].repeat(channels, axis=1),
            np.repeat(np.arange(classes), counts),
            class_names=CLASS_NAMES[classes],
            groups=groups,
            source=f"phantom, seed {seed}",
        )


def _render(
    body: list[float], signs: list[float], focus: float, haze: float, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw one image in coordinates from -1 to 1 that run down (v) and to the patient's left (u)."""
    factor = max(1, -(-_FINE_SIDE // min(height, width)))  # finer than asked, then averaged: thin ribs do not alias
    rows, columns = (
        (2 * np.arange(factor * side, dtype=np.float32) + 1) / (factor * side) - 1 for side in (height, width)
    )
    tilt, across, down = rng.normal(0, (0.03, 0.03, 0.04)).tolist()  # Python's floats leave arrays in float32
    zoom = rng.uniform(0.9, 1.05)
    u = zoom * (columns - across) - tilt * rows[:, None]
    v = zoom * (rows[:, None] - down) + tilt * columns
    s = np.abs(u)
    trunk, wall, apex, base, drop, spacing, phase, heart, arms, air = body[:10]

    top, bottom = 0.1 * apex - 0.74, 0.45 + 0.15 * base - 0.06 * (u < 0)
    rest = 1 - np.clip((v - top) / (bottom - top), 0, 1)
    outer = 0.12 + (0.5 + 0.1 * trunk - 0.06 * wall) * np.sqrt(1 - 0.9 * rest**2) - s
    below = v - bottom - 0.6 * (s - 0.38) ** 2
    lung = _step(np.minimum(np.minimum(outer, s - 0.12), -below), 0.02) * (v > top)
    net = np.cos(24 * u + 3 * np.sin(5 * v) + 6 * signs[0]) * np.cos(22 * v + 3 * np.sin(6 * u) + 6 * signs[1])
    filled = haze * (0.35 + 0.35 * np.exp(-(((s - 0.2) / 0.2) ** 2) - ((v + 0.1) / 0.4) ** 2) + 0.3 * net)
    for near, low, size in (signs[2:5], signs[5:8])[: 2 if signs[8] < 0.35 else 1]:
        radius = np.hypot(u - (1 if signs[9] > 0.5 else -1) * (0.25 + 0.25 * near), v + 0.4 - 0.65 * low)
        filled = np.maximum(filled, 0.95 * focus * np.exp(-((radius / (0.2 + 0.1 * size)) ** 3)))
    vessels = sum(
        np.cos(24 * (a - 0.5) * u + 24 * (b - 0.5) * v + 6 * c)
        for a, b, c in zip(body[10::3], body[11::3], body[12::3], strict=True)
    )
    girth = 0.28 + (0.55 + 0.12 * trunk) * _step(v + 0.88 - 0.2 * s, 0.05)
    density = 0.55 * _step(girth - s, 0.03) + 0.25 * _step(0.28 - np.abs(s - 1 - 0.35 * arms - 0.1 * v), 0.03)
    density += 0.2 * _step(below, 0.03) * _step(girth - s - 0.05, 0.05)
    density -= (0.34 + 0.08 * air - 0.05 * vessels) * lung * (1 - np.clip(filled, 0, 1))

    arcs = (v - (0.3 + 0.5 * drop) * s**2) / (0.15 + 0.04 * spacing) + phase
    cage = _step(outer + 0.04, 0.02) * _step(v + 0.8, 0.03) * _step(0.6 - v, 0.05)
    collarbones = np.exp(-(((v + 0.58 + 0.2 * s) / 0.035) ** 2)) * _step(s - 0.08, 0.02) * _step(0.68 - s, 0.03)
    oval = np.hypot((u - 0.1 - 0.06 * v) / (0.24 + 0.1 * heart), (v - bottom + 0.2) / 0.38)
    density += 0.12 * cage * np.exp(3 * np.cos(2 * np.pi * arcs) - 3) + 0.15 * collarbones
    density += 0.35 * np.maximum(_step(1 - oval, 0.05), 0.7 * _step(0.17 - s, 0.03) * _step(v + 0.8, 0.05))
    density += _step(0.08 - s, 0.02) * (0.1 + 0.05 * np.cos(45 * v))

    contrast, white, fog, grain = rng.uniform((1.4, 0.85, 0.0, 0.015), (2.0, 0.98, 0.05, 0.035)).tolist()
    film = fog + (white - fog) * (1 - np.exp(-contrast * np.maximum(density, 0.01)))
    film = film.reshape(height, factor, width, factor).mean((1, 3)) + grain * rng.standard_normal((height, width))
    return np.asarray(np.clip(np.rint(255 * film), 0, 255), dtype=np.uint8)


def _step(distance: np.ndarray, width: float) -> np.ndarray:
    """Rise smoothly from 0 to 1 where `distance` changes sign."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance * (0.5 / width)))


def _check_phantom_arguments(
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
        raise ValueError(
            f"images_per_patient must be at least 1, got {images_per_patient}. It is a mean number of images."
        )
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty must be in [0, 1], got {difficulty}. 0 draws plain opacities, 1 the faintest.")
    if not 0 <= seed < MAX_SEED:
        raise ValueError(f"seed must be in [0, {MAX_SEED}), got {seed}. Patients are numbered from it without overlap.")
