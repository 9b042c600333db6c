"""Image files as uint8 arrays of one size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps
from tqdm import tqdm

from condgan.types import ImageShape

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jpe", ".jfif")
MODES = {1: "L", 3: "RGB"}
DECODER_VERSION = 2
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_WHITES = (1, 255, 1023, 4095, 16383, 65535)
_MAX_WORKERS = 16

Window = tuple[float, float]
"""The values of an image that become black and white."""

Result = TypeVar("Result")


def decode_all(
    root: Path,
    paths: Sequence[Path],
    image_shape: ImageShape,
    *,
    workers: int | None,
    window: Window | None,
    progress: bool,
) -> tuple[np.ndarray, dict[int, str]]:
    """Decode image files with several threads.

    Args:
        root: Folder of the files.
        paths: Paths of the files relative to `root`.
        image_shape: Channels (1 or 3), height and width of the result.
        workers: Number of threads; by default one for each processor, at most 16.
        window: The values that become black and white in greyscale images of more than 8 bits; by default one that
            suits all of them, which a warning states.
        progress: Whether to show a progress bar.

    Returns:
        The images, and why some cannot be decoded, by their places among the paths; the pixels of these are arbitrary.

    Shape:
        - the images: `(N, *image_shape)`, uint8.
    """
    images = np.empty((len(paths), *image_shape), dtype=np.uint8)
    failures: dict[int, str] = {}

    def each(doing: str, work: Callable[[int], Result]) -> list[Result | None]:
        def attempt(i: int) -> Result | None:
            # Pillow raises OSError, SyntaxError, ValueError, zlib.error and more for broken files
            try:
                return None if i in failures else work(i)
            except Exception as error:
                failures[i] = f"{type(error).__name__}: {error}"
                return None

        results = pool.map(attempt, range(len(paths)))
        description = f"{doing} {root.name}"
        bar = tqdm(results, description, len(paths), unit="image", delay=0.5, disable=not progress)
        return list(bar)

    def decode(window: Window, i: int) -> None:
        images[i] = _decode(root / paths[i], image_shape, window)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_WORKERS) if workers is None else workers) as pool:
        if window is None:
            ranges = each("Looking through", lambda i: _deep_range(root / paths[i]))
            window = _choose_window(root, [found for found in ranges if found is not None])
        each("Reading", partial(decode, window))
    return images, dict(sorted(failures.items()))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image of one page whose number of pixels is bearable, without decoding it."""
    if not path.is_file():  # opening a pipe would wait for ever
        raise ValueError("is no regular file")
    with Image.open(path, formats=_FORMATS) as image:
        width, height = image.size
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(
                f"has {width} x {height} pixels, expected at most {Image.MAX_IMAGE_PIXELS}: raise "
                "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            )
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph and its previews
        if pages != 1:
            raise ValueError(f"holds {pages} pages, expected one image: save each page as a file")
        yield image


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _deep_values(image: Image.Image) -> np.ndarray:
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite")
    return values


def _deep_range(path: Path) -> Window | None:
    """Return the smallest and the largest value of an image of more than 8 bits, and None of any other."""
    with _opened(path) as image:
        if not _is_deep(image):
            return None
        values = _deep_values(image)
        return float(values.min()), float(values.max())


def _choose_window(root: Path, ranges: Sequence[Window]) -> Window:
    """Return the window of images with these ranges, and say it unless it is that of 16 bits."""
    standard = (0.0, float(_WHITES[-1]))
    if not ranges:
        return standard
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    white = next((float(white) for white in _WHITES if high <= white), high)
    window = (0.0, white) if low >= 0 else (low, max(high, low + 1))
    if window != standard:
        black, white = window
        warnings.warn(
            f"{len(ranges)} images of more than 8 bits in {str(root)!r} have values from {low:g} to {high:g}: "
            f"{black:g} becomes black, {white:g} white. Pass window=({black:g}, {white:g}), or another one, to read "
            "all sets alike.",
            stacklevel=5,
        )
    return window


def _decode(path: Path, image_shape: ImageShape, window: Window) -> np.ndarray:
    channels, height, width = image_shape
    mode = MODES[channels]
    with _opened(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        drafted = None if turned else image.draft(mode, (2 * width, 2 * height))
        ImageOps.exif_transpose(image, in_place=True)
        # the last row and column of a drafted image may be partial: the box leaves out what lies beyond the original
        box = None if drafted is None else drafted[1]
        pixels = np.asarray(_convert(image, mode, window).resize((width, height), Image.Resampling.LANCZOS, box))
    if pixels.dtype != np.uint8:
        pixels = pixels.round().clip(0, 255).astype(np.uint8)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def _convert(image: Image.Image, mode: str, window: Window) -> Image.Image:
    if _is_deep(image):
        # Pillow's own conversion of 16 bits clips at 255, and it has no Lanczos filter for them.
        low, high = window
        return Image.fromarray(((_deep_values(image) - low) / ((high - low) / 255)).clip(0, 255))
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "black"), opaque).convert(mode)
    return image.convert(mode)
