"""The folder of a study: one file per cell, written completely or not at all."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from condgan.files import (
    as_path,
    check_archive,
    load_record,
    parse_record,
    read_record,
    to_json,
    with_digest,
    write_arrays,
    write_record,
    write_whole,
)
from condgan.runs import load_run
from condgan.study.cells import Cell
from condgan.study.config import StudyConfig
from condgan.study.results import SCHEMA, DataDescription, FailedOutcome, Outcome, check_schema, read_outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDescription:
    """What a study is of: the content of `config.json`.

    Args:
        config: The configuration.
        data: The data.
        command: The command that repeats the study.
        schema: Version of all records in the folder.
    """

    schema: int = SCHEMA
    config: StudyConfig
    data: DataDescription
    command: str | None = None


class StudyFolder:
    """Reads and writes the files of a study.

    | file | content |
    | --- | --- |
    | `config.json` | schema, configuration, description of the data |
    | `test.npz` | labels and patients (as numbers) of the test images |
    | `cells/NAME.json` | outcome of a finished cell, or of one that failed |
    | `cells/NAME.npz` | class probabilities of a classifier on the test images |
    | `gans/NAME/` | a generator, see `train_generator`, and `neighbors.png`: the images most likely to be copies, each beside its nearest training images |
    | `classifiers/NAME.safetensors` | the reference classifier, trained on real images, for the GAN-test |
    | `real.png` | real training images, one row per class |
    | `test_evaluations.jsonl` | one line for each use of the test set |

    Probabilities are float64: in float32 all confident decisions would share the probability 1 and tie in the AUROC.

    Args:
        path: The folder.
    """  # noqa: E501 - a table

    def __init__(self, path: str | Path) -> None:
        self.path = as_path(path)

    def begin(self, study: StudyDescription, test: tuple[Tensor, Tensor]) -> None:
        """Write configuration and data into a new folder, or verify that an existing one holds the same study.

        Args:
            study: Configuration and data; the command is not compared.
            test: Labels and groups of the test images.

        Shape:
            - `test`: `(N,)` each, int64.

        Raises:
            ValueError: If the folder holds a study of another configuration or other data.
        """
        if self.is_begun:
            _check_same(self.study(), study, f"{str(self.path)!r} holds another study")
        try:
            self.test()
        except (FileNotFoundError, ValueError):  # damaged
            labels, groups = (part.numpy() for part in test)
            write_arrays(self.path / "test.npz", labels=labels, groups=groups)
        if not self.is_begun:
            write_record(self._description, to_json(study))

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds a study."""
        return self._description.is_file()

    @property
    def _description(self) -> Path:
        return self.path / "config.json"

    def study(self) -> StudyDescription:
        """Return configuration and data. Settings that did not exist when the folder was made have their defaults.

        Raises:
            FileNotFoundError: If the folder holds no study.
            ValueError: If it has another schema.
        """
        if not self.is_begun:
            raise FileNotFoundError(f"{str(self.path)!r} must hold a study, got a folder without config.json.")
        check_schema(read_record(self._description), self._description)
        return load_record(StudyDescription, self._description)

    def test(self) -> tuple[Tensor, Tensor]:
        """Return labels and groups of the test images, `(N,)` int64 each."""
        labels, groups = _read_arrays(self.path / "test.npz", "labels", "groups")
        return labels, groups

    def is_finished(self, name: str) -> bool:
        """Return whether a cell has an outcome."""
        return (self.path / "cells" / f"{name}.json").is_file()

    def has_network(self, cell: Cell) -> bool:
        """Return whether the network that a finished cell trained is in the folder; true for failed trainings."""
        if isinstance(self.read(cell.name), FailedOutcome):
            return True
        if cell.kind == "gan":
            folder = self.gan(cell)
            unfinished = (folder / "run.json").is_file() and not load_run(folder).is_finished  # it was to be made again
            return (folder / "generator" / "model.safetensors").is_file() and not unfinished
        return self.classifier(cell.name).is_file()

    def classifier(self, name: str) -> Path:
        """Return the file of the weights of a reference classifier."""
        return self.path / "classifiers" / f"{name}.safetensors"

    def write(self, outcome: Outcome, probabilities: Tensor | None = None) -> None:
        """Write the outcome of a cell.

        Shape:
            - `probabilities`: `(N, K)`, float64, or None.
        """
        if probabilities is not None:
            write_arrays(self.path / "cells" / f"{outcome.name}.npz", probabilities=probabilities.numpy())
        write_record(self.path / "cells" / f"{outcome.name}.json", to_json(outcome))

    def read(self, name: str) -> Outcome:
        """Return the outcome of a finished cell.

        Raises:
            ValueError: If its file is damaged, or of another version; the message names it.
        """
        path = self.path / "cells" / f"{name}.json"
        content = read_record(path)
        try:
            return read_outcome(content)
        except ValueError as error:
            raise ValueError(f"{str(path)!r} must be the outcome of a cell: {error}") from error

    def probabilities(self, name: str) -> Tensor:
        """Return the test probabilities of a classifier, `(N, K)` float64.

        Raises:
            ValueError: If its file is damaged; the message names it.
        """
        (probabilities,) = _read_arrays(self.path / "cells" / f"{name}.npz", "probabilities")
        return probabilities

    def set_damaged_aside(self) -> list[Path]:
        """Rename files of damaged outcomes, so that their cells are run again, and return the new names."""
        aside = []
        for path in sorted((self.path / "cells").glob("*.json")):
            if not self._is_whole(path.stem):
                aside.append(path.replace(path.with_suffix(".json.damaged")))
        return aside

    def _is_whole(self, name: str) -> bool:
        try:
            content = read_record(self.path / "cells" / f"{name}.json")
            if content.get("kind") == "classifier":
                self.probabilities(name)
        except (ValueError, FileNotFoundError):
            return False
        return True

    def forget_failures(self, names: Iterable[str]) -> None:
        """Delete the outcomes of those cells that failed, so that they are run again."""
        for name in names:
            if self.is_finished(name) and isinstance(self.read(name), FailedOutcome):
                (self.path / "cells" / f"{name}.json").unlink()

    def gan(self, cell: Cell) -> Path:
        """Return the folder of the generator that a cell trains or judges."""
        gan = Cell(kind="gan", recipe=cell.recipe, seed=cell.seed, percent=cell.percent)
        return self.path / "gans" / gan.name

    def count_test_use(self, key: str, cell: Cell) -> None:
        """Record a use of the test set, before it happens, so that an interrupted use counts too."""
        line = json.dumps(with_digest({"key": key, "cell": cell.name, "time_ns": time.time_ns()}))
        path = self.path / "test_evaluations.jsonl"
        torn = path.is_file() and not path.read_bytes().endswith(b"\n")  # by a process that was killed
        with path.open("ab") as file:
            file.write(b"\n" * torn + line.encode() + b"\n")

    def test_evaluations(self) -> dict[str, int]:
        """Return the number of uses of the test set, by what was tested; damaged lines are left out with a warning.

        A line that stands there twice is one use: each has a time of its own.
        """
        path = self.path / "test_evaluations.jsonl"
        uses: dict[bytes, str] = {}
        for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], start=1):
            try:
                use = parse_record(line, path)
            except ValueError:
                use = {}
            if set(use) == {"key", "cell", "time_ns"}:
                uses[line] = str(use["key"])
            else:
                warnings.warn(f"line {number} of {str(path)!r} is damaged and not counted", stacklevel=2)
        return dict(sorted(Counter(uses.values()).items()))

    def take(self, other: StudyFolder) -> None:
        """Copy what another folder of the same study has and this one lacks.

        Raises:
            FileNotFoundError: If the other folder holds no study.
            ValueError: If configuration or data differ, or a cell has different outcomes; the message says which.
        """
        if other.path.resolve() == self.path.resolve():
            return
        theirs = other.study()
        if self.is_begun:
            _check_same(self.study(), theirs, f"{str(self.path)!r} and {str(other.path)!r} are different studies")
        self.set_damaged_aside()
        names = [path.stem for path in sorted((other.path / "cells").glob("*.json"))]
        for name in (name for name in names if not other._is_whole(name)):
            warnings.warn(f"the outcome of {name} in {str(other.path)!r} is damaged and left out", stacklevel=3)
        names = list(filter(other._is_whole, names))
        for name in filter(self.is_finished, names):
            _check_same(
                self.read(name),
                other.read(name),
                f"{name} was run in {str(self.path)!r} and in {str(other.path)!r}, with different outcomes. Let each "
                "machine run cells of its own",
            )
        absent = [name for name in names if not self.is_finished(name)]
        for name in absent:  # a training that was begun here is finished there
            if (other.path / "gans" / name).is_dir():
                shutil.rmtree(self.path / "gans" / name, ignore_errors=True)
        _copy(other.path, self.path, [f"cells/{name}.npz" for name in absent])
        _copy(other.path, self.path, [f"gans/{name}" for name in absent])
        _copy(other.path, self.path, [f"classifiers/{name}.safetensors" for name in absent])
        _copy(other.path, self.path, [f"cells/{name}.json" for name in absent])
        _copy(other.path, self.path, ["test.npz", "real.png", "config.json"])
        # judging adds a picture to the folder of a generator, which may be here already
        pictures = (other.path / "gans").glob("*/*.png")
        _copy(other.path, self.path, [str(path.relative_to(other.path)) for path in pictures])
        self._take_test_uses(other)

    def _take_test_uses(self, other: StudyFolder) -> None:
        lines: dict[bytes, None] = {}
        for path in (self.path / "test_evaluations.jsonl", other.path / "test_evaluations.jsonl"):
            if path.is_file():
                lines |= dict.fromkeys(path.read_bytes().splitlines())
        with write_whole(self.path / "test_evaluations.jsonl") as file:
            file.writelines(line + b"\n" for line in lines)


def _read_arrays(path: Path, *names: str) -> list[Tensor]:
    """Return arrays of an `.npz` archive.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged; the message names it.
    """
    with path.open("rb") as file:
        try:
            check_archive(file)
            with np.load(file, allow_pickle=False) as arrays:
                return [torch.from_numpy(arrays[name]) for name in names]
        except Exception as error:  # a torn file can fail in any way
            raise ValueError(
                f"{str(path)!r} must be an archive with {', '.join(names)}, got a damaged one: {error}"
            ) from error


_OF_THE_MACHINE = {"seconds", "origin", "device", "command"}


def _check_same(found: object, given: object, what: str) -> None:
    """Check that two records agree, except for times, machines and commands.

    Raises:
        ValueError: If they differ; the message says where.
    """
    differing = list(_differences("", to_json(found), to_json(given)))
    if differing:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise ValueError(f"{what}: {'; '.join(differing[:5])}{more}. Choose another folder, or the same study.")


def _differences(place: str, found: object, given: object) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(given, dict):
        for name in sorted({*found, *given} - _OF_THE_MACHINE):
            yield from _differences(f"{place}.{name}".lstrip("."), found.get(name), given.get(name))
    elif found != given:
        yield f"{place} is {found!r}, got {given!r}"


def _copy(source: Path, target: Path, names: list[str]) -> None:
    for name in names:
        if (source / name).exists() and not (target / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (source / name).is_dir() else shutil.copy2
            copy(source / name, target / name)
