"""Checkpoint files: written whole or not at all, with checksums; the newest undamaged one is used."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.serialization import get_crc32_options, set_crc32_options

from condgan._version import __version__
from condgan.files import as_path, check_archive, check_count, check_format, plain_numbers, write_whole

FORMAT = 1
"""Format of checkpoints, in which 0 had neither version nor the arguments of networks and of `fit`."""

_PATTERN = f"checkpoint-{'[0-9]' * 9}.pt"


def write_checkpoint(folder: str | Path, step: int, content: dict[str, Any], *, keep: int = 2) -> Path:
    """Write `content` (tensors and plain values) as `checkpoint-<step>.pt` and delete all but the newest `keep`.

    The file appears under its name only when it is complete, on disk and read back: if the process is killed, or the
    content is of a kind that cannot be read, the older ones stay. Files of later steps are left alone.

    Raises:
        TypeError: If the content has other values.
        ValueError: If `keep` is less than 1.
    """
    check_count("keep", keep)
    folder = as_path(folder)
    path = folder / f"checkpoint-{step:09d}.pt"
    with write_whole(path) as file, _plain_values_only("a checkpoint"):
        _write(file, {"format": FORMAT, "version": __version__, **content})
        file.flush()
        with Path(file.name).open("rb") as written:
            _read(written, "meta")
    for old in [file for file in sorted(folder.glob(_PATTERN)) if file.name <= path.name][:-keep]:
        old.unlink()
    for torn in folder.glob(f"{_PATTERN}.*.partial"):  # of processes that were killed
        torn.unlink(missing_ok=True)
    return path


def check_storable(content: object, what: str) -> None:
    """Check that a checkpoint can hold a value.

    Raises:
        TypeError: If it cannot; the message says what it is of.
    """
    with _plain_values_only(what), io.BytesIO() as file:
        _write(file, content)
        _read(file)


def newest_step(folder: str | Path) -> int | None:
    """Return the step of the newest checkpoint in `folder`, readable or not, or None if there is none."""
    steps = [int(path.stem.removeprefix("checkpoint-")) for path in as_path(folder).glob(_PATTERN)]
    return max(steps, default=None)


def read_newest_checkpoint(folder: str | Path, *, parts: Collection[str] = ()) -> dict[str, Any] | None:
    """Return the content of the newest undamaged checkpoint in `folder`, or None if there is none at all.

    A file is damaged if it cannot be read, differs from its checksums, or lacks one of `parts`. A warning names it and
    the one that is used instead.

    Raises:
        ValueError: If there are checkpoints but all are damaged, or a later version wrote the one to use.
    """
    damaged: list[str] = []
    for path in sorted(as_path(folder).glob(_PATTERN), reverse=True):
        try:
            with path.open("rb") as file:
                content = _read(file)
        except Exception as error:  # a torn file can fail in any way: zip, pickle, memory
            damaged.append(f"{path}, which cannot be read ({_reason(error)})")
            continue
        check_format(content, FORMAT, path)
        if missing := [name for name in parts if name not in content]:
            damaged.append(f"{path}, which lacks {', '.join(missing)}")
            continue
        for skipped in damaged:
            warnings.warn(f"skipping {skipped}; {path} is used instead", stacklevel=3)
        return content
    if damaged:
        raise ValueError(
            f"none of the {len(damaged)} checkpoints in {folder} can be used: {'; '.join(damaged)}. Restore one, or "
            "delete them to start again."
        )
    return None


def misfits(content: Mapping[str, Any], parts: Mapping[str, nn.Module | torch.optim.Optimizer]) -> Iterator[str]:
    """Yield how the states of modules and optimizers in a checkpoint differ from these: in names, shapes, types."""
    for part, own in parts.items():
        saved = content[part]
        if isinstance(own, nn.Module):
            then, now = _described(saved), _described(own.state_dict())
        else:
            then, now = (
                {f"group {i}": f"{len(group['params'])} parameters" for i, group in enumerate(state["param_groups"])}
                for state in (saved, own.state_dict())
            )
        for name in {**now, **then}:
            if then.get(name) != now.get(name):
                yield f"{part}.{name} was {then.get(name, 'absent')} and is {now.get(name, 'absent')}"


def _described(state: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        for name, value in state.items()
    }


def _write(file: BinaryIO, content: object) -> None:
    with_checksums = get_crc32_options()
    set_crc32_options(True)
    try:
        torch.save(plain_numbers(content), file)
    finally:
        set_crc32_options(with_checksums)


def _read(file: BinaryIO, device: str = "cpu") -> dict[str, Any]:
    check_archive(file)
    content: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    return content


@contextmanager
def _plain_values_only(what: str) -> Iterator[None]:
    try:
        yield
    except (pickle.PickleError, AttributeError, TypeError) as error:  # what pickle raises is up to the value
        raise TypeError(
            f"{what} must consist of tensors and plain values (numbers, text, lists, tuples, dictionaries) to be read "
            f"again, got something else: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """Return what went wrong, without advice to trust the file."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].partition("Please use")[0].strip()
    return text.partition("\n")[0] or type(error).__name__
