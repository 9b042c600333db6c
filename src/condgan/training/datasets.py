"""Map-style PyTorch data sets as the data of a trainer: read into memory once, or read again for each batch."""

from __future__ import annotations

import hashlib
import operator
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
)

from condgan.samples import check_channels_first, check_labels, warn_if_dark
from condgan.training.random import seeded
from condgan.types import LabelledData

ImageRange = tuple[float, float]
"""Range of floating-point images: `(0, 1)` or `(-1, 1)`."""

_PROBED = 32  # items that are read twice: a flip with probability 0.1 is found with probability 0.998
_CHUNK = 64
_ROUNDING = 1e-3  # of images that a transform normalizes


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads and checks items of a data set."""

    dataset: Dataset[Any]
    image_range: ImageRange | None
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None

    def read(self, index: int) -> tuple[Tensor, int]:
        """Return the image, uint8 or floats in [-1, 1], and the label of an item."""
        item = self.dataset[index]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ValueError(
                f"items of the data set must be pairs (image, label), got {_described(item)} as item {index}. Wrap the "
                "data set in one that returns pairs."
            )
        image = _as_image(item[0], index, self.image_range)
        if self.shape is not None and (tuple(image.shape), image.dtype) != (self.shape, self.dtype):
            raise ValueError(
                f"all images must be of the shape {self.shape} and type {self.dtype} of the first, got "
                f"{tuple(image.shape)} and {image.dtype} as item {index}. Resize and convert in the data set."
            )
        return image, _as_label(item[1], index)

    def read_many(self, indices: Sequence[int], seed: int) -> tuple[np.ndarray, list[int]]:
        """Read items; their random transforms draw from generators with this seed."""
        with seeded(seed):
            images, labels = zip(*map(self.read, indices), strict=True)
        return torch.stack(images).numpy(), list(labels)

    def close(self) -> None:
        """Do nothing: nothing is open."""


_reader: _Reader  # set in worker processes only


def _start_worker(reader: _Reader) -> None:
    global _reader
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the step during which Ctrl-C is pressed still needs its images
    torch.set_num_threads(1)
    _reader = reader


def _read_in_worker(indices: Sequence[int], seed: int) -> tuple[np.ndarray, list[int]]:
    return _reader.read_many(indices, seed)


class _Workers:
    """Reads items as a `_Reader` does, in worker processes."""

    def __init__(self, reader: _Reader, count: int) -> None:
        self._pool = ProcessPoolExecutor(count, initializer=_start_worker, initargs=(reader,))
        self._pool.submit(_read_in_worker, [0], 0).result()  # start the processes now, in this thread

    def read_many(self, indices: Sequence[int], seed: int) -> tuple[np.ndarray, list[int]]:
        """Read items; may be called from several threads."""
        return self._pool.submit(_read_in_worker, indices, seed).result()

    def close(self) -> None:
        """Stop the processes after their current items."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class DatasetImages:
    """A data set as a trainer takes it, made by `as_labelled`.

    Attributes:
        labels: `(N,)` int64.
        class_names: Names of the classes in label order.
        image_shape: Shape of one sample.
        dtype: Type of the images: uint8, or floats in [-1, 1].
        fingerprint: A digest of images and labels; of images that differ from read to read, of shape and type only.
        streamed: Whether items are read again for each batch.
        num_workers: Processes that read streamed items.

    Shape:
        - `labels`: `(N,)`. `images`: `(N, *image_shape)`, uint8 in [0, 255] or floats, in [-1, 1] for images.
    """

    def __init__(
        self,
        reader: _Reader | None,
        images: Tensor | None,
        labels: Tensor,
        *,
        class_names: Sequence[str],
        image_shape: tuple[int, ...],
        dtype: torch.dtype,
        fingerprint: str,
        num_workers: int = 0,
    ) -> None:
        self._reader = reader
        self._images = images
        self.labels = labels
        self.class_names = tuple(class_names)
        self.image_shape = image_shape
        self.dtype = dtype
        self.fingerprint = fingerprint
        self.streamed = images is None
        self.num_workers = num_workers

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """All images, `(N, *image_shape)`.

        Raises:
            ValueError: If they are streamed.
        """
        if self._images is None:
            raise ValueError(
                "the images of a streamed data set are read batch by batch: no tensor holds all of them. Evaluate on "
                "data without random transforms that fit into memory."
            )
        return self._images

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Number of samples of each class."""
        return tuple(torch.bincount(self.labels, minlength=self.num_classes).tolist())

    def open(self) -> _Reader | _Workers:
        """Return a reader of the items of a streamed data set; it must be closed.

        Raises:
            ValueError: If the images are held in memory.
        """
        if self._reader is None:
            raise ValueError("these images are held in memory, there is nothing to open: use data.images.")
        return _Workers(self._reader, self.num_workers) if self.num_workers else self._reader


def as_labelled(
    data: LabelledData | Dataset[Any] | DataLoader[Any],
    *,
    image_range: ImageRange | None = None,
    class_names: Sequence[str] | None = None,
    num_workers: int | None = None,
    max_host_bytes: int = 2**33,
) -> LabelledData:
    """Return a data set of `(image, label)` as data that trainers and recipes take.

    The items are read into memory once. They are read again for each batch, by `num_workers` processes, if they take
    more than `max_host_bytes`, or if two reads of an item differ because of random transforms: 32 items are read twice
    at the start, and a transform so rare that it changes none of these is not found. Either
    way the samples are the same as of an `ArrayDataset` of the same images. The trainer's seed determines what random
    transforms draw.

    The `dataset` and `num_workers` of a `DataLoader` are used, not its batch size, order and sampler.

    Args:
        data: A map-style data set, or a `DataLoader` of one. An image is a uint8 tensor or array `(C, H, W)`, a PIL
            image of mode L or RGB, or a floating-point tensor or array of any shape; a label is an integer or a tensor
            of one, in `[0, K)`. Data such as an `ArrayDataset` are returned as they are.
        image_range: Range of floating-point images, `(0, 1)` or `(-1, 1)`; images need it, unless they are held in
            data such as an `ArrayDataset` and have negative values. uint8 images have the range [0, 255].
        class_names: Names of the classes in label order; by default the data set's `classes`, as in torchvision, or
            the numbers of the labels, which then have no gaps.
        num_workers: Worker processes, 0 to read in this process; by default those of the `DataLoader`, or 0.
            As with a `DataLoader`, the data set must be picklable where processes are not forked.
        max_host_bytes: Images up to this size are kept in host memory.

    Raises:
        TypeError: If the data are not a map-style data set, or hold arrays where tensors are wanted.
        ValueError: If items are not as described, differ in shape, are out of range, or `image_range` is missing.

    Examples:
        >>> from torch.utils.data import TensorDataset
        >>> images, labels = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 0, 1, 0, 1])
        >>> data = as_labelled(TensorDataset(images, labels), image_range=(0, 1), class_names=["normal", "ill"])
        >>> data.image_shape, data.class_counts
        ((1, 8, 8), (3, 3))
        >>> torch.equal(data.images, images * 2 - 1)
        True
    """
    if image_range is not None and tuple(image_range) not in ((0, 1), (-1, 1)):
        raise ValueError(f"image_range must be (0, 1) or (-1, 1), got {image_range}.")
    if isinstance(data, DataLoader):
        _check_loader(data)
        num_workers = data.num_workers if num_workers is None else num_workers
        data = data.dataset
    if class_names is not None and (isinstance(data, DatasetImages) or _is_labelled(data)):
        raise ValueError(
            f"a {type(data).__name__} has class names, got class_names={list(class_names)}. Leave them out."
        )
    if isinstance(data, DatasetImages):
        if image_range is not None:
            raise ValueError(
                f"image_range must be None for data from as_labelled, which has applied it, got {image_range}. "
                "Leave it out."
            )
        return data
    if _is_labelled(data):
        if not (isinstance(data.images, Tensor) and isinstance(data.labels, Tensor)):
            raise TypeError(
                f"images and labels of a {type(data).__name__} must be tensors, got {_described(data.images)} and "
                f"{_described(data.labels)}. Make a condgan.data.ArrayDataset of them."
            )
        return _in_range(data, image_range)
    if not _is_map_style(data):
        raise TypeError(
            f"data must be a map-style data set with __getitem__ and __len__, got a {type(data).__name__}: the trainer "
            "draws items by class and index. Collect the items of an IterableDataset into a list of pairs, or write a "
            "map-style data set."
        )
    return _read(_Reader(data, image_range), class_names, num_workers or 0, max_host_bytes)


def _read(reader: _Reader, class_names: Sequence[str] | None, num_workers: int, max_host_bytes: int) -> DatasetImages:
    count = len(reader.dataset)  # type: ignore[arg-type]
    if count == 0:
        raise ValueError("the data set must hold at least one item, got none.")
    with seeded(0):
        first, _ = reader.read(0)
        reader = replace(reader, shape=tuple(first.shape), dtype=first.dtype)
        varies = _varies(reader, count)
    streamed = varies or count * first.nbytes > max_host_bytes
    images = None if streamed else torch.empty(count, *first.shape, dtype=first.dtype, device="cpu")
    labels = torch.empty(count, dtype=torch.int64, device="cpu")
    digest = hashlib.sha256(repr((count, tuple(first.shape), str(first.dtype), varies)).encode())
    brightest = 0
    source = _Workers(reader, num_workers) if num_workers else reader
    try:
        for start, chunk, some in _chunks(source, count, max(1, num_workers)):
            if images is not None:
                images[start : start + len(chunk)] = torch.from_numpy(chunk)
            if not varies:
                digest.update(chunk.data)
            labels[start : start + len(chunk)] = torch.tensor(some, device="cpu")
            brightest = max(brightest, chunk.max(initial=0))
    finally:
        source.close()
    if first.dtype == torch.uint8:
        warn_if_dark(brightest)
    digest.update(labels.numpy().data)
    names = _names(reader.dataset, labels, class_names)
    digest.update(repr(names).encode())
    return DatasetImages(
        reader if streamed else None,
        images,
        labels,
        class_names=names,
        image_shape=tuple(first.shape),
        dtype=first.dtype,
        fingerprint=digest.hexdigest()[:16],
        num_workers=num_workers,
    )


def _varies(reader: _Reader, count: int) -> bool:
    """Whether two reads of an item differ."""
    varies = False
    for index in sorted({place * (count - 1) // (_PROBED - 1) for place in range(_PROBED)}):
        (image, label), (again, label_again) = reader.read(index), reader.read(index)
        if label != label_again:
            raise ValueError(f"an item must keep its label, got {label} and then {label_again} as item {index}.")
        varies |= not torch.equal(image, again)
    return varies


def _chunks(source: _Reader | _Workers, count: int, ahead: int) -> Iterator[tuple[int, np.ndarray, list[int]]]:
    """Yield all items in order: the index of the first, images and labels."""
    starts = range(0, count, _CHUNK)
    if isinstance(source, _Reader):
        for start in starts:
            yield start, *source.read_many(range(start, min(start + _CHUNK, count)), start)
        return
    with ThreadPoolExecutor(ahead) as threads:
        for first in range(0, len(starts), 4 * ahead):  # a few at a time: the data may be larger than memory
            some = starts[first : first + 4 * ahead]
            read = threads.map(lambda s: source.read_many(range(s, min(s + _CHUNK, count)), s), some)
            for start, (images, labels) in zip(some, read, strict=True):
                yield start, images, labels


def _names(dataset: Dataset[Any], labels: Tensor, class_names: Sequence[str] | None) -> tuple[str, ...]:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if class_names is None:
        class_names = getattr(dataset, "classes", None) or getattr(dataset, "class_names", None)
    return check_labels(labels, None if class_names is None else list(map(str, class_names)))


def _check_loader(loader: DataLoader[Any]) -> None:
    if isinstance(loader.dataset, IterableDataset):
        return  # as_labelled refuses it
    if loader.batch_size is None:
        raise ValueError(
            "a DataLoader must not have a batch_sampler or batch_size=None, because the trainer makes the batches. "
            "Pass loader.dataset, and choose fit(batch_size=...) and Trainer(sampling=...)."
        )
    ignored = []
    if not isinstance(loader.sampler, (SequentialSampler, RandomSampler)):
        ignored.append(f'sampler={type(loader.sampler).__name__} (see Trainer(sampling="balanced"))')
    if loader.collate_fn is not default_collate:
        ignored.append("collate_fn (transform images in the data set)")
    if ignored:
        warnings.warn(f"training uses the DataLoader's data set, but not its {', '.join(ignored)}.", stacklevel=4)


def _is_labelled(data: object) -> TypeGuard[LabelledData]:
    names = ("images", "labels", "num_classes", "class_counts", "image_shape")
    return all(hasattr(data, name) for name in names)


def _is_map_style(data: object) -> TypeGuard[Dataset[Any]]:
    return not isinstance(data, IterableDataset) and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _in_range(data: LabelledData, image_range: ImageRange | None) -> LabelledData:
    """Return labelled data with float images in [-1, 1]."""
    images = data.images
    are_floats = images.dtype != torch.uint8 and images.ndim == 4
    if image_range is None:
        if are_floats:
            low, high = map(float, images.aminmax())
            if low >= 0:
                raise ValueError(_missing_range(images))
            if max(-low, high) > 1 + _ROUNDING:
                raise ValueError(
                    f"floating-point images must lie in [-1, 1], got values in [{low:.3g}, {high:.3g}]. Rescale them: "
                    "generators make images in this range."
                )
        return data
    if not are_floats:
        raise ValueError(
            f"image_range is for floating-point images, got {images.dtype} samples of shape {tuple(images.shape[1:])}. "
            "Leave it out."
        )
    scaled = _rescaled(images, image_range, "the data")
    if scaled is images:
        return data
    return DatasetImages(
        None,
        scaled,
        data.labels,
        class_names=getattr(data, "class_names", tuple(map(str, range(data.num_classes)))),
        image_shape=tuple(data.image_shape),
        dtype=images.dtype,
        fingerprint=hashlib.sha256(f"{data.fingerprint} from [0, 1]".encode()).hexdigest()[:16],
    )


def _as_image(given: Any, index: int, image_range: ImageRange | None) -> Tensor:
    image = _as_tensor(given, index).detach().cpu()
    check_channels_first(tuple(image.shape))
    if image.dtype == torch.uint8:
        if image.ndim != 3:
            raise ValueError(
                f"uint8 images must have the shape (C, H, W), got {tuple(image.shape)} as item {index}. Greyscale "
                "images need a channel axis: image[None]."
            )
        if image_range is not None:
            raise ValueError(f"uint8 images have the range [0, 255], got image_range={image_range}. Leave it out.")
        return image
    if not image.is_floating_point():
        raise ValueError(f"images must be uint8 (0 to 255) or floating point, got {image.dtype} as item {index}.")
    if image_range is not None:
        return _rescaled(image, image_range, f"item {index}")
    if image.ndim == 3:
        raise ValueError(_missing_range(image))
    if not bool(torch.isfinite(image).all()):
        raise ValueError(f"samples must be finite, got NaN or infinite values in item {index}.")
    return image


def _as_tensor(image: Any, index: int) -> Tensor:
    if isinstance(image, Tensor):
        return image
    if isinstance(image, np.ndarray):
        return torch.from_numpy(np.array(image))
    if not isinstance(image, Image.Image):
        raise ValueError(f"images must be tensors, arrays or PIL images, got {_described(image)} as item {index}.")
    if image.mode not in ("L", "RGB"):
        raise ValueError(
            f'PIL images must have the mode L or RGB, got {image.mode} as item {index}. Use image.convert("L").'
        )
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _missing_range(images: Tensor) -> str:
    low, high = map(float, images.aminmax())
    advice = (
        "Pass image_range=(0, 1), the range of torchvision's ToTensor, or image_range=(-1, 1)."
        if high <= 1
        else "Divide them by 255 and pass image_range=(0, 1), or round them to uint8."
    )
    return f"floating-point images need an image_range, got values in [{low:.3g}, {high:.3g}] and none. {advice}"


def _rescaled(images: Tensor, image_range: ImageRange, what: str) -> Tensor:
    """Return images of this range in [-1, 1]."""
    low, high = image_range
    least, most = map(float, images.aminmax())
    if not (low <= least and most <= high):  # NaN is out of range too
        raise ValueError(
            f"images must lie in image_range=({low}, {high}), got values in [{least:.3g}, {most:.3g}] in {what}. "
            "Rescale them, or pass another range."
        )
    return images * 2 - 1 if low == 0 else images


def _as_label(label: Any, index: int) -> int:
    if getattr(label, "ndim", 0) == 0:
        try:
            number = operator.index(label)
        except TypeError:
            pass
        else:
            if -(2**63) <= number < 2**63:
                return number
    raise ValueError(
        f"labels must be integers or 0-d tensors of integers, got {_described(label)} as item {index}. Choose one "
        "label per image, and number the classes from 0."
    )


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)} and type {value.dtype}")
