"""Images read from a folder: one sub-folder per class, or classes and groups by functions of the path."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from condgan.data.dataset import ArrayDataset, listing
from condgan.files import write_whole
from condgan.types import ImageShape

EXTENSIONS = (".jpg", ".jpeg", ".png")
_MODES = {1: "L", 3: "RGB"}
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
_DECODER_VERSION = 1
_MAX_WORKERS = 16

Name = TypeVar("Name")


class ImageFolder(ArrayDataset):
    r"""Labelled images of a folder, decoded once into memory.

    JPEG and PNG files are found at any depth, also through symbolic links, and kept in the order of their relative
    paths. Hidden files and `__MACOSX` folders, which some archives contain, are skipped. All problems of a kind are
    reported at once: files that cannot be decoded, empty class folders, classes with a single image.

    Images are rotated as their EXIF tag says, composed on black where they are transparent, converted to the requested
    channels, and resized to the requested size with Pillow's Lanczos filter (antialiased); the aspect ratio is not
    kept. 16-bit greyscale is divided by 257, so that 0 to 65535 become 0 to 255; 12-bit values stored in 16 bits are
    therefore dark, and should be rescaled on disk first. A much larger JPEG is decoded at a half, a quarter or an
    eighth of its size (`PIL.Image.Image.draft`), but never at less than twice the requested size. That is several times
    faster on radiographs of 2000 pixels, and changes edges by a grey level or two.

    Args:
        root: Folder that holds the images. By default it holds one folder for each class.
        image_shape: Channels (1 or 3), height and width of the images in memory.
        label: Maps a path relative to `root` to the name of its class. By default the name of its first folder.
        group: Maps a path relative to `root` to its group, such as its patient. By default there are no groups.
        class_names: Names of the classes in label order. By default all names found, sorted.
        select: Maps a path relative to `root` to whether its image belongs to the data set. Other files are not opened.
            By default all images do.
        workers: Number of threads that decode. By default one for each processor, at most 16.
        progress: Whether to show a progress bar.
        cache: Folder for a copy of the decoded images, from which the next call reads them. The copy is not used when
            names, sizes or modification times of the files have changed. None writes nothing: whether patients' images
            are copied is your decision.
        source: Where the images come from, for results and messages. By default the name of the folder.
        attribution: Credit to give wherever images are shown.

    Attributes:
        paths: Paths of the images relative to `root`, with forward slashes.

    Raises:
        FileNotFoundError: If `root` does not exist.
        ValueError: If `image_shape` is not supported, there are no images, some cannot be decoded, or the classes do
            not fit.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("normal/ada-1", "normal/ben-1", "ill/cyd-1", "ill/cyd-2"):
        ...     path = root / f"{name}.png"
        ...     path.parent.mkdir(exist_ok=True)
        ...     Image.new("L", (40, 30)).save(path)
        >>> data = ImageFolder(root, (1, 28, 28), group=lambda path: path.stem.split("-")[0], progress=False)
        >>> data.class_names, data.class_counts, data.group_names
        (('ill', 'normal'), (2, 2), ('ada', 'ben', 'cyd'))
        >>> data.paths[0], data.image_shape
        ('ill/cyd-1.png', (1, 28, 28))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        image_shape: ImageShape,
        label: Callable[[Path], str] | None = None,
        group: Callable[[Path], str | int] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        select: Callable[[Path], bool] | None = None,
        workers: int | None = None,
        progress: bool = True,
        cache: str | os.PathLike[str] | None = None,
        source: str | None = None,
        attribution: str | None = None,
    ) -> None:
        folder = Path(root)
        _check_folder_arguments(folder, image_shape, workers)
        paths = _find_images(folder)
        if select is not None:
            paths = [path for path, chosen in zip(paths, _name_all("select", select, paths), strict=True) if chosen]
            if not paths:
                raise ValueError(f"select must keep at least one image of {str(folder)!r}, and kept none.")
        if label is None:
            _check_class_folders(folder, paths)
        found = _name_all("label", label or _first_folder, paths)
        names = _check_classes(folder, found, class_names)
        super().__init__(
            _load(folder, paths, image_shape, workers=workers, progress=progress, cache=cache),
            [names.index(name) for name in found],
            class_names=names,
            groups=None if group is None else [str(name) for name in _name_all("group", group, paths)],
            source=folder.resolve().name if source is None else source,
            attribution=attribution,
            paths=[path.as_posix() for path in paths],
        )


def _check_folder_arguments(root: Path, image_shape: ImageShape, workers: int | None) -> None:
    if len(image_shape) != 3 or image_shape[0] not in _MODES or min(image_shape[1:]) < 1:
        raise ValueError(
            "image_shape must be (1, height, width) for greyscale or (3, height, width) for color, got "
            f"{tuple(image_shape)}."
        )
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}. Pass None for one thread for each processor.")
    if not root.is_dir():
        problem = "it is a file" if root.exists() else "it does not exist"
        raise FileNotFoundError(
            f"root must be a folder of images, got {str(root)!r}, and {problem} (seen from {str(Path.cwd())!r})."
        )


def _find_images(root: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        names = (name for name in files if name.lower().endswith(EXTENSIONS) and not name.startswith("."))
        found += [(Path(parent) / name).relative_to(root) for name in names]
    if not found:
        raise ValueError(
            f"{str(root)!r} holds no images at any depth: expected files ending in {', '.join(EXTENSIONS)}."
        )
    return sorted(found, key=lambda path: path.as_posix())


def _first_folder(path: Path) -> str:
    return path.parts[0]


def _check_class_folders(root: Path, paths: Sequence[Path]) -> None:
    loose = [path.name for path in paths if len(path.parts) == 1]
    if loose:
        raise ValueError(
            f"{str(root)!r} must hold one folder for each class, got {len(loose)} images outside of any: "
            f"{listing(loose)}. Sort them into folders, point to the folder above if this one is a class, or "
            "pass label=, which maps a path to the name of its class."
        )
    folders = {entry.name for entry in root.iterdir() if entry.is_dir()}
    visible = {name for name in folders if not name.startswith(".") and name != "__MACOSX"}
    empty = sorted(visible - {path.parts[0] for path in paths})
    if empty:
        raise ValueError(
            f"every class folder must hold images, got {len(empty)} without any: {listing(empty)}. Fill or delete "
            f"them. Only {', '.join(EXTENSIONS)} files are read."
        )
    if len(visible) > 1 and {name.lower() for name in visible} <= _SPLIT_NAMES:
        raise ValueError(
            f"expected one folder for each class in {str(root)!r}, got {listing(sorted(visible))}, which look like "
            f"splits. Point to one of them, such as {str(root / min(visible))!r}."
        )


def _name_all(role: str, rule: Callable[[Path], Name], paths: Sequence[Path]) -> list[Name]:
    names: list[Name] = []
    failures = []
    for path in paths:
        try:
            names.append(rule(path))
        except ValueError as error:
            failures.append(f"{path.as_posix()} ({error})")
    if failures:
        raise ValueError(f"{role} raised an error for {len(failures)} of {len(paths)} paths: {listing(failures)}.")
    return names


def _check_classes(root: Path, found: Sequence[str], class_names: Sequence[str] | None) -> list[str]:
    wrong = [repr(name) for name in found if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"label must return the name of a class, a string, got {listing(wrong[:1])}.")
    counts = Counter(found)
    names = sorted(counts) if class_names is None else list(class_names)
    unknown = sorted(set(counts) - set(names))
    if unknown:
        raise ValueError(
            f"class_names must name every class, got {names}, while the images have {len(unknown)} more: "
            f"{listing(unknown)}. Add them, or keep those images elsewhere."
        )
    rare = [f"{name!r} ({counts[name]})" for name in names if counts[name] < 2]
    if rare:
        raise ValueError(
            f"every class needs at least two images, got {len(rare)} with fewer: {listing(rare)}. Add images, or "
            "leave the class out."
        )
    if len(names) < 2:
        raise ValueError(
            f"expected at least two classes in {str(root)!r}, got one: {names[0]!r}. Point to the folder that holds "
            f"one folder for each class{_suggestion(root, names[0])}."
        )
    return names


def _suggestion(root: Path, name: str) -> str:
    inner = root / name
    if inner.is_dir() and sum(entry.is_dir() for entry in inner.iterdir()) > 1:
        return f", such as {str(inner)!r}"
    return ""


def _load(
    root: Path,
    paths: Sequence[Path],
    image_shape: ImageShape,
    *,
    workers: int | None,
    progress: bool,
    cache: str | os.PathLike[str] | None,
) -> Tensor:
    if cache is None:
        return _decode_all(root, paths, image_shape, workers=workers, progress=progress)
    file = Path(cache) / f"images-{_cache_key(root, paths, image_shape)}.npy"
    images = _read_cache(file, (len(paths), *image_shape))
    if images is None:
        images = _decode_all(root, paths, image_shape, workers=workers, progress=progress)
        _write_cache(file, images)
    return images


def _decode_all(
    root: Path, paths: Sequence[Path], image_shape: ImageShape, *, workers: int | None, progress: bool
) -> Tensor:
    images = np.empty((len(paths), *image_shape), dtype=np.uint8)

    def decode(i: int) -> str | None:
        # Pillow raises OSError, SyntaxError, ValueError, zlib.error and more for broken files
        try:
            images[i] = _decode(root / paths[i], image_shape)
        except Exception as error:
            return f"{paths[i].as_posix()} ({type(error).__name__}: {error})"
        return None

    count = min(os.cpu_count() or 1, _MAX_WORKERS) if workers is None else workers
    with ThreadPoolExecutor(count) as pool:
        results = tqdm(
            pool.map(decode, range(len(paths))),
            total=len(paths),
            desc=f"Reading {root.name}",
            unit="image",
            delay=0.5,
            disable=not progress,
        )
        failures = [failure for failure in results if failure is not None]
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(paths)} images in {str(root)!r} cannot be decoded: {listing(failures)}. "
            "Replace or delete them."
        )
    return torch.from_numpy(images)


def _decode(path: Path, image_shape: ImageShape) -> np.ndarray:
    channels, height, width = image_shape
    mode = _MODES[channels]
    with Image.open(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        drafted = None if turned else image.draft(mode, (2 * width, 2 * height))
        ImageOps.exif_transpose(image, in_place=True)
        # the last row and column of a drafted image may be partial: the box leaves out what lies beyond the original
        box = None if drafted is None else drafted[1]
        pixels = np.asarray(_convert(image, mode).resize((width, height), Image.Resampling.LANCZOS, box))
    if pixels.dtype != np.uint8:
        pixels = pixels.round().clip(0, 255).astype(np.uint8)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion of 16 bits clips at 255, and it has no Lanczos filter for them.
        return Image.fromarray(np.asarray(image).astype(np.float32) / 257)
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "black"), opaque).convert(mode)
    return image.convert(mode)


def _cache_key(root: Path, paths: Iterable[Path], image_shape: ImageShape) -> str:
    digest = hashlib.sha256(repr((_DECODER_VERSION, tuple(image_shape))).encode())
    for path in paths:
        stat = (root / path).stat()
        digest.update(repr((path.as_posix(), stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()[:24]


def _read_cache(file: Path, shape: tuple[int, ...]) -> Tensor | None:
    try:
        images = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # no such file, or a damaged one
        return None
    return torch.from_numpy(images) if images.dtype == np.uint8 and images.shape == shape else None


def _write_cache(file: Path, images: Tensor) -> None:
    with write_whole(file) as stream:
        Path(stream.name).chmod(0o600)  # no other user may read patients' images
        np.save(stream, images.numpy(), allow_pickle=False)
