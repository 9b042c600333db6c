"""`ArrayDataset`, the labelled images in memory that all data sets of the library are, and checks between data sets."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Generic, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from typing_extensions import TypeVar

from condgan.data.splits import group_split
from condgan.devices import plain_defaults
from condgan.samples import check_channels_first, check_labels, warn_if_dark
from condgan.types import ImageShape, JudgedImages

Groups = Tensor | np.ndarray | Sequence[int] | Sequence[str]
"""A group for each sample, by name or by number."""

Shape = TypeVar("Shape", bound=tuple[int, ...], default=ImageShape, covariant=True)

_SHOWN = 10
_MISSING = {"", "None", "nan", "NaN", "NaT", "<NA>"}


class Grouped(Protocol):
    """Samples that may belong to groups, such as patients: an `ArrayDataset`, for example."""

    @property
    def labels(self) -> Tensor:
        """`(N,)` int64."""

    @property
    def groups(self) -> Tensor | None:
        """`(N,)` int64, the index of each sample's group in `group_names`; None if groups are unknown."""

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups."""


class ArrayDataset(Dataset[tuple[Tensor, int]], Generic[Shape]):
    """Labelled samples held in memory as one tensor: a map-style data set of pairs (image, label).

    Images are kept as `uint8` and turned into floats in [-1, 1] batch by batch. Samples that are not images (points of
    a plane, feature vectors) may be floats of any shape and are used as they are; to a type checker such data are an
    `ArrayDataset[tuple[int, ...]]`.

    A group is the patient or site that a sample comes from. Groups are identified by name, and a number stands for its
    digits as a name. Equal names in two data sets mean the same patient, whether or not both were made from one data
    set by `subset` or `split`. If two archives both number their patients from 1, give these different names before you
    compare the data sets.

    The attribute `groups` holds indices into `group_names`. As the argument `groups` of another data set these indices
    would be taken for names: pass `[data.group_names[i] for i in data.groups]` instead.

    Args:
        images: The samples. The memory of an array is shared, not copied, and never written to: a read-only memory map
            (`np.load(path, mmap_mode="r")`) stays on disk.
        labels: One label for each sample. One class is enough for networks without classes.
        class_names: Names of the classes in label order. By default the labels themselves, as strings.
        groups: The group of each sample, as a name or a number; none may be missing. Splits and intervals keep a group
            whole.
        source: Where the samples come from, for results and messages.
        attribution: Credit to give wherever samples are shown, as the license of the data asks.
        paths: The file that each sample was read from, relative to the data's folder.

    Attributes:
        groups: `(N,)` int64, the index of each sample's group in `group_names`, or None.
        group_names: Names of the groups that have samples here: numbers in ascending order, names in alphabetical.

    Shape:
        - `images`: `(N, C, H, W)` uint8, or `(N, *)` floating point.
        - `labels`: `(N,)`, integers in `[0, K)`.
        - `groups`: `(N,)`, names or integers, or None.

    Raises:
        ValueError: If shapes, types or label values do not fit, values are not finite, the group of a sample is
            missing, or a class has fewer than two samples.

    Examples:
        >>> import numpy as np
        >>> images = np.zeros((4, 1, 28, 28), dtype=np.uint8)
        >>> data = ArrayDataset(images, [0, 1, 0, 1], class_names=["normal", "ill"], groups=["cy", "al", "cy", "bo"])
        >>> data.num_classes, data.image_shape, data.class_counts
        (2, (1, 28, 28), (2, 2))
        >>> data.group_names, data.groups
        (('al', 'bo', 'cy'), tensor([2, 0, 2, 1]))
        >>> image, label = data[3]
        >>> image.shape, label
        (torch.Size([1, 28, 28]), 1)
    """

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | Sequence[int],
        *,
        class_names: Sequence[str] | None = None,
        groups: Groups | None = None,
        source: str = "arrays",
        attribution: str | None = None,
        paths: Sequence[str] = (),
    ) -> None:
        self.images = _as_images(images)
        self.labels = _as_labels(labels)
        self.paths = tuple(paths)
        self.groups, self.group_names = _name_groups(groups, self.paths)
        self._check_samples()
        self.class_names = check_labels(self.labels, class_names)
        self.source = source
        self.attribution = attribution
        self._check_classes()

    def _check_samples(self) -> None:
        images, count = self.images, len(self.images)
        if images.dtype == torch.uint8:
            if images.ndim != 4:
                raise ValueError(
                    f"images must have the shape (N, C, H, W), got {tuple(images.shape)}. Greyscale images need a "
                    "channel axis: images[:, None]; channels-last images need images.transpose(0, 3, 1, 2)."
                )
        elif not images.is_floating_point():
            raise ValueError(
                f"images must be uint8 (0 to 255) or floating point, got {images.dtype}. Rescale to 0..255 and cast "
                "to uint8."
            )
        if count == 0:
            raise ValueError("images must hold at least one sample, got none.")
        check_channels_first(tuple(images.shape[1:]))
        extremes = images.aminmax()  # without a copy; NaN if a value is
        if images.dtype == torch.uint8:
            warn_if_dark(int(extremes.max))
        elif not torch.isfinite(torch.stack(extremes)).all():
            raise ValueError("images must be finite, got NaN or infinite values. Clean or leave out those samples.")
        if self.paths and len(self.paths) != count:
            raise ValueError(f"paths must have one entry for each sample, {count}, or be empty, got {len(self.paths)}.")
        for name, values in (("labels", self.labels), ("groups", self.groups)):
            if values is not None and values.shape != (count,):
                raise ValueError(
                    f"{name} must have the shape ({count},), one for each image, got {tuple(values.shape)}. "
                    "Choose one label for each image: labels[:, 0] of a column, labels.argmax(1) of one-hot rows."
                )

    def _check_classes(self) -> None:
        if len(set(self.class_names)) < self.num_classes:
            raise ValueError(f"class_names must differ from each other, got {list(self.class_names)}.")
        rare = [f"{name} ({n})" for name, n in zip(self.class_names, self.class_counts, strict=True) if n < 2]
        if rare:
            raise ValueError(
                f"every class needs at least two samples, got {', '.join(rare)}. Add images, or leave the class out."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {n}" for name, n in zip(self.class_names, self.class_counts, strict=True))
        return f"{type(self).__name__}({len(self)} samples of shape {self.image_shape}; {counts}; from {self.source})"

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @property
    def image_shape(self) -> Shape:
        """Shape of one sample, `(C, H, W)` for images."""
        return cast("Shape", tuple(self.images.shape[1:]))

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Number of samples of each class."""
        return tuple(torch.bincount(self.labels, minlength=self.num_classes).tolist())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of samples, labels and groups, as 16 hexadecimal digits: equal data have equal fingerprints."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), str(self.images.dtype), self.class_names)).encode())
        for tensor in (self.images, self.labels, self.groups):
            # the buffer itself: copies would double the memory of large data
            digest.update(b"none" if tensor is None else tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    @plain_defaults()
    def subset(self, indices: Tensor | np.ndarray | Sequence[int]) -> ArrayDataset[Shape]:
        """Return the samples at `indices` as a data set of the same classes, with their groups by the same names.

        Raises:
            ValueError: If `indices` are not integers, or a class keeps fewer than two samples.
        """
        index = torch.as_tensor(indices)
        if index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(f"indices must be integers, got {index.dtype}. Turn a mask into mask.nonzero().flatten().")
        part = self._with(self.images[index], index)
        if self.groups is not None:
            present, part.groups = self.groups[index].unique(return_inverse=True)
            part.group_names = tuple(self.group_names[number] for number in present.tolist())
        return part

    def with_groups(self, groups: Groups | Callable[[Path], str | int]) -> ArrayDataset[Shape]:
        """Return the same samples with other groups.

        Args:
            groups: The group of each sample, as a name or a number; or a function that maps a path, relative to the
                data's folder, to the name of its group.

        Raises:
            ValueError: If shapes do not fit, or a function is given and the data have no paths.

        Examples:
            >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
            >>> data = ArrayDataset(images, [0, 0, 1, 1], paths=["ada-1.png", "ada-2.png", "ben-1.png", "cyd-1.png"])
            >>> data.with_groups(lambda path: path.stem.split("-")[0]).group_names
            ('ada', 'ben', 'cyd')
        """
        if callable(groups):
            if not self.paths:
                raise ValueError(
                    "a function for groups needs paths, got data without any. Pass one group for each sample."
                )
            groups = [str(groups(Path(path))) for path in self.paths]
        named = self._with(self.images)
        named.groups, named.group_names = _name_groups(groups, named.paths)
        named._check_samples()
        return named

    def _with(self, images: Tensor, index: Tensor | None = None) -> ArrayDataset[Shape]:
        """Return a data set with other images and without groups, of all samples or of those at `index`."""
        paths = self.paths if index is None or not self.paths else [self.paths[i] for i in index.tolist()]
        return ArrayDataset(
            images,
            self.labels if index is None else self.labels[index],
            class_names=self.class_names,
            source=self.source,
            attribution=self.attribution,
            paths=paths,
        )

    def split(self, fraction: float, *, seed: int = 0) -> tuple[ArrayDataset[Shape], ArrayDataset[Shape]]:
        """Split into `(rest, part)`, where `part` holds about `fraction` of each class and no group is divided.

        The fraction is rounded to one over a whole number: 0.15 gives a seventh. See `condgan.data.group_split`.

        Raises:
            ValueError: If `fraction` is not in (0, 1), or no split leaves two groups of each class on either side.
        """
        rest, part = group_split(self.labels, self.groups, fraction=fraction, seed=seed)
        return self.subset(rest), self.subset(part)

    def resize(self, height: int, width: int) -> ArrayDataset[Shape]:
        """Return the same samples at another size, by antialiased bilinear interpolation (itself at its own size).

        Raises:
            ValueError: If the samples are not uint8 images, or a side is less than 1.
        """
        if self.images.dtype != torch.uint8:
            raise ValueError(f"only uint8 images can be resized, got {self.images.dtype}.")
        if height < 1 or width < 1:
            raise ValueError(f"height and width must be at least 1, got {height} and {width}.")
        if self.image_shape[1:] == (height, width):
            return self
        images = [
            F.interpolate(chunk.float(), (height, width), mode="bilinear", antialias=True).round().to(torch.uint8)
            for chunk in torch.split(self.images, 256)
        ]
        resized = self._with(torch.cat(images))
        resized.groups, resized.group_names = self.groups, self.group_names
        return resized


def check_disjoint(**sets: Grouped) -> None:
    """Raise an error if a group (patient) is in two of the data sets. Groups are compared by name.

    Args:
        sets: The data sets, by the names that they have in messages.

    Raises:
        ValueError: If a group is in two of them, or a data set has no groups.

    Examples:
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> train = ArrayDataset(images, [0, 1, 0, 1], groups=["ada", "ben", "cyd", "dan"])
        >>> check_disjoint(training=train, test=ArrayDataset(images, [0, 1, 0, 1], groups=["eva", "eva", "fay", "gus"]))
        >>> check_disjoint(training=train, test=ArrayDataset(images, [0, 1, 0, 1], groups=["dan", "eva", "fay", "gus"]))
        Traceback (most recent call last):
            ...
        ValueError: training and test images must not share groups, got 1 in both: dan. ...
    """
    for name, data in sets.items():
        if data.groups is None:
            raise ValueError(f"{name} images must have groups, got None. Pass groups= with the patient of each sample.")
    for (first, one), (second, other) in combinations(sets.items(), 2):
        shared = sorted(set(one.group_names) & set(other.group_names))
        if shared:
            raise ValueError(
                f"{first} and {second} images must not share groups, got {len(shared)} in both: "
                f"{listing(shared)}. Split by group with data.split, drop these groups from one of the two, or rename "
                "them with data.with_groups if they are different patients."
            )


def check_same_classes(
    role: str, data: JudgedImages, reference: str, class_names: Sequence[str], image_shape: tuple[int, ...]
) -> None:
    """Raise an error if data have other classes or another image shape than their reference.

    Args:
        role: What messages call the data.
        data: The data.
        reference: What messages call the reference.
        class_names: Classes of the reference.
        image_shape: Image shape of the reference.

    Raises:
        ValueError: If one differs.
    """
    if data.image_shape != tuple(image_shape):
        raise ValueError(
            f"{role} must have the image shape of {reference}, {tuple(image_shape)}, got {data.image_shape}. Read all "
            "sets at one size."
        )
    if data.class_names != tuple(class_names):
        raise ValueError(
            f"{role} must have the classes of {reference}, {tuple(class_names)}, got {data.class_names}. Pass the same "
            "class_names, in the same order, to all sets."
        )


def check_compatible(role: str, data: ArrayDataset, class_names: Sequence[str], image_shape: tuple[int, ...]) -> None:
    """Raise an error if data do not fit a classifier or its training set.

    Raises:
        ValueError: If samples are not uint8 images, there is one class only, or classes or image shape differ from the
            given ones.
    """
    if data.images.dtype != torch.uint8:
        raise ValueError(
            f"{role} must hold uint8 images, got {data.images.dtype}. Convert images in [-1, 1] with "
            "condgan.images.to_uint8."
        )
    if data.num_classes < 2:
        raise ValueError(
            f"{role} must have at least two classes, got one: {data.class_names[0]!r}. Point to the folder that holds "
            "one folder for each class."
        )
    check_same_classes(role, data, "the training set", class_names, image_shape)


def number_groups(*sets: Grouped) -> list[Tensor]:
    """Return the group of each sample of several data sets, numbered so that equal names have equal numbers.

    Without groups each sample is a group of its own.

    Shape:
        - each result: `(N,)` int64, for the data set's N samples.

    Raises:
        ValueError: If some of the data sets have groups and others have none.

    Examples:
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> first = ArrayDataset(images, [0, 1, 0, 1], groups=["ben", "ada", "ben", "cyd"])
        >>> number_groups(first, ArrayDataset(images, [0, 1, 0, 1], groups=["ada", "dan", "dan", "eva"]))
        [tensor([0, 1, 0, 2]), tensor([1, 3, 3, 4])]
    """
    if all(data.groups is None for data in sets):
        return list(torch.arange(sum(len(data.labels) for data in sets)).split([len(data.labels) for data in sets]))
    names: list[list[str]] = []
    for data in sets:
        if data.groups is None:
            raise ValueError(
                "all data sets or none must have groups, or they cannot be compared. Pass groups= with the patient of "
                "each sample."
            )
        names.append([data.group_names[number] for number in data.groups.tolist()])
    numbers = {name: number for number, name in enumerate(dict.fromkeys(name for own in names for name in own))}
    return [torch.tensor([numbers[name] for name in own], device="cpu") for own in names]


def check_group_names(names: Sequence[str], places: Sequence[str]) -> None:
    """Raise an error if a sample has no group: missing values would make one patient of many.

    Args:
        names: The name of each sample's group.
        places: What messages call each sample.

    Raises:
        ValueError: If a name is blank or, as Python and pandas spell a missing value, None, nan, NaT or <NA>.
    """
    missing = [place for place, name in zip(places, names, strict=True) if name.strip() in _MISSING]
    if missing:
        raise ValueError(
            f"every sample must have a group (patient), got none for {len(missing)} of {len(names)}: "
            f"{listing(missing)}. Complete the table or rule of the groups, leave these samples out, or give each a "
            "name of its own."
        )


def _name_groups(groups: Groups | None, paths: Sequence[str]) -> tuple[Tensor | None, tuple[str, ...]]:
    if groups is None:
        return None, ()
    given = np.asarray(groups.cpu() if isinstance(groups, Tensor) else groups)
    if given.dtype.kind in "OUf" and given.ndim == 1:  # a missing value makes floats of a column of whole numbers
        spelled = [str(name) for name in given]
        check_group_names(
            spelled, paths if len(paths) == len(spelled) else [f"sample {i}" for i in range(len(spelled))]
        )
    if given.dtype == object and all(isinstance(name, str) for name in given.flat):
        given = given.astype(str)
    if given.dtype.kind not in "iuU":
        raise ValueError(f"groups must be names (strings) or integers, got {given.dtype}.")
    names, numbers = np.unique(given, return_inverse=True)
    return torch.from_numpy(numbers.reshape(given.shape)).long(), tuple(map(str, names.tolist()))


def listing(names: Sequence[str]) -> str:
    """Return names as text for a message, cut after ten."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _as_images(images: Tensor | np.ndarray) -> Tensor:
    """Return images as a contiguous tensor, which shares the memory of an array: a memory map stays on disk."""
    if isinstance(images, np.ndarray):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing here writes to it
            return torch.from_numpy(np.ascontiguousarray(images))
    if not isinstance(images, Tensor):
        raise ValueError(
            f"images must be a tensor or a NumPy array of the shape (N, C, H, W), got a {type(images).__name__}. Join "
            "single images with np.stack; a PyTorch data set goes to condgan.training.as_labelled."
        )
    return images.contiguous()


def _as_labels(labels: Tensor | np.ndarray | Sequence[int]) -> Tensor:
    given = labels if isinstance(labels, Tensor) else np.asarray(labels)
    if isinstance(given, np.ndarray) and given.dtype.kind in "iu":
        given = torch.from_numpy(given.astype(np.int64))
    if not isinstance(given, Tensor) or given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        example = "" if isinstance(given, Tensor) or not given.size else f", such as {given.flat[0]!r}"
        raise ValueError(
            f"labels must be integers, got {given.dtype}{example}. Number the classes with names, labels = "
            "np.unique(labels, return_inverse=True), and pass class_names=names."
        )
    return given.to(torch.int64)
