"""Runs a study cell by cell: finished cells are never run again, interrupted ones continue."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor

from condgan.classifier.training import Classifier
from condgan.data.dataset import ArrayDataset
from condgan.devices import best_device, plain_defaults
from condgan.images import save_sheet
from condgan.metrics.crossfit import FOLDS
from condgan.metrics.evaluation import PRETRAINED, evaluate, make_extractor
from condgan.metrics.extractors import CrossFit, Extractor
from condgan.runs import (
    SHOWN,
    Criterion,
    GeneratorTraining,
    Pool,
    RunDescription,
    classifier_kid,
    in_words,
    load_generator,
    locked,
    make_trainer,
)
from condgan.sampling import class_grid
from condgan.stats import classification_report
from condgan.study.arms import ARMS, run_arm, synthetic_labels
from condgan.study.cells import Cell, choose_cells, make_cells
from condgan.study.config import SEED_STRIDE, StudyConfig
from condgan.study.data import keep_patients, prepare, too_few_to_judge
from condgan.study.folder import StudyDescription, StudyFolder
from condgan.study.provenance import provenance
from condgan.study.results import (
    ClassifierOutcome,
    FailedOutcome,
    GeneratorOutcome,
    JudgeOutcome,
    Outcome,
    Recognition,
    Results,
)
from condgan.study.summaries import summarize
from condgan.study.verdicts import LEAST_SEEDS
from condgan.training.engines import EngineName


class Study:
    """A study in a folder: trains generators, evaluates their images, trains and tests classifiers on them.

    The constructor checks the data, see `prepare`, and creates the folder, or verifies that it holds the same study.

    Args:
        config: What to compute.
        train: Training images, with groups (patients) if they are known.
        validation: Images of other patients from the same source, to choose epochs and thresholds on.
        test: Images of other patients, to report on.
        folder: Folder of the study, see `StudyFolder`; a study in it is continued.
        device: Where to compute; by default CUDA, then MPS, then the CPU.
        engine: How updates of generators are run, see `Trainer`; the results are the same.
        real_images: Whether pictures of real images may be kept in the folder.
        progress: Called with a line of text for each cell, and about every 30 seconds within the training of one.
        command: The command that repeats the study, for the report.
        notice: Warning about the data, for the top of the report.
        notes: Further remarks on the data, for the report.

    Raises:
        ValueError: If the data do not fit, a patient is in two of the sets, or the folder holds another study.
        FileNotFoundError: If the weights of the extractor are missing.
    """

    @plain_defaults()
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
        self.cells = make_cells(config)
        self.real_images, self.engine = real_images, engine
        controls = [cell for cell in self.cells if cell.kind == "classifier" and cell.recipe is None]
        self.references = {cell.percent: cell.name for cell in reversed(controls)}
        self._extractor: Extractor | CrossFit | None = None
        self._reduced: dict[float, ArrayDataset] = {}
        self._pool: tuple[str, Pool] | None = None
        self._check_recipes()
        if config.extractor in PRETRAINED:
            self.prepare_extractor()  # now, so that missing weights do not end days of training
        description = StudyDescription(config=config, data=self.data.description, command=command)
        self.folder.begin(description, (self.data.test.labels, self.data.test_groups))
        if real_images:
            self._save_real(self.folder.path / "real.png")

    @plain_defaults()
    def run(
        self, cells: Sequence[str] = ("*",), *, time_limit: float | None = None, retry_failed: bool = False
    ) -> bool:
        """Run what is missing, in the order of the plan.

        A cell that fails, because a training diverges or memory is short, is recorded as failed; cells that need it are
        skipped, and the others run. Damaged outcomes are set aside, and their cells run again. Several processes can
        work in one folder: each takes a cell that no other one is running.

        Args:
            cells: Patterns of names, such as `"gan-acgan-*"`: several machines can share a study by different patterns
                and `merge` their folders. A finished cell is run again only if another one needs its network and the
                folder lacks it.
            time_limit: Seconds after which to stop. A generator in training is kept in a checkpoint. Any other cell
                but the first is started only if the mean time of its kind fits into the time that is left.
            retry_failed: Whether to run cells again that failed earlier.

        Returns:
            Whether nothing is left to run: all of these cells are finished, have failed, or need one that has failed.

        Raises:
            ValueError: If a pattern matches no cell, or a cell needs one that is neither finished nor among these.
        """
        for path in self.folder.set_damaged_aside():
            self.progress(f"a damaged outcome was set aside as {path}; its cell is run again")
        chosen = self._choose(cells)
        deadline = math.inf if time_limit is None else time.monotonic() + time_limit
        if retry_failed:
            self.folder.forget_failures(cell.name for cell in chosen)
        skipped: dict[str, str] = {}
        ran = waited = False
        while missing := self._to_run(chosen, skipped):
            with self._claimed(missing) as cell:
                left = deadline - time.monotonic()
                expected = self._expected_seconds(cell) if cell is not None and cell.kind != "gan" else 0.0
                if left <= 0 or (ran and expected is not None and expected > left):
                    self.progress(f"stopped by the time limit with {len(missing)} cells left")
                    return False
                if cell is None:
                    if not waited:
                        self.progress("waiting for cells that other processes are running")
                    waited = True
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                    continue
                began = time.perf_counter()
                line = f"[{len(chosen) - len(missing) + 1}/{len(chosen)}] {cell.name}"
                if not self._run(cell, deadline, line):
                    self.progress(f"{line} was stopped by the time limit and will continue from there")
                    return False
                if cell in self._missing(missing):  # it was finished, and its network could not be made again
                    skipped[cell.name] = cell.name
            ran = True
            rest = [other for other in missing if other is not cell]
            self.progress(f"{line}: {in_words(time.perf_counter() - began)}; {self._time_left(rest)}")
        return True

    def results(self) -> Results:
        """Return the results so far, and write them to `results.json` in the folder."""
        results = summarize(self.folder.path)
        results.write(self.folder.path / "results.json")
        return results

    def train(
        self, cell: Cell, *, deadline: float = math.inf, report: Callable[[str], None] | None = None
    ) -> GeneratorOutcome | None:
        """Train the generator of a cell; return None if the deadline came first, see `train_generator`."""
        run = self.prepare_training(cell, deadline=deadline, report=report).run()
        return None if run is None else self.outcome_of(cell, run)

    def prepare_training(
        self, cell: Cell, *, deadline: float = math.inf, report: Callable[[str], None] | None = None
    ) -> GeneratorTraining:
        """Return the training of a cell's generator, ready to run."""
        name, seed = _generator_of(cell)
        recipe = self.config.recipes[name]
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

    def outcome_of(self, cell: Cell, run: RunDescription) -> GeneratorOutcome:
        """Return the outcome of a cell from the description of its training."""
        recipe, seed = _generator_of(cell)
        return GeneratorOutcome(
            name=cell.name,
            percent=cell.percent,
            seconds=run.seconds,
            origin=provenance(self.device),
            recipe=recipe,
            seed=seed,
            steps=run.steps,
            images_seen=run.images_seen,
            kept=run.kept,
            settings=run.settings,
            generator_parameters=run.generator_parameters,
            critic_parameters=run.critic_parameters,
            last_metrics=run.last_metrics,
            train=run.train,
        )

    def judge(self, cell: Cell) -> JudgeOutcome:
        """Evaluate as many images of a generator as there are real training images of each class."""
        began = time.perf_counter()
        recipe, seed = _generator_of(cell)
        train = self.real(cell.percent)
        y = torch.arange(train.num_classes).repeat_interleave(torch.tensor(train.class_counts))
        # another seed than that of the images that classifiers are trained on
        generated = self.images_of(cell, y, seed=SEED_STRIDE + seed).first(len(y))
        self._count_test_use(cell, "fidelity")
        found = evaluate(
            generated,
            train,
            test=self.data.test,
            held_out=self.data.validation,
            extractor=self.prepare_extractor(),
            neighbors=self.folder.gan(cell) / "neighbors.png" if self.real_images else None,
        )
        recognition = None
        if cell.percent in self.references:
            report = self._reference(cell.percent).evaluate(
                generated, resamples=self.config.resamples, level=self.config.level
            )
            recognition = Recognition(classifier=self.references[cell.percent], report=report)
        return JudgeOutcome(
            name=cell.name,
            percent=cell.percent,
            seconds=_since(began),
            origin=provenance(self.device),
            recipe=recipe,
            seed=seed,
            images=len(generated),
            fidelity=found.fidelity,
            diversity=found.diversity,
            memorization=found.memorization,
            refusals=found.refusals,
            gan_test=recognition,
        )

    def classify(self, cell: Cell) -> tuple[ClassifierOutcome, Tensor]:
        """Train a classifier on its arm and test it; return the outcome and the test probabilities.

        Shape:
            - Returns: probabilities of the shape `(N, K)`, float64.
        """
        began = time.perf_counter()
        if cell.arm is None or cell.classifier_seed is None:
            raise ValueError(f"{cell.name} is not a classifier.")
        arm, real, number = ARMS[cell.arm], self.real(cell.percent), cell.classifier_seed
        synthetic = None
        if arm.needs_synthetic:
            synthetic = self._synthetic(cell).first(round(arm.synthetic_multiple * len(real)))
        # classifiers of different generators share no seed, whose effect on all of them would not count as variance
        seed = number if cell.seed is None else (cell.seed + 1) * SEED_STRIDE + number
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
        self._count_test_use(cell, arm.name)
        p = classifier.predict_proba(test.images)
        report = classification_report(
            p,
            test.labels,
            groups=self.data.test_groups,
            class_names=test.class_names,
            threshold=classifier.threshold,
            resamples=self.config.resamples,
            level=self.config.level,
        )
        if cell.name == self.references.get(cell.percent):
            classifier.save(self.folder.classifier(cell.name))
        return ClassifierOutcome(
            name=cell.name,
            percent=cell.percent,
            seconds=_since(began),
            origin=provenance(self.device),
            arm=arm.name,
            recipe=cell.recipe,
            seed=cell.seed,
            classifier_seed=number,
            train_counts=tuple(classifier.settings["train"]["class_counts"]),
            real_counts=real.class_counts,
            report=report,
            settings=classifier.settings,
            history=classifier.history,
        ), p

    def prepare_extractor(self) -> Extractor | CrossFit:
        """Return the network of the features that images are evaluated in; `"in_domain"` trains it in the first call.

        Raises:
            ValueError: If the study evaluates no images.
            FileNotFoundError: If weights are missing.
        """
        if self.config.extractor is None:
            raise ValueError("evaluating images needs an extractor, got a configuration with extractor=None.")
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

    def images_of(self, cell: Cell, y: Tensor, *, seed: int) -> Pool:
        """Return images of a cell's generator with these labels, made as they are needed.

        Shape:
            - `y`: `(N,)`, int64 in `[0, K)`.
        """
        return Pool(
            load_generator(self.folder.gan(cell), device=self.device),
            y,
            seed=seed,
            class_names=self.data.train.class_names,
            source=f"images of {cell.recipe}, seed {cell.seed}",
        )

    @property
    def cautions(self) -> tuple[str, ...]:
        """What cannot be answered with these data and this configuration, whatever the results."""
        config = self.config
        found = [
            f"comparisons need at least {LEAST_SEEDS} {kind} seeds, got {count}: their answers will be 'cannot tell'."
            for count, kind, arms in (
                (config.seeds, "generator", config.synthetic_arms),
                (config.classifier_seeds, "classifier", config.controls),
            )
            if arms and count < LEAST_SEEDS
        ]
        folds = 1 if config.extractor in PRETRAINED else FOLDS
        few = too_few_to_judge(training=self.data.train, folds=folds, test=self.data.test)
        if few and config.extractor is not None:
            found.append(f"fidelity needs more images of {few}.")
        return tuple(found)

    def _check_recipes(self) -> None:
        """Make what every cell begins with, so that a cell that must fail does so before anything is written."""
        for percent in self.config.percents:
            self.real(percent)
        for name, recipe in self.config.recipes.items():
            try:
                make_trainer(recipe, self.real(self.config.full_percent), device="cpu")
            except ValueError as error:
                raise ValueError(f"recipe {name!r} cannot be trained on these data: {error}") from error

    def _synthetic(self, cell: Cell) -> Pool:
        """Return the images that all arms of a generator share; those of the last generator stay in memory."""
        name = self.folder.gan(cell).name
        if self._pool is None or self._pool[0] != name:
            real = self.real(cell.percent)
            most = max(ARMS[arm].synthetic_multiple for arm in self.config.arms)
            y = synthetic_labels(real.class_counts, round(most * len(real)))
            self._pool = (name, self.images_of(cell, y, seed=_generator_of(cell)[1]))
        return self._pool[1]

    def _reference(self, percent: float) -> Classifier:
        """Return the first classifier of real images."""
        return Classifier.load(self.folder.classifier(self.references[percent]), device=self.device)

    def _class_kid(self, percent: float) -> Criterion:
        name = f"ResNet-18 of {self.references[percent]}"
        return classifier_kid(self._reference(percent), self.data.validation, name=name, device=self.device)

    def _save_real(self, path: Path) -> None:
        """Save the first real training images of each class."""
        train = self.data.train
        shown = min(SHOWN, *train.class_counts)
        chosen = [(train.labels == label).nonzero().flatten()[:shown] for label in class_grid(train.num_classes, 1)]
        save_sheet(train.images[torch.cat(chosen)], path, columns=shown)

    def _count_test_use(self, cell: Cell, what: str) -> None:
        key = what if cell.recipe is None else f"{cell.recipe}/{what}"
        self.folder.count_test_use(
            key + ("" if cell.percent == self.config.full_percent else f"@{cell.percent:g}%"), cell
        )

    def _run(self, cell: Cell, deadline: float, line: str) -> bool:
        """Compute and write the outcome of a cell; return False if the deadline came first."""
        began = time.perf_counter()
        outcome: Outcome | None
        probabilities: Tensor | None = None
        try:
            if cell.kind == "gan":
                outcome = self.train(cell, deadline=deadline, report=lambda text: self.progress(f"{line}: {text}"))
            elif cell.kind == "judge":
                outcome = self.judge(cell)
            else:
                outcome, probabilities = self.classify(cell)
        except _FAILURES as error:
            outcome = FailedOutcome(
                name=cell.name,
                percent=cell.percent,
                seconds=_since(began),
                origin=provenance(self.device),
                of=cell.kind,
                error=" ".join(str(error).split()) or type(error).__name__,
            )
            self.progress(f"{line} failed: {outcome.error}")
        if outcome is None:
            return False
        if not self.folder.is_finished(cell.name):  # otherwise only its network was missing
            self.folder.write(outcome, probabilities)
        if isinstance(outcome, GeneratorOutcome):
            shutil.rmtree(self.folder.gan(cell) / "checkpoints", ignore_errors=True)
        return True

    def _choose(self, patterns: Sequence[str]) -> list[Cell]:
        names = [cell.name for cell in self.cells]
        chosen = choose_cells(self.cells, patterns)
        there = {cell.name for cell in chosen} | {name for name in names if self.folder.is_finished(name)}
        for cell in chosen:
            absent = [name for name in cell.needs if name not in there]
            if absent and not self.folder.is_finished(cell.name):
                raise ValueError(
                    f"{cell.name} needs {absent[0]}, which is neither finished nor among the cells to run. Add it, or "
                    "merge the folder of the machine that runs it."
                )
        return chosen

    def _to_run(self, chosen: Sequence[Cell], skipped: dict[str, str]) -> list[Cell]:
        """Return the missing cells; those that need a failed one go into `skipped`, by name, with the failed one."""
        missing = self._missing(chosen)
        for cell in missing:
            failed = [skipped.get(name, name) for name in cell.needs if name in skipped or self._has_failed(name)]
            if failed and cell.name not in skipped:
                skipped[cell.name] = failed[0]
                self.progress(f"{cell.name} is skipped: {failed[0]} failed")
        return [cell for cell in missing if cell.name not in skipped]

    def _has_failed(self, name: str) -> bool:
        return self.folder.is_finished(name) and isinstance(self.folder.read(name), FailedOutcome)

    @contextmanager
    def _claimed(self, missing: Sequence[Cell]) -> Iterator[Cell | None]:
        """Lock the first cell that can be run now and that no other process is running; None if there is none."""
        absent = {cell.name for cell in missing}
        with ExitStack() as stack:
            for cell in missing:
                if not absent.isdisjoint(cell.needs):
                    continue
                try:
                    stack.enter_context(locked(self.folder.path / "cells", f"{cell.name}.lock"))
                except BlockingIOError:
                    continue
                if cell in self._missing(missing):  # no other process finished it in the meantime
                    yield cell
                    return
            yield None

    def _missing(self, chosen: Sequence[Cell]) -> list[Cell]:
        """Return the unfinished cells, and finished ones whose network is missing and needed by one of these.

        Results can be kept without networks; a network is then trained again from its seed.
        """
        found: list[Cell] = []
        needed: set[str] = set()
        for cell in reversed(chosen):  # a cell comes after those that it needs
            finished = self.folder.is_finished(cell.name)
            if not finished or (cell.name in needed and not self.folder.has_network(cell)):
                found.append(cell)
                needed |= set(cell.needs)
        return found[::-1]

    def _expected_seconds(self, cell: Cell) -> float | None:
        """Return the mean time of finished cells of this kind (generators: and recipe), or None without any."""
        alike = [
            other
            for other in self.cells
            if other.kind == cell.kind and (cell.kind != "gan" or other.recipe == cell.recipe)
        ]
        spent = [self.folder.read(other.name).seconds for other in alike if self.folder.is_finished(other.name)]
        return sum(spent) / len(spent) if spent else None

    def _time_left(self, cells: Sequence[Cell]) -> str:
        if not cells:
            return "done"
        expected = [self._expected_seconds(cell) for cell in cells]
        known = sum(seconds for seconds in expected if seconds is not None)
        return f"{'at least' if None in expected else 'about'} {in_words(known)} left"


def merge(folders: Sequence[str | Path], into: str | Path) -> Path:
    """Merge the cells of one study that several machines ran into one folder.

    Args:
        folders: Folders of the same configuration and data.
        into: Target: one of these folders, another folder of the study, or a new one.

    Raises:
        FileNotFoundError: If a folder holds no study.
        ValueError: If configurations or data differ, or a cell has different outcomes in two of them.
    """
    target = StudyFolder(into)
    for source in map(StudyFolder, folders):
        target.take(source)
    return target.path


_SECONDS_BETWEEN_LOOKS = 2.0
# what data, settings or the machine can cause: TrainingDivergedError and torch.OutOfMemoryError are RuntimeErrors
_FAILURES = (ValueError, ArithmeticError, MemoryError, RuntimeError)


def _generator_of(cell: Cell) -> tuple[str, int]:
    """Return recipe and seed of a cell's generator."""
    if cell.recipe is None or cell.seed is None:
        raise ValueError(f"{cell.name} has no generator.")
    return cell.recipe, cell.seed


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 2)
