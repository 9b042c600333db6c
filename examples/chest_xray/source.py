"""The images of the example: a folder of real X-rays, a published file, or drawn phantoms."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from condgan.data import ArrayDataset, ChestPhantom, Kermany, MedMNIST, download_medmnist, kermany_test_apart

VARIABLE = "CONDGAN_CHEST_XRAY"
FOLDER = Path("data/chest_xray")
VALIDATION_FRACTION = 0.15
PHANTOM_SHARES = {2: (0.26, 0.74), 3: (0.26, 0.48, 0.26)}
PUBLISHED_SIZES = (28, 64, 128, 224)


@dataclass(frozen=True)
class Source:
    """Three data sets of one origin.

    Attributes:
        train: What generators and classifiers learn from.
        validation: What settings, thresholds and stopping are chosen on.
        test: What results are reported on.
        name: Short name: `kermany`, `pneumoniamnist_64`, `phantom`.
        notice: One sentence that says which data were used, to be shown above every result.
        notes: Further remarks on the data, for the report.
    """

    train: ArrayDataset
    validation: ArrayDataset
    test: ArrayDataset
    name: str
    notice: str
    notes: tuple[str, ...] = ()


def load(
    source: str = "auto",
    *,
    classes: int = 2,
    image_size: int = 64,
    seed: int = 0,
    phantoms: int = 1200,
    downloads: Path | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> Source:
    """Load train, validation and test images.

    Args:
        source: One of
            the path of a folder with the official splits of Kermany et al. (`train`, `val`, `test`);
            the path of a MedMNIST `.npz` file;
            `"phantom"` for drawn pictures;
            `"auto"` for the folder that `$CONDGAN_CHEST_XRAY` names, or else `data/chest_xray` in the working
            directory or the repository, or else, for two classes, PneumoniaMNIST, downloaded once, or else phantoms.
        classes: 2 for normal and pneumonia, 3 for normal, bacterial and viral.
        image_size: Height and width in pixels.
        seed: Seed of the split into train and validation, and of the phantoms.
        phantoms: Number of phantoms to draw for train and validation together; the test gets half as many more.
        downloads: Folder that downloaded files are kept in. By default `condgan` in `$XDG_CACHE_HOME`, or in
            `~/.cache`.
        cache: Folder for decoded copies of a folder's images, see `condgan.data.ImageFolder`. None writes none.
        progress: Whether to show progress bars.

    Returns:
        The data sets, with a notice that says what they are.

    Raises:
        FileNotFoundError: If a path, or the folder that `$CONDGAN_CHEST_XRAY` names, does not exist or has another
            layout.
        ValueError: If `classes` is neither 2 nor 3, or the data has no such classes.
    """
    if classes not in (2, 3):
        raise ValueError(f"classes must be 2 (normal, pneumonia) or 3 (normal, bacterial, viral), got {classes}.")
    if source == "phantom":
        return _phantoms(classes, image_size, seed, phantoms, reason="as asked")
    if source == "auto":
        folder = find_folder()
        if folder is not None:
            return _kermany(folder, classes, image_size, seed, cache, progress)
        if classes == 3:
            reason = "no folder of X-rays was found, and PneumoniaMNIST has two classes only"
            return _phantoms(classes, image_size, seed, phantoms, reason=reason)
        try:
            file = _download(image_size, downloads or default_downloads())
        except OSError:
            reason = "no folder of X-rays was found, and PneumoniaMNIST could not be downloaded"
            return _phantoms(classes, image_size, seed, phantoms, reason=reason)
        return _medmnist(file, classes, image_size)
    path = Path(source)
    if path.suffix.lower() == ".npz":
        return _medmnist(path, classes, image_size)
    if not path.is_dir():
        raise FileNotFoundError(
            f"source must be a folder of X-rays, a MedMNIST .npz file, 'phantom' or 'auto', got {source!r}, which "
            "does not exist."
        )
    return _kermany(path, classes, image_size, seed, cache, progress)


def find_folder() -> Path | None:
    """Return the folder of X-rays that `auto` takes, or None.

    Raises:
        FileNotFoundError: If `$CONDGAN_CHEST_XRAY` names a folder that does not exist.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_dir():
            raise FileNotFoundError(f"${VARIABLE} must name a folder of X-rays, got {named!r}, which does not exist.")
        return Path(named)
    repository = Path(__file__).resolve().parents[2]
    return next((base / FOLDER for base in (Path.cwd(), repository) if (base / FOLDER).is_dir()), None)


def default_downloads() -> Path:
    """Return the user's cache folder for downloaded files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "condgan"


def _kermany(root: Path, classes: int, image_size: int, seed: int, cache: Path | None, progress: bool) -> Source:
    """Take validation from the official train split by patient: the official `val` of 16 images stays unused.

    A tenth of the patients is left out of the train split: they are held out for a last study.
    No patient number of one cause is in both train and test. 170 numbers occur with one cause in train and with the
    other in test; whether these are the same children is not documented.
    """
    shape, count = (1, image_size, image_size), cast("Literal[2, 3]", classes)
    train = Kermany(root, "train", count, shape, patients="development", cache=cache, progress=progress)
    test = kermany_test_apart(train, Kermany(root, "test", count, shape, cache=cache, progress=progress))
    rest, validation = train.split(VALIDATION_FRACTION, seed=seed)
    return Source(
        train=rest,
        validation=validation,
        test=test,
        name="kermany",
        notice=f"REAL X-RAYS: the paediatric chest X-rays of Kermany et al. in {root.resolve().name!r}, validation "
        "split off the official train split by patient, official test split. A tenth of the training patients is held "
        "out for a later study.",
        notes=(
            "170 patient numbers occur with one cause of pneumonia in train and with the other in test; whether these "
            "are the same children is not documented.",
            "The official test images differ from the training images in more than their patients: classifiers of real "
            "images call many normal children of the test set ill, which validation images do not show.",
        ),
    )


def _medmnist(file: Path, classes: int, image_size: int) -> Source:
    """Take the published splits: the file names no patients, so no other split could keep them whole."""
    train, validation, test = (MedMNIST(file, split) for split in ("train", "val", "test"))
    if train.num_classes != classes:
        raise ValueError(
            f"classes={classes} does not fit {str(file)!r}, which has {train.num_classes}: "
            f"{', '.join(train.class_names)}. For three classes point to a folder of X-rays, or take 'phantom'."
        )
    return Source(
        train=train.resize(image_size, image_size),
        validation=validation.resize(image_size, image_size),
        test=test.resize(image_size, image_size),
        name=file.stem,
        notice=f"REAL IMAGES, CENTRE-CROPPED: {file.stem} of MedMNIST with its published splits, shown at "
        f"{image_size} pixels; its patients are unknown, so intervals by image are too narrow.",
    )


def _phantoms(classes: int, image_size: int, seed: int, count: int, *, reason: str) -> Source:
    """Draw train and test from two seeds that no other `seed` of this function uses: no patient is in both."""

    def draw(total: int, part: int) -> ChestPhantom:
        counts = [round(share * total) for share in PHANTOM_SHARES[classes]]
        return ChestPhantom(counts, classes=classes, image_shape=(1, image_size, image_size), seed=2 * seed + part)

    train, test = draw(count, 0), draw(count // 2, 1)
    rest, validation = train.split(VALIDATION_FRACTION, seed=seed)
    return Source(
        train=rest,
        validation=validation,
        test=test,
        name="phantom",
        notice=f"NO REAL X-RAY WAS USED: every image is a drawn phantom ({reason}), and no result below says anything "
        "about patients.",
    )


def _download(image_size: int, folder: Path) -> Path:
    size = next((size for size in PUBLISHED_SIZES[1:] if size >= image_size), PUBLISHED_SIZES[-1])
    return download_medmnist("pneumoniamnist", size, folder=folder)
