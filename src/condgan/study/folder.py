"""The folder of a study: one file a cell, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgan.files import as_json, write_arrays, write_json
from condgan.study.cells import Cell
from condgan.study.config import StudyConfig

SCHEMA = 1


class StudyFolder:
    """Reads and writes the files of a study.

    | file | content |
    | --- | --- |
    | `config.json` | schema, configuration, description of the data |
    | `test.npz` | labels and patients (as numbers) of the test images |
    | `cells/NAME.json` | outcome of a finished cell |
    | `cells/NAME.npz` | class probabilities of a classifier on the test images |
    | `gans/NAME/` | a generator, see `train_generator`, and `neighbors.png`, the most suspicious of its images beside real ones |
    | `classifiers/NAME.safetensors` | the classifier that examines generated images |
    | `real.png` | real training images, one row a class |
    | `test_evaluations.jsonl` | one line for each use of the test set |

    Probabilities are float64: in float32 all confident decisions would share the probability 1 and tie in the AUROC.

    Args:
        path: The folder.
    """  # noqa: E501 - a table

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def begin(
        self,
        config: StudyConfig,
        data: Mapping[str, Any],
        test: tuple[Tensor, Tensor],
        *,
        command: str | None = None,
    ) -> None:
        """Write down configuration and data, or compare them with those that the folder was begun with.

        Args:
            config: The configuration.
            data: Description of the data.
            test: Labels and groups of the test images.
            command: The command that the study can be repeated with; not compared.

        Shape:
            - `test`: `(N,)` each, int64.

        Raises:
            ValueError: If the folder holds a study of another configuration or other data.
        """
        content = as_json({"schema": SCHEMA, "config": config.as_dict(), "data": dict(data)})
        if (self.path / "config.json").is_file():
            check_same(self._described(), content, f"{str(self.path)!r} holds another study")
            return
        self.path.mkdir(parents=True, exist_ok=True)
        labels, groups = (part.numpy() for part in test)
        write_arrays(self.path / "test.npz", labels=labels, groups=groups)
        write_json(self.path / "config.json", {**content, "command": command})

    @property
    def content(self) -> dict[str, Any]:
        """Schema, configuration, data and command as they were written down.

        Raises:
            FileNotFoundError: If the folder holds no study.
            ValueError: If it has another schema.
        """
        path = self.path / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{str(self.path)!r} must hold a study (a config.json), and does not.")
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.get("schema") != SCHEMA:
            raise ValueError(f"{str(path)!r} must have schema {SCHEMA}, got {content.get('schema')}.")
        return content

    def _described(self) -> Any:
        """Return schema, configuration and data; settings that are younger than the folder have their defaults."""
        return _comparable({**self.content, "config": as_json(self.config.as_dict())})

    @property
    def config(self) -> StudyConfig:
        """The configuration that the study was begun with."""
        return StudyConfig.from_dict(self.content["config"])

    def test(self) -> tuple[Tensor, Tensor]:
        """Return labels and groups of the test images, `(N,)` int64 each."""
        with np.load(self.path / "test.npz", allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["labels"]), torch.from_numpy(arrays["groups"])

    def is_finished(self, name: str) -> bool:
        """Return whether a cell has an outcome."""
        return (self.path / "cells" / f"{name}.json").is_file()

    def has_network(self, cell: Cell) -> bool:
        """Return whether the network that a finished cell trained is there, for cells that need it.

        A training that failed left none, and counts as complete.
        """
        if "error" in self.read(cell.name):
            return True
        if cell.kind == "gan":
            return (self.gan(cell) / "generator" / "model.safetensors").is_file()
        return self.classifier(cell.name).is_file()

    def classifier(self, name: str) -> Path:
        """Return the file of the weights of a classifier that looks at generated images."""
        return self.path / "classifiers" / f"{name}.safetensors"

    def write(self, cell: Cell, outcome: Mapping[str, Any], probabilities: Tensor | None = None) -> dict[str, Any]:
        """Keep the outcome of a cell and return it as it can be read again.

        Shape:
            - `probabilities`: `(N, K)`, float64, or None.
        """
        if probabilities is not None:
            write_arrays(self.path / "cells" / f"{cell.name}.npz", probabilities=probabilities.numpy())
        own = {
            "name": cell.name,
            "kind": cell.kind,
            "recipe": cell.entry,
            "seed": cell.seed,
            "classifier_seed": cell.classifier_seed,
            "arm": cell.arm,
            "p": cell.percent,
        }
        write_json(self.path / "cells" / f"{cell.name}.json", as_json({**own, **outcome, **own}))
        return self.read(cell.name)

    def read(self, name: str) -> dict[str, Any]:
        """Return the outcome of a finished cell."""
        outcome: dict[str, Any] = json.loads((self.path / "cells" / f"{name}.json").read_text(encoding="utf-8"))
        return outcome

    def probabilities(self, name: str) -> Tensor:
        """Return the test probabilities of a classifier, `(N, K)` float64."""
        with np.load(self.path / "cells" / f"{name}.npz", allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["probabilities"])

    def gan(self, cell: Cell) -> Path:
        """Return the folder of the generator that a cell trains or judges."""
        gan = Cell(kind="gan", entry=cell.entry, seed=cell.seed, percent=cell.percent)
        return self.path / "gans" / gan.name

    def count_test_use(self, key: str, cell: Cell) -> None:
        """Write down, before it happens, that the test set is looked at: a use that is cut off counts too."""
        line = json.dumps({"key": key, "cell": cell.name, "time_ns": time.time_ns()})
        with (self.path / "test_evaluations.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def test_evaluations(self) -> dict[str, int]:
        """Return how often the test set was looked at, by what was tested."""
        path = self.path / "test_evaluations.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return dict(sorted(Counter(json.loads(line)["key"] for line in lines).items()))

    def take(self, other: StudyFolder) -> None:
        """Take over what another folder of the same study has and this one has not.

        Raises:
            FileNotFoundError: If the other folder holds no study.
            ValueError: If configuration or data differ, or a cell has different outcomes; the message says which.
        """
        if other.path.resolve() == self.path.resolve():
            return
        theirs = other._described()
        if (self.path / "config.json").is_file():
            check_same(self._described(), theirs, f"{str(self.path)!r} and {str(other.path)!r} are different studies")
        names = [path.stem for path in sorted((other.path / "cells").glob("*.json"))]
        for name in filter(self.is_finished, names):
            check_same(
                _comparable(self.read(name)),
                _comparable(other.read(name)),
                f"{name} was run in {str(self.path)!r} and in {str(other.path)!r}, with different outcomes. Let each "
                "machine run cells of its own",
            )
        absent = [name for name in names if not self.is_finished(name)]
        _copy(other.path, self.path, [f"cells/{name}.npz" for name in absent])
        _copy(other.path, self.path, [f"gans/{name}" for name in absent])
        _copy(other.path, self.path, [f"classifiers/{name}.safetensors" for name in absent])
        _copy(other.path, self.path, [f"cells/{name}.json" for name in absent])
        _copy(other.path, self.path, ["test.npz", "real.png", "config.json"])
        self._take_pictures(other)
        self._take_uses(other)

    def _take_pictures(self, other: StudyFolder) -> None:
        """Take pictures that judging left in the folder of a generator that is here already."""
        pictures = (other.path / "gans").glob("*/*.png")
        _copy(other.path, self.path, [str(path.relative_to(other.path)) for path in pictures])

    def _take_uses(self, other: StudyFolder) -> None:
        lines: dict[str, None] = {}
        for path in (self.path / "test_evaluations.jsonl", other.path / "test_evaluations.jsonl"):
            if path.is_file():
                lines |= dict.fromkeys(path.read_text(encoding="utf-8").splitlines(keepends=True))
        (self.path / "test_evaluations.jsonl").write_text("".join(lines), encoding="utf-8")


def check_same(found: Mapping[str, Any], given: Mapping[str, Any], what: str) -> None:
    """Make sure that two descriptions of a study agree.

    Raises:
        ValueError: If not; the message says where they differ.
    """
    differing = list(_differences("", found, given))
    if differing:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise ValueError(f"{what}: {'; '.join(differing[:5])}{more}. Choose another folder, or give the same.")


_OF_THE_MACHINE = {"seconds", "device", "commit", "versions", "command", "fp32_precision"}


def _comparable(content: Any) -> Any:
    """Return content without what may differ between machines."""
    if isinstance(content, Mapping):
        return {name: _comparable(value) for name, value in content.items() if name not in _OF_THE_MACHINE}
    return content


def _copy(source: Path, target: Path, names: list[str]) -> None:
    for name in names:
        if (source / name).exists() and not (target / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (source / name).is_dir() else shutil.copy2
            copy(source / name, target / name)


def _differences(place: str, found: Any, given: Any) -> list[str]:
    if isinstance(found, Mapping) and isinstance(given, Mapping):
        names = sorted({*found, *given})
        inner = [_differences(f"{place}.{name}".lstrip("."), found.get(name), given.get(name)) for name in names]
        return [line for lines in inner for line in lines]
    return [] if found == given else [f"{place} is {found!r}, got {given!r}"]
