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

from condgan.classifier.training import Classifier
from condgan.data.store import ArrayDataset
from condgan.files import to_json
from condgan.images import save_sheet
from condgan.metrics import classification_report
from condgan.metrics.crossfit import classifier_extractor
from condgan.metrics.evaluation import PRETRAINED, evaluate, make_extractor
from condgan.metrics.extractors import CrossFit, Extractor
from condgan.runs import SHOWN, Criterion, GeneratorTraining, Pool, class_kid, in_words, load_generator
from condgan.sampling import class_grid
from condgan.study.arms import ARMS, run_arm, synthetic_labels
from condgan.study.cells import Cell, make_cells
from condgan.study.config import PRIMARY_METRICS, StudyConfig
from condgan.study.data import Group, Prepared, keep_patients, prepare
from condgan.study.folder import StudyFolder
from condgan.study.provenance import provenance
from condgan.study.results import write_results
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
        group: Maps a path to its patient, to check that none is in two of the sets.
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
        group: Group | None = None,
        device: torch.device | str | None = None,
        engine: EngineName = "auto",
        real_images: bool = True,
        progress: Callable[[str], None] | None = None,
        command: str | None = None,
        notice: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.data = prepare(config, train, validation, test, group=group, notice=notice, notes=notes)
        self.folder = StudyFolder(folder)
        self.device = torch.device(device) if device is not None else best_device()
        self.progress = progress or (lambda line: None)
        self.cells = make_cells(config)
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


_SEED_STRIDE = 1000

Report = Callable[[str], None]


class Worker:
    """Computes the outcomes of cells, which depend on their names, the configuration and the data alone.

    Args:
        config: The configuration of the study.
        data: Its data.
        folder: Its folder, for generators and the classifier that looks at their images.
        device: Where to compute.
        real_images: Whether pictures of real images may be kept in the folder.
        engine: How updates of generators are run.
    """

    def __init__(
        self,
        config: StudyConfig,
        data: Prepared,
        folder: StudyFolder,
        *,
        device: torch.device,
        real_images: bool,
        engine: EngineName = "auto",
    ) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.device, self.real_images, self.engine = device, real_images, engine
        controls = [cell for cell in make_cells(config) if cell.kind == "classifier" and cell.entry is None]
        self.examiners = {cell.percent: cell.name for cell in reversed(controls)}
        self._extractor: Extractor | CrossFit | None = None
        self._reduced: dict[float, ArrayDataset] = {}
        self._pool: tuple[str, Pool] | None = None

    def train(self, cell: Cell, *, deadline: float = math.inf, report: Report | None = None) -> dict[str, Any] | None:
        """Train a generator; return None if the deadline came first, see `train_generator`."""
        return self.prepare(cell, deadline=deadline, report=report).run()

    def prepare(self, cell: Cell, *, deadline: float = math.inf, report: Report | None = None) -> GeneratorTraining:
        """Return the training of a generator before it is run."""
        entry, seed = _of_generator(cell)
        recipe = self.config.recipes[entry]
        return GeneratorTraining(
            recipe,
            self.real(cell.percent),
            self.folder.gan(cell),
            criterion=None if recipe.keep == "last" else self._class_kid(cell.percent),
            seed=seed,
            precision=self.config.precision,
            engine=self.engine,
            device=self.device,
            deadline=deadline,
            report=report,
        )

    def classify(self, cell: Cell) -> tuple[dict[str, Any], Tensor]:
        """Train a classifier on its arm and test it; return the outcome and the test probabilities."""
        arm, real = ARMS[str(cell.arm)], self.real(cell.percent)
        synthetic = None
        if arm.needs_synthetic:
            synthetic = self._synthetic(cell).first(round(arm.synthetic_multiple * len(real)))
        number = int(cell.classifier_seed or 0)
        # Classifiers of different generators share no seed: what a seed does to all of them would pass for no chance.
        seed = number if cell.seed is None else (cell.seed + 1) * _SEED_STRIDE + number
        classifier = run_arm(
            arm,
            real,
            self.data.validation,
            synthetic,
            steps=self.config.classifier_steps,
            epochs=self.config.classifier_epochs,
            batch_size=self.config.classifier_batch_size,
            learning_rate=self.config.learning_rate,
            precision=self.config.precision,
            device=self.device,
            seed=seed,
        )
        test = self.data.test
        self._count_test_use(cell, str(cell.arm))
        p = classifier.predict_proba(test.images)
        report = classification_report(
            p,
            test.labels,
            groups=self.data.test_groups,
            class_names=test.class_names,
            threshold=classifier.threshold,
            resamples=self.config.resamples,
            level=self.config.level,
        ).as_dict()
        if cell.name == self.examiners.get(cell.percent):
            classifier.save(self.folder.classifier(cell.name))
        recall = {f"recall/{name}": estimate for name, estimate in report["recall"].items()}
        return {
            "classes": test.num_classes,
            "train_counts": classifier.settings["train"]["class_counts"],
            "real_counts": list(real.class_counts),
            "confusion": report["confusion"],
            "metrics": {name: report[name]["value"] for name in PRIMARY_METRICS}
            | {"recall": [estimate["value"] for estimate in recall.values()]},
            "interval": {name: report[name] for name in PRIMARY_METRICS} | recall,
            "at_threshold": report["at_threshold"],
            "classifier": classifier.settings,
            "history": list(classifier.history),
        }, p

    def judge(self, cell: Cell) -> dict[str, Any]:
        """Judge as many images of a generator as there are real training images, class by class."""
        _, seed = _of_generator(cell)
        train = self.real(cell.percent)
        y = torch.arange(train.num_classes).repeat_interleave(torch.tensor(train.class_counts))
        # Not the images that classifiers are trained on: of these a study has as many as its largest arm asks for.
        generated = self._make_pool(cell, y, seed=_SEED_STRIDE + seed).first(len(y))
        self._count_test_use(cell, "fidelity")
        judged = evaluate(
            generated,
            train,
            test=self.data.test,
            held_out=self.data.validation,
            extractor=self.extractor,
            neighbors=self.folder.gan(cell) / "neighbors.png" if self.real_images else None,
        )
        recognized = None
        if cell.percent in self.examiners:
            # GAN-test (Shmelkov et al. 2018, arXiv:1807.09499): does a classifier of real images recognize the classes?
            report = self._examiner(cell.percent).evaluate(
                generated, resamples=self.config.resamples, level=self.config.level
            )
            recognized = {"classifier": self.examiners[cell.percent], **report.as_dict()}
        return {"images": len(generated), **to_json(judged), "gan_test": recognized}

    @property
    def extractor(self) -> Extractor | CrossFit:
        """The network of the features that images are judged in; that of the domain is trained when first needed.

        Raises:
            ValueError: If the study judges no images.
            FileNotFoundError: If weights are not at hand.
        """
        if self.config.extractor is None:
            raise ValueError("this study judges no images: its configuration has extractor=None.")
        if self._extractor is None:
            train = self.real(self.config.full_percent)
            precision = self.config.precision
            self._extractor = make_extractor(self.config.extractor, train, precision=precision, device=self.device)
        return self._extractor

    def real(self, percent: float) -> ArrayDataset:
        """Return the real training images at a percentage of the reduced class."""
        train, reduced = self.data.train, self.config.reduced_class
        if percent == 100 or reduced is None:
            return train
        if percent not in self._reduced:
            self._reduced[percent] = keep_patients(train, train.class_names.index(reduced), percent)
        return self._reduced[percent]

    def save_real(self, path: Path) -> None:
        """Save the first real training images of each class."""
        train = self.data.train
        shown = min(SHOWN, *train.class_counts)
        chosen = [(train.labels == label).nonzero().flatten()[:shown] for label in class_grid(train.num_classes, 1)]
        save_sheet(train.images[torch.cat(chosen)], path, columns=shown)

    def _synthetic(self, cell: Cell) -> Pool:
        """Return the images that all arms of a generator share; those of the last one are kept in memory."""
        name = self.folder.gan(cell).name
        if self._pool is None or self._pool[0] != name:
            real = self.real(cell.percent)
            most = max(ARMS[arm].synthetic_multiple for arm in self.config.arms)
            y = synthetic_labels(real.class_counts, round(most * len(real)))
            self._pool = (name, self._make_pool(cell, y, seed=_of_generator(cell)[1]))
        return self._pool[1]

    def _make_pool(self, cell: Cell, y: Tensor, *, seed: int) -> Pool:
        return Pool(
            load_generator(self.folder.gan(cell), device=self.device),
            y,
            seed=seed,
            class_names=self.data.train.class_names,
            source=f"images of {cell.entry}, seed {cell.seed}",
        )

    def _examiner(self, percent: float) -> Classifier:
        """Return the first classifier of real images, which looks at generated ones."""
        return Classifier.load(self.folder.classifier(self.examiners[percent]), device=self.device)

    def _class_kid(self, percent: float) -> Criterion:
        name = f"ResNet-18 of {self.examiners[percent]}"
        extractor = classifier_extractor(self._examiner(percent), name=name, device=self.device)
        return class_kid(self.data.validation, extractor)

    def _count_test_use(self, cell: Cell, what: str) -> None:
        key = what if cell.entry is None else f"{cell.entry}/{what}"
        self.folder.count_test_use(
            key + ("" if cell.percent == self.config.full_percent else f"@{cell.percent:g}%"), cell
        )


def _of_generator(cell: Cell) -> tuple[str, int]:
    if cell.entry is None or cell.seed is None:
        raise ValueError(f"{cell.name} has no generator.")
    return cell.entry, cell.seed
