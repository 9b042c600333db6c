"""Files that are written whole or not at all, records as JSON, and checks of arguments."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import math
import operator
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from torch import Tensor

from condgan._version import __version__

if TYPE_CHECKING:
    from cattrs import Converter

Record = TypeVar("Record")

NOT_IN_JSON: Mapping[str, bool] = MappingProxyType({"json": False})
"""Metadata of a dataclass field that `to_json` leaves out; `from_json` uses its default, which it must have."""

_FOLDER = 0x10  # among the attributes of an entry of a zip archive


@contextmanager
def write_whole(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete and on disk.

    If the process is killed or an exception is raised, the earlier file stays. Missing folders are made. Without `sync`
    a failure of power may still take the file: for many small files that can be made again.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "new" / "file"
        ...     with write_whole(path) as file:
        ...         _ = file.write(b"all of it")
        ...     path.read_bytes()
        b'all of it'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
        if sync:
            _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let the name of a new file survive a power failure, where folders can be synced: not on Windows."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all.

    Raises:
        ValueError: If a number is not finite; `as_json` makes such numbers None.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with write_whole(path) as file:
        file.write(text.encode())


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON together with their SHA-256, for `read_record`; whole or not at all.

    Raises:
        ValueError: If a number is not finite; `as_json` makes such numbers None.
    """
    write_json(path, with_digest(content))


def read_record(path: str | Path) -> dict[str, Any]:
    """Return what `write_record` wrote.

    A record without a SHA-256 is returned as it is: earlier versions wrote none, and whoever edits a record by hand
    deletes it. What takes the values should refuse unknown keys, as `from_json` does.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON object, or its content does not have the SHA-256 that it states.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "record.json"
        ...     write_record(path, {"steps": 100})
        ...     intact = read_record(path)
        ...     _ = path.write_text(path.read_text().replace("100", "900"))
        ...     read_record(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: .../record.json is damaged, or was edited: its content does not have the SHA-256 that it states...
        >>> intact
        {'steps': 100}
    """
    return parse_record(as_path(path).read_bytes(), path)


def parse_record(text: str | bytes, source: str | Path) -> dict[str, Any]:
    """Return the values of a record that stands in another file; as `read_record` otherwise.

    Raises:
        ValueError: If it is no JSON object, or does not have the SHA-256 that it states; the message names the source.
    """
    try:
        content = json.loads(text)
        stated = content.pop("sha256", None) if isinstance(content, dict) else None
        found = _digest(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} must hold JSON, got text that cannot be read ({error}). Restore it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{source} must hold a JSON object, got a {type(content).__name__}.")
    if stated not in (None, found):
        raise ValueError(
            f"{source} is damaged, or was edited: its content does not have the SHA-256 that it states. Restore it, or "
            "delete its entry 'sha256' if the edit was meant."
        )
    return content


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values with the SHA-256 of their JSON as the entry `sha256`, which readers of records compare."""
    return {**content, "sha256": _digest(content)}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def check_format(content: Mapping[str, Any], newest: int, source: str | Path) -> None:
    """Check that this version reads the format of a file, its entry `format`; files of format 0 have none.

    Raises:
        ValueError: If a later version wrote it.
    """
    found = content.get("format", 0)
    if found not in range(newest + 1):
        raise ValueError(
            f"{source} has format {found!r}, written by condgan {content.get('version')}; this is condgan "
            f"{__version__}, which reads formats up to {newest}. Update condgan."
        )


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write a compressed `.npz` archive, whole or not at all."""
    with write_whole(path) as file:
        np.savez_compressed(file, **arrays)


def check_archive(file: BinaryIO) -> None:
    """Check the checksum of every entry of a zip archive, which readers of `.npz` and `.pt` files do not.

    Raises:
        ValueError: If one differs. What is no archive, or a torn one, can raise anything.
    """
    with zipfile.ZipFile(file) as archive:
        # PyTorch reads nothing from an entry with the attribute of a folder, and returns memory as it was
        folders = (entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER)
        if damaged := archive.testzip() or next(folders, None):
            raise ValueError(f"{damaged} differs from its checksum, or is marked as a folder")
    file.seek(0)


def as_json(content: Any) -> Any:
    """Return plain values as JSON holds them: keys as text, tuples as lists, numbers that are not finite as None.

    Numbers of NumPy become Python's own.
    """
    if isinstance(content, Mapping):
        return {str(name): as_json(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [as_json(value) for value in content]
    if isinstance(content, np.generic):
        return as_json(content.item())
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def plain_numbers(content: Any) -> Any:
    """Return a value with the numbers of NumPy as Python's own, also within dictionaries, lists and tuples.

    Examples:
        >>> plain_numbers({"lr": np.float64(0.5), "sides": (np.int64(64), 48)})
        {'lr': 0.5, 'sides': (64, 48)}
    """
    if isinstance(content, np.generic):
        return content.item()
    if isinstance(content, dict):
        same = copy.copy(content)  # keeps the class and attributes, as those of the state of a module
        same.clear()
        same.update((plain_numbers(name), plain_numbers(value)) for name, value in content.items())
        return same
    if type(content) in (list, tuple):
        return type(content)(plain_numbers(value) for value in content)
    return content


def to_json(record: object) -> Any:
    """Return a record (frozen dataclasses, enums, tuples, numbers and text within each other) as plain values.

    Numbers that are not finite become None. `from_json` is the inverse.

    Examples:
        >>> from condgan.runs import RecipeConfig
        >>> to_json(RecipeConfig(recipe="acgan", steps=10))["steps"]
        10
    """
    return as_json(_converter().unstructure(record))


def from_json(cls: type[Record], content: Any) -> Record:
    """Return a record of class `cls` from the plain values that `to_json` made of it.

    Raises:
        ValueError: If a key is unknown or missing, or a value has the wrong type or is out of range; the message says
            which. No value is read as another, such as 3.7 as 3 or `"no"` as true.

    Examples:
        >>> from condgan.runs import RecipeConfig
        >>> from_json(RecipeConfig, {"recipe": "acgan", "stepps": 10})
        Traceback (most recent call last):
            ...
        ValueError: RecipeConfig cannot be read: unknown key 'stepps', did you mean 'steps'?
    """
    from cattrs import BaseValidationError

    if not isinstance(content, Mapping):
        raise ValueError(f"{cls.__name__} cannot be read: it must be an object, got a {type(content).__name__}")
    try:
        plain = as_json(content)
        record = _converter().structure(plain, cls)
        reasons = list(_misread("", plain, to_json(record)))
    except (BaseValidationError, RecursionError) as error:
        raise ValueError(f"{cls.__name__} cannot be read: {'; '.join(_reasons(error))}") from error
    if reasons:
        raise ValueError(f"{cls.__name__} cannot be read: {'; '.join(reasons)}")
    return record


def _misread(place: str, given: object, read: object) -> Iterator[str]:
    """Yield where a value became another, because cattrs converts what has a wrong type."""
    if isinstance(given, dict) and isinstance(read, dict):
        for name in given:
            yield from _misread(f"{place}.{name}".lstrip("."), given[name], read.get(name))
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, pair in enumerate(zip(given, read, strict=True)):
            yield from _misread(f"{place}[{index}]", *pair)
    elif given != read or isinstance(given, bool) != isinstance(read, bool):
        yield f"{place}: {given!r} has the wrong type, it would be read as {read!r}"


def _reasons(error: BaseException, place: str = "") -> Iterator[str]:
    """Yield what is wrong, and where, for each error that cattrs found."""
    from cattrs import BaseValidationError, ForbiddenExtraKeysError
    from cattrs.errors import AttributeValidationNote, IterableValidationNote

    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            where = place
            for note in getattr(inner, "__notes__", ()):
                if isinstance(note, AttributeValidationNote):
                    where = f"{place}.{note.name}".lstrip(".")
                elif isinstance(note, IterableValidationNote):
                    where = f"{place}[{note.index!r}]"
            yield from _reasons(inner, where)
        return
    at = f"{place}: " if place else ""
    if isinstance(error, ForbiddenExtraKeysError):
        known = [entry.name for entry in fields(error.cl)]
        for name in sorted(error.extra_fields):
            near = difflib.get_close_matches(name, known, 1)
            yield f"{at}unknown key {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
    elif isinstance(error, KeyError):
        name = str(error.args[0])
        yield f"{place} is missing" if place.endswith(name) else f"{at}unknown {name!r}"
    else:
        yield f"{at}{error}"


def load_record(cls: type[Record], path: str | Path) -> Record:
    """Return the record of class `cls` whose plain values `write_record` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds something else; the message names it.
    """
    content = read_record(path)
    try:
        return from_json(cls, content)
    except ValueError as error:
        raise ValueError(f"{path} must be as condgan wrote it: {error}") from error


@cache
def _converter() -> Converter:
    from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
    from cattrs.preconf.json import make_converter

    converter = make_converter(forbid_extra_keys=True)
    converter.register_structure_hook_func(lambda cls: cls is object, lambda value, _: value)  # settings of any kind
    # to_json writes numbers that are not finite as None
    converter.register_structure_hook(float, lambda value, _: math.nan if value is None else float(value))

    def omitted(cls: Any) -> dict[str, Any]:
        entries = fields(cls) if is_dataclass(cls) else ()
        return {entry.name: override(omit=True) for entry in entries if not entry.metadata.get("json", True)}

    converter.register_unstructure_hook_factory(
        lambda cls: bool(omitted(cls)), lambda cls: make_dict_unstructure_fn(cls, converter, **omitted(cls))
    )
    converter.register_structure_hook_factory(
        lambda cls: bool(omitted(cls)),
        lambda cls: make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **omitted(cls)),
    )
    return converter


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return a user's path, in which `~` is the home folder."""
    return Path(path).expanduser()


def check_names(role: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Check that names are known and differ from each other.

    Raises:
        ValueError: If not; the message suggests a near name.
    """
    given, choices = list(names), sorted(known)
    for name in given:
        if name not in choices:
            near = difflib.get_close_matches(name, choices, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{role} must be among {', '.join(choices)}, got {name!r}.{hint}")
    if len(set(given)) < len(given):
        raise ValueError(f"{role} must differ from each other, got {', '.join(given)}.")


def check_tensors(**values: object) -> None:
    """Check that arguments are tensors.

    Raises:
        TypeError: If one is not; the message names it.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor):
            hint = f" Pass torch.from_numpy({name})." if isinstance(value, np.ndarray) else ""
            raise TypeError(f"{name} must be a torch.Tensor, got a {type(value).__name__}.{hint}")


def check_count(name: str, value: int) -> None:
    """Check that a number is at least 1.

    Raises:
        ValueError: If not.
    """
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")


def check_seed(seed: int) -> int:
    """Return a seed as a Python integer, which NumPy's are not.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is out of range.
    """
    if not 0 <= (whole := operator.index(seed)) < 2**62:
        raise ValueError(f"seed must lie in [0, 2**62), got {whole}.")
    return whole


def check_not_negative(name: str, value: float) -> None:
    """Check that a number is at least 0, and not NaN.

    Raises:
        ValueError: If not.
    """
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}.")
