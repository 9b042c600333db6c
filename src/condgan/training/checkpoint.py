"""Checkpoint files: written whole or not at all; the newest readable one is used."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from condgan.files import as_path, check_count, write_whole

_PATTERN = f"checkpoint-{'[0-9]' * 9}.pt"


def write_checkpoint(folder: str | Path, step: int, content: dict[str, Any], *, keep: int = 2) -> Path:
    """Write `content` (tensors and plain values) as `checkpoint-<step>.pt` and delete all but the newest `keep`.

    The file appears under its name only when it is complete and on disk: if the process is killed, the older ones stay.
    Files of later steps are left alone.

    Raises:
        ValueError: If `keep` is less than 1.
    """
    check_count("keep", keep)
    folder = as_path(folder)
    path = folder / f"checkpoint-{step:09d}.pt"
    with write_whole(path) as file:
        torch.save(content, file)
    for old in [file for file in sorted(folder.glob(_PATTERN)) if file.name <= path.name][:-keep]:
        old.unlink()
    return path


def newest_step(folder: str | Path) -> int | None:
    """Return the step of the newest checkpoint in `folder`, readable or not, or None if there is none."""
    steps = [int(path.stem.removeprefix("checkpoint-")) for path in as_path(folder).glob(_PATTERN)]
    return max(steps, default=None)


def read_newest_checkpoint(folder: str | Path) -> dict[str, Any] | None:
    """Return the content of the newest checkpoint in `folder` that can be read, or None if there is none.

    Files that cannot be read are skipped with a warning.

    Raises:
        ValueError: If there are checkpoints but none can be read.
    """
    paths = sorted(as_path(folder).glob(_PATTERN), reverse=True)
    for path in paths:
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a torn file can fail in any way: zip, pickle, memory
            warnings.warn(f"skipping {path}, which cannot be read: {error}", stacklevel=2)
        else:
            return content
    if paths:
        raise ValueError(f"none of the {len(paths)} checkpoints in {folder} can be read. Delete them to start again.")
    return None
