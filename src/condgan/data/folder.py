"""Images read from a folder: one sub-folder per class, or classes and groups by functions of the path."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from condgan.data.dataset import ArrayDataset, check_group_names, listing
from condgan.data.decoding import DECODER_VERSION, EXTENSIONS, MODES, Window, decode_all
from condgan.data.finding import Found, find_images, list_paths
from condgan.files import as_path, check_archive, write_whole
from condgan.types import ImageShape

_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}

OnError = Literal["raise", "skip"]
"""What happens when an image cannot be decoded."""

Name = TypeVar("Name")


class ImageFolder(ArrayDataset):
    r"""Labelled images of a folder, decoded once into memory.

    JPEG, PNG, BMP, TIFF and WebP files are found at any depth and kept in the order of their relative paths. Symbolic
    links are followed, except to what is read anyway or contains the folder. Hidden files and `__MACOSX` folders, which
    some archives contain, are skipped; of links and image files that are left out, a warning says how many and which.
    All problems of a kind are reported at once: files that cannot be decoded, empty class folders, classes with a
    single image.

    Images are rotated as their EXIF tag says, composed on black where they are transparent, converted to the requested
    channels, and resized to the requested size with Pillow's Lanczos filter (antialiased); the aspect ratio is not
    kept. A much larger JPEG is decoded at a half, a quarter or an eighth of its size (`PIL.Image.Image.draft`), but
    never at less than twice the requested size. That is several times faster on radiographs of 2000 pixels, and changes
    edges by a grey level or two.

    Greyscale of more than 8 bits (16 or 32 bits, or floats) is mapped by one `window` for the whole data set,
    $255 (v - low) / (high - low)$, so that brightness can be compared between images.

    Args:
        root: Folder that holds the images. By default it holds one folder for each class.
        image_shape: Channels (1 or 3), height and width of the images in memory.
        label: Maps a path relative to `root` to the name of its class. By default the name of its first folder.
        group: Maps a path relative to `root` to its group, such as its patient. By default there are no groups.
        class_names: Names of the classes in label order. By default all names found, sorted.
        select: Maps a path relative to `root` to whether its image belongs to the data set. Other files are not opened.
            By default all images do.
        workers: Number of threads that decode. By default one for each processor, at most 16.
        window: The values that become black and white in greyscale images of more than 8 bits. By default from 0 to
            the smallest of 1, 255, 1023, 4095, 16383 and 65535 that no value exceeds, and otherwise the range of all
            values; a warning says which, unless it is (0, 65535). State it to read training and test images alike.
        on_error: `"raise"` an error that lists the files that cannot be decoded, or `"skip"` them with a warning.
        progress: Whether to show a progress bar.
        cache: Folder for a copy of the decoded images, from which the next call reads them. The copy is not used when
            names, sizes or modification times of the files have changed, and not made when images are skipped. None
            writes nothing: whether patients' images are copied is your decision.
        source: Where the images come from, for results and messages. By default the name of the folder.
        attribution: Credit to give wherever images are shown.

    Attributes:
        paths: Paths of the images relative to `root`, with forward slashes.
        skipped: Why each skipped image cannot be decoded, by its path relative to `root`.

    Raises:
        FileNotFoundError: If `root` does not exist.
        ValueError: If `image_shape` or `window` is not supported, there are no images, some cannot be decoded (damaged
            files, several pages, more pixels than `PIL.Image.MAX_IMAGE_PIXELS`), a group is missing, or the classes do
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
        window: Window | None = None,
        on_error: OnError = "raise",
        progress: bool = True,
        cache: str | os.PathLike[str] | None = None,
        source: str | None = None,
        attribution: str | None = None,
    ) -> None:
        folder = as_path(root)
        _check_folder_arguments(folder, image_shape, workers, window, on_error)
        found = find_images(folder)
        paths = found.images
        if not paths:
            raise ValueError(
                f"{str(folder)!r} holds no images at any depth: expected files ending in {', '.join(EXTENSIONS)}, got "
                f"{f'others: {list_paths(found.others)}. Convert them' if found.others else 'none'}."
            )
        if select is not None:
            paths = [path for path, chosen in zip(paths, _name_all("select", select, paths), strict=True) if chosen]
            if not paths:
                raise ValueError(f"select must keep at least one image of {str(folder)!r}, and kept none.")
        if label is None:
            _check_class_folders(folder, found)
        found.warn(folder)
        classes = _name_all("label", label or _first_folder, paths)
        names = _check_classes(classes, class_names)
        places = [path.as_posix() for path in paths]
        groups = None if group is None else [str(name) for name in _name_all("group", group, paths)]
        if groups is not None:
            check_group_names(groups, places)
        images, failures = _load(
            folder, paths, image_shape, workers=workers, window=window, progress=progress, cache=cache
        )
        if failures:
            _report(folder, paths, failures, on_error)
        self.skipped = {places[i]: reason for i, reason in failures.items()}
        kept = [i for i in range(len(paths)) if i not in failures]
        super().__init__(
            images[kept] if failures else images,
            [names.index(classes[i]) for i in kept],
            class_names=names,
            groups=None if groups is None else [groups[i] for i in kept],
            source=folder.resolve().name if source is None else source,
            attribution=attribution,
            paths=[places[i] for i in kept],
        )


def _check_folder_arguments(
    root: Path, image_shape: ImageShape, workers: int | None, window: Window | None, on_error: str
) -> None:
    if len(image_shape) != 3 or image_shape[0] not in MODES or min(image_shape[1:]) < 1:
        raise ValueError(
            "image_shape must be (1, height, width) for greyscale or (3, height, width) for color, got "
            f"{tuple(image_shape)}. Read images of other channels into an array, and pass it to ArrayDataset."
        )
    if window is not None and not (len(window) == 2 and -np.inf < window[0] < window[1] < np.inf):
        raise ValueError(
            f"window must be two numbers, that of black and the larger one of white, got {window!r}. For 12 bits pass "
            "(0, 4095)."
        )
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}. Pass None for one thread for each processor.")
    if not root.is_dir():
        problem = "it is a file" if root.exists() else "it does not exist"
        raise FileNotFoundError(
            f"root must be a folder of images, got {str(root)!r}, and {problem} (seen from {str(Path.cwd())!r})."
        )


def _first_folder(path: Path) -> str:
    return path.parts[0]


def _check_class_folders(root: Path, found: Found) -> None:
    loose = [path for path in found.images if len(path.parts) == 1]
    if loose:
        raise ValueError(
            f"{str(root)!r} must hold one folder for each class, got {len(loose)} images outside of any: "
            f"{list_paths(loose)}. Sort them into folders, point to the folder above if this one is a class, or "
            "pass label=, which maps a path to the name of its class."
        )
    folders = {entry.name for entry in root.iterdir() if entry.is_dir()}
    visible = {name for name in folders if not name.startswith(".") and name != "__MACOSX"}
    if len(visible) > 1 and {name.lower() for name in visible} <= _SPLIT_NAMES:
        raise ValueError(
            f"expected one folder for each class in {str(root)!r}, got {listing(sorted(visible))}, which look like "
            f"splits. Point to one of them, such as {str(root / min(visible))!r}."
        )
    empty = sorted(visible - {path.parts[0] for path in (*found.images, *found.links)})
    if empty:
        raise ValueError(
            f"every class folder must hold images, got {len(empty)} without any: {listing(empty)}. Fill or delete "
            f"them. Only {', '.join(EXTENSIONS)} files are read."
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


def _check_classes(found: Sequence[str], class_names: Sequence[str] | None) -> list[str]:
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
    return names


def _load(
    root: Path,
    paths: Sequence[Path],
    image_shape: ImageShape,
    *,
    workers: int | None,
    window: Window | None,
    progress: bool,
    cache: str | os.PathLike[str] | None,
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the images, and why some cannot be decoded, by their places among the paths."""
    if cache is None:
        return decode_all(root, paths, image_shape, workers=workers, window=window, progress=progress)
    key = _cache_key(root, paths, image_shape, window)
    file = as_path(cache) / f"images-{key}.npz"
    images = _read_cache(file, (len(paths), *image_shape))
    if images is not None:
        return images, {}
    images, failures = decode_all(root, paths, image_shape, workers=workers, window=window, progress=progress)
    if not failures:
        _write_cache(file, images)
    return images, failures


def _report(root: Path, paths: Sequence[Path], failures: dict[int, str], on_error: OnError) -> None:
    listed = listing([f"{paths[i].as_posix()} ({reason})" for i, reason in failures.items()])
    counted = f"{len(failures)} of {len(paths)} images in {str(root)!r}"
    if on_error == "raise" or len(failures) == len(paths):
        raise ValueError(
            f"{counted} cannot be decoded: {listed}. Replace or delete them, or leave them out with on_error='skip'."
        )
    warnings.warn(f"{counted} are left out, because they cannot be decoded: {listed}.", stacklevel=3)


def _cache_key(root: Path, paths: Iterable[Path], image_shape: ImageShape, window: Window | None) -> str:
    digest = hashlib.sha256(repr((DECODER_VERSION, tuple(image_shape), window)).encode())
    for path in paths:
        stat = (root / path).stat()
        digest.update(repr((path.as_posix(), stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()[:24]


def _read_cache(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        with file.open("rb") as stream:
            check_archive(stream)
            images = np.load(stream, allow_pickle=False)["images"]
    except Exception:  # no such file, or a damaged one, whose reading can fail in any way
        return None
    return images if images.dtype == np.uint8 and images.shape == shape else None


def _write_cache(file: Path, images: np.ndarray) -> None:
    with write_whole(file) as stream:
        Path(stream.name).chmod(0o600)  # no other user may read patients' images
        np.savez(stream, images=images)
