"""Checkpoint files: written whole or not at all, and the newest good one found again."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

_PATTERN = f"checkpoint-{'[0-9]' * 9}.pt"


def write_checkpoint(folder: str | Path, step: int, content: dict[str, Any], *, keep: int = 2) -> Path:
    """Write `content` (tensors and plain values) as `checkpoint-<step>.pt` and delete all but the newest `keep`.

    The file appears under its name only when it is complete and on disk: a killed process leaves the older ones.
    Files of later steps are left alone.

    Raises:
        ValueError: If `keep` is less than 1.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"checkpoint-{step:09d}.pt"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in [file for file in sorted(folder.glob(_PATTERN)) if file.name <= path.name][:-keep]:
        old.unlink()
    return path


def newest_step(folder: str | Path) -> int | None:
    """Return the step of the newest checkpoint in `folder`, readable or not, or None if there is none."""
    steps = [int(path.stem.removeprefix("checkpoint-")) for path in Path(folder).glob(_PATTERN)]
    return max(steps, default=None)


def read_newest_checkpoint(folder: str | Path) -> dict[str, Any] | None:
    """Return the content of the newest checkpoint in `folder` that can be read, or None if there is none.

    A file that cannot be read is passed over with a warning.

    Raises:
        ValueError: If there are checkpoints but none can be read.
    """
    paths = sorted(Path(folder).glob(_PATTERN), reverse=True)
    for path in paths:
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a torn file can fail in any way: zip, pickle, memory
            warnings.warn(f"passing over {path}, which cannot be read: {error}", stacklevel=2)
        else:
            return content
    if paths:
        raise ValueError(f"none of the {len(paths)} checkpoints in {folder} can be read. Delete them to start anew.")
    return None
