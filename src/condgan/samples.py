"""Checks of labelled samples that all data sets share: labels, the order of the axes, and the range of grey levels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor

_MOST_CHANNELS = 4
_DARK = 15  # 12-bit values in 16 bits, of which a reader of 8 bits keeps the upper ones


def check_labels(labels: Tensor, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes, by default the labels themselves as strings.

    Shape:
        - `labels`: `(N,)`, int64, N at least 1.

    Raises:
        ValueError: If a label has no name or, without names, the labels leave a number out.

    Examples:
        >>> import torch
        >>> check_labels(torch.tensor([0, 2, 1, 0]), None)
        ('0', '1', '2')
        >>> check_labels(torch.tensor([0, 2]), ["a", "b", "c"])
        ('a', 'b', 'c')
    """
    if class_names is None:
        present = labels.unique().tolist()
        if present != list(range(len(present))):
            some = ", ".join(map(str, present[:10])) + (", ..." if len(present) > 10 else "")
            raise ValueError(
                f"labels must be 0, 1, 2, ... without gaps, got {some}. Labels start at 0: number the classes with "
                "names, labels = np.unique(labels, return_inverse=True), or pass class_names with a name for each "
                "number."
            )
        return tuple(map(str, present))
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        raise ValueError(
            f"labels must be integers with values in [0, {len(class_names)}), got values in [{low}, {high}]. Labels "
            "start at 0, and class_names needs one name for each class."
        )
    return tuple(class_names)


def check_channels_first(shape: tuple[int, ...]) -> None:
    """Raise an error if the shape of an image looks like `(H, W, C)`.

    Raises:
        ValueError: If the last axis alone is as short as channels are.

    Examples:
        >>> check_channels_first((3, 64, 64))
        >>> check_channels_first((64, 64, 3))
        Traceback (most recent call last):
            ...
        ValueError: images must have the shape (C, H, W), got (64, 64, 3), which looks like (H, W, C). ...
    """
    if len(shape) == 3 and shape[2] <= _MOST_CHANNELS < min(shape[:2]):
        raise ValueError(
            f"images must have the shape (C, H, W), got {shape}, which looks like (H, W, C). Put the channels first: "
            "np.moveaxis(images, -1, -3)."
        )


def warn_if_dark(brightest: int) -> None:
    """Warn if the brightest of all uint8 values is nearly black, as of images in [0, 1] or of 12 bits read as 16."""
    if 0 < brightest <= _DARK:
        warnings.warn(
            f"uint8 images should use the range 0 to 255, got no value above {brightest}: all are nearly black. "
            f"Rescale them, such as images * {255 // brightest}.",
            stacklevel=4,
        )
