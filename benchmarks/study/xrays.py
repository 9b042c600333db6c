"""The X-rays of Kermany et al. for the study: validation split off by patient, and the official test set."""

from __future__ import annotations

from pathlib import Path

from configs import Size

from condgan.data import ArrayDataset, Kermany, kermany_held_out, kermany_patient, kermany_test_apart

VALIDATION_FRACTION = 0.15


def check_not_held_out(*sets: ArrayDataset) -> None:
    """Check that no image shows a patient who is held out for the last study.

    Raises:
        ValueError: If one does.
    """
    found = {kermany_patient(Path(path)) for images in sets for path in images.paths} & kermany_held_out()
    if found:
        raise ValueError(
            f"these images show {len(found)} patients who are held out for the last study, such as {min(found)}. "
            "Load them with Kermany(..., patients='development')."
        )


def load(root: Path, classes: int, size: Size, cache: Path | None) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """Return training, validation and test images; validation is split off the training patients.

    Patients who are held out for the last study are in none of them. Sizes that were published before patients were
    held out (`cpu`, `longer` and the diagnoses) had them among their training images.
    """
    shape = size.config.image_shape
    official = Kermany(
        root,
        "train",
        classes,  # type: ignore[arg-type]
        shape,
        patients="development",
        cache=cache,
        progress=False,
    )
    check_not_held_out(official)
    train, validation = official.split(VALIDATION_FRACTION, seed=0)
    if size.split == "development":
        rest, epochs = train.split(VALIDATION_FRACTION, seed=1)
        return rest, epochs, validation
    test = Kermany(root, "test", classes, shape, cache=cache, progress=False)  # type: ignore[arg-type]
    return train, validation, kermany_test_apart(official, test)
