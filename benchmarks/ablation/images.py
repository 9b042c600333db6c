"""The X-rays of the ablation: patients to train on, to choose by, and to confirm the choice on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from condgan.data import ArrayDataset, Kermany, kermany_held_out, kermany_patient
from condgan.types import ImageShape

SetName = Literal["full", "800", "rare-100"]
SETS: tuple[SetName, ...] = get_args(SetName)
CHOOSE, CONFIRM = 0.15, 0.18
"""Shares of the patients that settings are chosen on, and of the rest that the choice is confirmed on."""

_COUNTS: dict[SetName, tuple[int | None, int | None]] = {
    "full": (None, None),
    "800": (160, 640),
    "rare-100": (100, None),
}


@dataclass(frozen=True)
class Parts:
    """Three parts of the patients of the official training split, none of them held out for the last study.

    Args:
        train: What generators are trained on.
        validation: What settings are chosen on.
        confirmation: What the chosen settings are judged on once.
    """

    train: ArrayDataset
    validation: ArrayDataset
    confirmation: ArrayDataset

    def reduced(self, name: SetName) -> ArrayDataset:
        """Return the training images of a set: all, 160 normal and 640 with pneumonia, or 100 normal and all others."""
        kept = []
        for label, count in enumerate(_COUNTS[name]):
            index = (self.train.labels == label).nonzero().flatten()
            order = torch.randperm(len(index), generator=torch.Generator().manual_seed(label))
            kept.append(index[order[:count]])
        return self.train if name == "full" else self.train.subset(torch.cat(kept).sort().values)


def load(root: Path, image_shape: ImageShape, *, cache: Path | None = None) -> Parts:
    """Read the parts; the split depends on the patients alone, not on the image size.

    Raises:
        ValueError: If an image shows a patient who is held out for the last study.
    """
    official = Kermany(root, "train", 2, image_shape, patients="development", cache=cache, progress=False)
    leaked = {kermany_patient(Path(path)) for path in official.paths} & kermany_held_out()
    if leaked:
        raise ValueError(f"expected no patient who is held out for the last study, got {len(leaked)}.")
    rest, validation = official.split(CHOOSE, seed=0)
    train, confirmation = rest.split(CONFIRM, seed=1)
    return Parts(train, validation, confirmation)
