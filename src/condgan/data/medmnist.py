"""The published `.npz` files of MedMNIST, and a verified download of PneumoniaMNIST."""

from __future__ import annotations

import http.client
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from condgan.data.dataset import ArrayDataset
from condgan.files import as_path, check_archive

MedMNISTSplit = Literal["train", "val", "test"]

SIZES = (28, 64, 128, 224)
_MAX_RATIO = 100  # photographs compress to a tenth at best
_SMALL = 2**28
_SPLITS = ("train", "val", "test")
_URL = "https://zenodo.org/records/10519652/files/{file}?download=1"
_MD5 = {
    "pneumoniamnist.npz": "28209eda62fecd6e6a2d98b1501bb15f",
    "pneumoniamnist_64.npz": "8f4eceb4ccffa70c672198ea285246c6",
    "pneumoniamnist_128.npz": "05b46931834c231683c68f40c47b2971",
    "pneumoniamnist_224.npz": "d6a3c71de1b945ea11211b03746c1fe1",
}
_CLASS_NAMES = {"pneumoniamnist": ("normal", "pneumonia")}
_ATTRIBUTION = {
    "pneumoniamnist": "Chest X-rays: PneumoniaMNIST, Yang et al., MedMNIST v2, Scientific Data 10 (2023) 41, "
    "doi 10.5281/zenodo.10519652, CC BY 4.0; from Kermany et al., Cell 172 (2018) 1122-1131. Resized.",
}


class MedMNIST(ArrayDataset):
    """One split of a published MedMNIST file of 2D images with one label each.

    These files do not say which patient an image shows, so `groups` is None and no split of them can keep patients
    whole. Their chest X-rays are center-cropped: results do not compare with those on whole images.

    Args:
        path: The published `.npz` file.
        split: `"train"`, `"val"` or `"test"`.
        class_names: Names of the classes in label order. By default those of PneumoniaMNIST where the file is named
            so, and the labels themselves otherwise.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a published MedMNIST file, holds volumes or several labels per image, unpacks to
            more than 100 times its size, or `split` is unknown.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "examplemnist.npz"
        >>> arrays = {}
        >>> for name in ("train", "val", "test"):
        ...     arrays[f"{name}_images"] = np.zeros((4, 28, 28), dtype=np.uint8)
        ...     arrays[f"{name}_labels"] = np.array([[0], [1], [0], [1]])
        >>> np.savez(path, **arrays)
        >>> MedMNIST(path, "test", class_names=["normal", "ill"])
        MedMNIST(4 samples of shape (1, 28, 28); normal: 2, ill: 2; from examplemnist, official test split)

    References:
        Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
        classification", Scientific Data 10 (2023), arXiv:2110.14795.
    """

    def __init__(
        self, path: str | os.PathLike[str], split: MedMNISTSplit = "train", class_names: Sequence[str] | None = None
    ) -> None:
        file = as_path(path)
        if split not in _SPLITS:
            raise ValueError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}.")
        images, labels, num_classes = _read(file, split)
        name = file.stem.split("_")[0].lower()
        if class_names is None:
            class_names = _CLASS_NAMES.get(name, tuple(map(str, range(num_classes))))
        super().__init__(
            images,
            labels,
            class_names=class_names,
            source=f"{file.stem}, official {split} split",
            attribution=_ATTRIBUTION.get(name),
        )


def download_medmnist(name: str = "pneumoniamnist", size: int = 64, *, folder: str | os.PathLike[str]) -> Path:
    """Download a published file of MedMNIST and verify its checksum; a verified file in the folder is kept.

    Args:
        name: Name of the data set; only `"pneumoniamnist"` is supported.
        size: Height and width of the images: 28, 64, 128 or 224.
        folder: Folder that the file is, or will be, in.

    Returns:
        Path of the file.

    Raises:
        ConnectionError: If the file cannot be fetched.
        OSError: If the downloaded file has the wrong checksum, or the folder cannot be written.
        ValueError: If `name` or `size` is unknown.

    Examples:
        >>> path = download_medmnist("pneumoniamnist", 64, folder="data")  # doctest: +SKIP
        >>> train = MedMNIST(path, "train")  # doctest: +SKIP
    """
    from torchvision.datasets.utils import download_url

    file = name.lower() + ("" if size == 28 else f"_{size}") + ".npz"
    if file not in _MD5:
        raise ValueError(
            f"expected the name 'pneumoniamnist' and a size among {', '.join(map(str, SIZES))}, got {name!r} and "
            f"{size!r}. Fetch other files from https://medmnist.com and pass their path to MedMNIST."
        )
    url, target = _URL.format(file=file), as_path(folder) / file
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url(url, target.parent, file, _MD5[file])
    except (OSError, http.client.HTTPException, RecursionError) as error:
        raise ConnectionError(
            f"{url} cannot be fetched: {error}. Fetch it by hand where there is a network and put it at "
            f"{str(target)!r}."
        ) from error
    except RuntimeError as error:
        arrived = target.stat().st_size
        target.unlink()
        raise OSError(
            f"{url} must have the MD5 checksum {_MD5[file]}, and the {arrived} bytes that arrived have another. "
            "Try again, or fetch the file by hand."
        ) from error
    return target


def _read(file: Path, split: str) -> tuple[np.ndarray, np.ndarray, int]:
    if not file.is_file():
        raise FileNotFoundError(f"expected a published MedMNIST file, got {str(file)!r}, which is not a file.")
    with file.open("rb") as stream:
        try:
            archive = np.load(stream, allow_pickle=False)
        except (ValueError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(
                f"{str(file)!r} is not a published MedMNIST .npz file: {error}. Fetch it again."
            ) from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{str(file)!r} must be an .npz archive of several arrays, got a single array.")
        keys = [f"{name}_{part}" for name in _SPLITS for part in ("images", "labels")]
        missing = [key for key in keys if key not in archive.files]
        if missing:
            raise ValueError(
                f"{str(file)!r} lacks the arrays {', '.join(missing)} of a published MedMNIST file, it has "
                f"{', '.join(archive.files) or 'none'}."
            )
        with zipfile.ZipFile(file) as entries:
            packed, unpacked = file.stat().st_size, sum(entry.file_size for entry in entries.infolist())
        if unpacked > max(_SMALL, _MAX_RATIO * packed):
            raise ValueError(
                f"{str(file)!r} must not unpack to more than {_MAX_RATIO} times its size, got {unpacked} bytes in a "
                f"file of {packed}. Fetch it again."
            )
        try:
            check_archive(stream)
            every_label = [archive[f"{name}_labels"] for name in _SPLITS]
            images = archive[f"{split}_images"]
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, MemoryError) as error:
            raise ValueError(f"{str(file)!r} is damaged: {error}. Fetch it again.") from error
    every_label = [_flat_labels(file, labels) for labels in every_label]
    num_classes = max(int(labels.max(initial=0)) for labels in every_label) + 1
    count = sum(map(len, every_label))
    if num_classes > count:
        raise ValueError(
            f"labels in {str(file)!r} must be 0, 1, 2, ... without gaps, got {num_classes - 1} among those of {count} "
            "images. Fetch it again."
        )
    return _channels_first(file, images), every_label[_SPLITS.index(split)], num_classes


def _flat_labels(file: Path, labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(
            f"{str(file)!r} has {labels.shape[1]} labels for each image (as ChestMNIST has), expected one: a class "
            "condition is a single class. Choose one finding, and pass images and labels to ArrayDataset."
        )
    if labels.ndim not in (1, 2) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels in {str(file)!r} must be integers of the shape (N, 1), got {labels.dtype} of the shape "
            f"{labels.shape}."
        )
    return labels.reshape(-1).astype(np.int64)


def _channels_first(file: Path, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8:
        raise ValueError(f"images in {str(file)!r} must be uint8, got {images.dtype}.")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] == 3:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    raise ValueError(
        f"images in {str(file)!r} must have the shape (N, H, W) or (N, H, W, 3), got {images.shape}. Volumes are not "
        "supported: choose slices, and pass them to ArrayDataset."
    )
