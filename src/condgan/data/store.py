"""The in-memory store of labelled images that every data set of the library is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from condgan.data.splits import group_split


class ArrayDataset:
    """Labelled samples held in memory as one tensor.

    Images are kept as `uint8` and turned into floats in [-1, 1] batch by batch; samples that are no images
    (points of a plane, feature vectors) may be floats of any shape and are used as they are.

    Args:
        images: The samples. NumPy arrays are accepted too.
        labels: One label a sample.
        class_names: Names of the classes in label order. By default the labels themselves, as strings.
        groups: One group a sample, the patient or site it comes from. Splits and intervals keep a group whole.
        source: Where the samples come from, for results and messages.
        attribution: Credit to give wherever samples are shown, as the licence of the data asks.
        paths: One name a sample, the file it was read from, relative to the data's folder.

    Shape:
        - `images`: `(N, C, H, W)` uint8, or `(N, *)` floating point.
        - `labels`: `(N,)`, integers in `[0, K)`.
        - `groups`: `(N,)`, integers, or None. They name a group within this data set only.

    Raises:
        ValueError: If shapes, types or label values do not fit, values are not finite, or a class has fewer than
            two samples.

    Examples:
        >>> import numpy as np
        >>> images = np.zeros((4, 1, 28, 28), dtype=np.uint8)
        >>> data = ArrayDataset(images, [0, 1, 0, 1], class_names=["normal", "ill"])
        >>> data.num_classes, data.image_shape, data.class_counts
        (2, (1, 28, 28), (2, 2))
    """

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | Sequence[int],
        *,
        class_names: Sequence[str] | None = None,
        groups: Tensor | np.ndarray | Sequence[int] | None = None,
        source: str = "arrays",
        attribution: str | None = None,
        paths: Sequence[str] = (),
    ) -> None:
        self.images = _as_tensor(images).contiguous()
        self.labels = _as_int64("labels", labels)
        self.groups = None if groups is None else _as_int64("groups", groups)
        self.paths = tuple(paths)
        self._check_samples()
        num_classes = len(class_names) if class_names is not None else int(self.labels.max()) + 1
        self.class_names = tuple(class_names) if class_names is not None else tuple(map(str, range(num_classes)))
        self.source = source
        self.attribution = attribution
        self._check_labels()

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
        elif not torch.isfinite(images).all():
            raise ValueError("images must be finite, got NaN or infinite values. Clean or leave out those samples.")
        if count == 0:
            raise ValueError("images must hold at least one sample, got none.")
        if self.paths and len(self.paths) != count:
            raise ValueError(f"paths must have one entry a sample, {count}, or be empty, got {len(self.paths)}.")
        for name, values in (("labels", self.labels), ("groups", self.groups)):
            if values is not None and values.shape != (count,):
                raise ValueError(
                    f"{name} must have the shape ({count},), one for each image, got {tuple(values.shape)}. "
                    "Multi-label targets are not supported: choose one label an image."
                )

    def _check_labels(self) -> None:
        count = len(self.class_names)
        if len(set(self.class_names)) < count:
            raise ValueError(f"class_names must differ from each other, got {list(self.class_names)}.")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= count:
            raise ValueError(
                f"labels must be integers with values in [0, {count}), got values in [{low}, {high}]. Labels start "
                "at 0, and class_names needs one name for each class."
            )
        rare = [f"{name} ({n})" for name, n in zip(self.class_names, self.class_counts, strict=True) if n < 2]
        if rare:
            raise ValueError(
                f"every class needs at least two samples, got {', '.join(rare)}. Add images, or leave the class out."
            )
        if count < 2:
            raise ValueError(
                f"a class-conditional data set needs at least two classes, got one: {self.class_names[0]!r}. "
                "Point to the folder that holds one folder for each class."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {n}" for name, n in zip(self.class_names, self.class_counts, strict=True))
        return f"{type(self).__name__}({len(self)} samples of shape {self.image_shape}; {counts}; from {self.source})"

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one sample, `(C, H, W)` for images."""
        return tuple(self.images.shape[1:])

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

    def subset(self, indices: Tensor | np.ndarray | Sequence[int]) -> ArrayDataset:
        """Return the samples at `indices` as a data set of the same classes.

        Raises:
            ValueError: If `indices` are no integers, or a class keeps fewer than two samples.
        """
        index = _as_tensor(indices)
        if index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(f"indices must be integers, got {index.dtype}. Turn a mask into mask.nonzero().flatten().")
        return ArrayDataset(
            self.images[index],
            self.labels[index],
            class_names=self.class_names,
            groups=None if self.groups is None else self.groups[index],
            source=self.source,
            attribution=self.attribution,
            paths=[self.paths[i] for i in index.tolist()] if self.paths else (),
        )

    def split(self, fraction: float, *, seed: int = 0) -> tuple[ArrayDataset, ArrayDataset]:
        """Split into `(rest, part)`, where `part` holds about `fraction` of each class and no group is torn apart.

        See `condgan.data.splits.group_split` for the rule.
        """
        rest, part = group_split(self.labels, self.groups, fraction=fraction, seed=seed)
        return self.subset(rest), self.subset(part)

    def resize(self, height: int, width: int) -> ArrayDataset:
        """Return the same samples at another size, by antialiased bilinear interpolation (itself at its own size).

        Raises:
            ValueError: If the samples are no uint8 images, or a side is less than 1.
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
        return ArrayDataset(
            torch.cat(images),
            self.labels,
            class_names=self.class_names,
            groups=self.groups,
            source=self.source,
            attribution=self.attribution,
            paths=self.paths,
        )


def _as_tensor(values: Tensor | np.ndarray | Sequence[int]) -> Tensor:
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values)


def _as_int64(name: str, values: Tensor | np.ndarray | Sequence[int]) -> Tensor:
    tensor = _as_tensor(values)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {tensor.dtype}. Map your classes to 0, 1, 2, ... first.")
    return tensor.to(torch.int64)
