"""Runs a study cell by cell: what is finished is never run again, what was cut off goes on."""

from __future__ import annotations

import fnmatch
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgan.data.dataset import ArrayDataset
from condgan.study.files import StudyFolder
from condgan.study.generators import in_words
from condgan.study.judge import PRETRAINED
from condgan.study.plan import Cell, StudyConfig, plan
from condgan.study.preparation import prepare
from condgan.study.provenance import provenance
from condgan.study.results import write_results
from condgan.study.worker import Worker
from condgan.training import TrainingDivergedError
from condgan.training.engines import EngineName
from condgan.training.setup import best_device


class Study:
    """A study in a folder: trains generators, judges their images, trains and tests classifiers on them.

    Everything that may be wrong with the data is found here, before anything is trained, see `prepare`. The folder is
    begun here too, or compared with what it was begun with.

    Args:
        config: What to compute.
        train: Training images, with groups (patients) if they are known.
        validation: Images of other patients from the same source, to choose epochs and thresholds on.
        test: Images of other patients, to report on.
        folder: Where everything goes, see `StudyFolder`. With a study in it, that one goes on.
        device: Where to compute; by default CUDA, then MPS, then the CPU.
        engine: How updates of generators are run, see `Trainer`; the results are the same.
        real_images: Whether pictures of real images may be kept in the folder.
        progress: Called with a line of text for each cell, and from time to time within long ones.
        command: The command that the study can be repeated with, for its report.
        notice: What nobody may overlook about the data, for the top of the report.
        notes: What else must be known about the data, for the report.

    Raises:
        ValueError: If the data do not fit, a patient is in two of the sets, or the folder holds another study.
        FileNotFoundError: If the weights of the extractor are not at hand.
    """

    def __init__(
        self,
        config: StudyConfig,
        train: ArrayDataset,
        validation: ArrayDataset,
        test: ArrayDataset,
        folder: str | Path,
        *,
        device: torch.device | str | None = None,
        engine: EngineName = "auto",
        real_images: bool = True,
        progress: Callable[[str], None] | None = None,
        command: str | None = None,
        notice: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.data = prepare(config, train, validation, test, notice=notice, notes=notes)
        self.folder = StudyFolder(folder)
        self.device = torch.device(device) if device is not None else best_device()
        self.progress = progress or (lambda line: None)
        self.cells = plan(config)
        self.worker = Worker(config, self.data, self.folder, device=self.device, real_images=real_images, engine=engine)
        if config.extractor in PRETRAINED:
            _ = self.worker.extractor  # now, so that missing weights are not found out behind days of training
        tested = (self.data.test.labels, self.data.test_groups)
        self.folder.begin(config, self.data.description, tested, command=command)
        if real_images:
            self.worker.save_real(self.folder.path / "real.png")

    def run(self, cells: Sequence[str] = ("*",), *, time_limit: float | None = None) -> bool:
        """Run what is missing, in the order of the plan.

        Args:
            cells: Patterns of names, such as `"gan-acgan-*"`: several machines share a study by different patterns and
                `merge` their folders. A finished cell among them is run again only if another one needs its network
                and the folder lacks it.
            time_limit: Seconds after which to stop. A generator in training is kept in a checkpoint; another cell is
                begun only if those of its kind so far fit into the time that is left, the first one in any case.

        Returns:
            Whether all of these cells are finished.

        Raises:
            ValueError: If a pattern fits no cell, or a cell needs one that is neither finished nor among these.
        """
        chosen = self._choose(cells)
        deadline = math.inf if time_limit is None else time.monotonic() + time_limit
        missing = self._missing(chosen)
        for number, cell in enumerate(missing):
            if cell not in self._missing(chosen):
                continue  # another process was faster
            failed = [name for name in cell.needs if "error" in self.folder.read(name)]
            if failed:
                self.progress(f"{cell.name} is left out: {failed[0]} failed")
                continue
            left = deadline - time.monotonic()
            expected = self._expected_seconds(cell) if cell.kind != "gan" else 0.0
            if left <= 0 or (number > 0 and expected is not None and expected > left):
                self.progress(f"stopped by the time limit with {len(missing) - number} cells left")
                return False
            began = time.perf_counter()
            line = f"[{len(chosen) - len(missing) + number + 1}/{len(chosen)}] {cell.name}"
            if not self._run(cell, deadline, line):
                self.progress(f"{line} was stopped by the time limit and will go on from there")
                return False
            self.progress(f"{line}: {in_words(time.perf_counter() - began)}; {self._time_left(missing[number + 1 :])}")
        return True

    def results(self) -> dict[str, Any]:
        """Return the results so far, and leave them as `results.json` in the folder."""
        path = write_results(self.folder.path)
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return results

    def _run(self, cell: Cell, deadline: float, line: str) -> bool:
        began = time.perf_counter()
        probabilities: Tensor | None = None
        try:
            if cell.kind == "gan":
                outcome = self.worker.train(
                    cell, deadline=deadline, report=lambda text: self.progress(f"{line}: {text}")
                )
                if outcome is None:
                    return False
            elif cell.kind == "judge":
                outcome = self.worker.judge(cell)
            else:
                outcome, probabilities = self.worker.classify(cell)
        except TrainingDivergedError as error:
            outcome = {"error": str(error)}
        seconds = round(outcome.pop("seconds", time.perf_counter() - began), 2)
        if not self.folder.is_finished(cell.name):  # else only its network was missing: results stay as they are
            self.folder.write(cell, {**outcome, "seconds": seconds, **provenance(self.device)}, probabilities)
        if cell.kind == "gan":
            shutil.rmtree(self.folder.gan(cell) / "checkpoints", ignore_errors=True)
        return True

    def _choose(self, patterns: Sequence[str]) -> list[Cell]:
        names = [cell.name for cell in self.cells]
        idle = [pattern for pattern in patterns if not fnmatch.filter(names, pattern)]
        if idle:
            raise ValueError(f"every pattern must fit a cell, got {', '.join(idle)}. Cells are {', '.join(names)}.")
        chosen = [cell for cell in self.cells if any(fnmatch.fnmatch(cell.name, pattern) for pattern in patterns)]
        there = {cell.name for cell in chosen} | {name for name in names if self.folder.is_finished(name)}
        for cell in chosen:
            absent = [name for name in cell.needs if name not in there]
            if absent and not self.folder.is_finished(cell.name):
                raise ValueError(
                    f"{cell.name} needs {absent[0]}, which is neither finished nor among the cells to run. Add it, or "
                    "merge the folder of the machine that runs it."
                )
        return chosen

    def _missing(self, chosen: Sequence[Cell]) -> list[Cell]:
        """Return the cells to run: unfinished ones, and finished ones whose network one of these needs and lacks.

        Results can be kept without networks; a network is then trained again from its seed.
        """
        found: list[Cell] = []
        needed: set[str] = set()
        for cell in reversed(chosen):  # cells come behind those that they need
            finished = self.folder.is_finished(cell.name)
            if not finished or (cell.name in needed and not self.folder.has_network(cell)):
                found.append(cell)
                needed |= set(cell.needs)
        return found[::-1]

    def _expected_seconds(self, cell: Cell) -> float | None:
        """Return the mean time of the finished cells of this kind, and of this recipe for generators; None if none."""
        alike = [
            other
            for other in self.cells
            if other.kind == cell.kind and (cell.kind != "gan" or other.entry == cell.entry)
        ]
        spent = [self.folder.read(other.name)["seconds"] for other in alike if self.folder.is_finished(other.name)]
        return sum(spent) / len(spent) if spent else None

    def _time_left(self, cells: Sequence[Cell]) -> str:
        if not cells:
            return "done"
        expected = [self._expected_seconds(cell) for cell in cells]
        known = sum(seconds for seconds in expected if seconds is not None)
        return f"{'at least' if None in expected else 'about'} {in_words(known)} left"


def merge(folders: Sequence[str | Path], into: str | Path) -> Path:
    """Put the cells of one study that several machines ran into one folder.

    Args:
        folders: Folders of the same configuration and data.
        into: Folder to put them in: one of these, another begun study, or a new one.

    Raises:
        FileNotFoundError: If a folder holds no study.
        ValueError: If configurations or data differ, or a cell has different outcomes in two of them.
    """
    target = StudyFolder(into)
    for source in map(StudyFolder, folders):
        target.take(source)
    return target.path
