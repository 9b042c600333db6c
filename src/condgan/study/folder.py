"""The folder of a study: one file per cell, written completely or not at all."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from condgan.files import from_json, to_json, write_arrays, write_json
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
    | `cells/NAME.json` | outcome of a finished cell |
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
        self.path = Path(path)

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
            return
        self.path.mkdir(parents=True, exist_ok=True)
        labels, groups = (part.numpy() for part in test)
        write_arrays(self.path / "test.npz", labels=labels, groups=groups)
        write_json(self._description, to_json(study))

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
        content = json.loads(self._description.read_text(encoding="utf-8"))
        check_schema(content, self._description)
        return from_json(StudyDescription, content)

    def test(self) -> tuple[Tensor, Tensor]:
        """Return labels and groups of the test images, `(N,)` int64 each."""
        with np.load(self.path / "test.npz", allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["labels"]), torch.from_numpy(arrays["groups"])

    def is_finished(self, name: str) -> bool:
        """Return whether a cell has an outcome."""
        return (self.path / "cells" / f"{name}.json").is_file()

    def has_network(self, cell: Cell) -> bool:
        """Return whether the network that a finished cell trained is in the folder; true for failed trainings."""
        if isinstance(self.read(cell.name), FailedOutcome):
            return True
        if cell.kind == "gan":
            return (self.gan(cell) / "generator" / "model.safetensors").is_file()
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
        write_json(self.path / "cells" / f"{outcome.name}.json", to_json(outcome))

    def read(self, name: str) -> Outcome:
        """Return the outcome of a finished cell."""
        return read_outcome(json.loads((self.path / "cells" / f"{name}.json").read_text(encoding="utf-8")))

    def probabilities(self, name: str) -> Tensor:
        """Return the test probabilities of a classifier, `(N, K)` float64."""
        with np.load(self.path / "cells" / f"{name}.npz", allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["probabilities"])

    def gan(self, cell: Cell) -> Path:
        """Return the folder of the generator that a cell trains or judges."""
        gan = Cell(kind="gan", recipe=cell.recipe, seed=cell.seed, percent=cell.percent)
        return self.path / "gans" / gan.name

    def count_test_use(self, key: str, cell: Cell) -> None:
        """Record a use of the test set, before it happens, so that an interrupted use counts too."""
        line = json.dumps({"key": key, "cell": cell.name, "time_ns": time.time_ns()})
        with (self.path / "test_evaluations.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def test_evaluations(self) -> dict[str, int]:
        """Return the number of uses of the test set, by what was tested."""
        path = self.path / "test_evaluations.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return dict(sorted(Counter(json.loads(line)["key"] for line in lines).items()))

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
        names = [path.stem for path in sorted((other.path / "cells").glob("*.json"))]
        for name in filter(self.is_finished, names):
            _check_same(
                self.read(name),
                other.read(name),
                f"{name} was run in {str(self.path)!r} and in {str(other.path)!r}, with different outcomes. Let each "
                "machine run cells of its own",
            )
        absent = [name for name in names if not self.is_finished(name)]
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
        lines: dict[str, None] = {}
        for path in (self.path / "test_evaluations.jsonl", other.path / "test_evaluations.jsonl"):
            if path.is_file():
                lines |= dict.fromkeys(path.read_text(encoding="utf-8").splitlines(keepends=True))
        (self.path / "test_evaluations.jsonl").write_text("".join(lines), encoding="utf-8")


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
