"""The X-rays of Kermany et al. as the study takes them: validation apart by patient, the official test set."""

from __future__ import annotations

from pathlib import Path

from configs import Size

from condgan.data import ArrayDataset, Kermany

VALIDATION_FRACTION = 0.15


def load(root: Path, classes: int, size: Size, cache: Path | None) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """Return training, validation and test images; validation is split off the training patients."""
    shape = size.config.image_shape
    official = Kermany(root, "train", classes, shape, cache=cache, progress=False)  # type: ignore[arg-type]
    train, validation = official.split(VALIDATION_FRACTION, seed=0)
    if size.split == "development":
        rest, epochs = train.split(VALIDATION_FRACTION, seed=1)
        return rest, epochs, validation
    return train, validation, Kermany(root, "test", classes, shape, cache=cache, progress=False)  # type: ignore[arg-type]
