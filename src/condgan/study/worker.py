"""The work of single cells: train a generator, judge its images, train and test a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgan.data.dataset import ArrayDataset
from condgan.metrics import classification_report
from condgan.metrics.features import CrossFit, Extractor
from condgan.sampling import class_grid
from condgan.study.arms import ARMS, run_arm, synthetic_labels
from condgan.study.classifier import Classifier
from condgan.study.extractor import classifier_extractor
from condgan.study.files import StudyFolder
from condgan.study.generators import SHOWN, GeneratorTraining, Pool, load_generator, save_sheet
from condgan.study.judge import judge_images, load_classifier, make_extractor, save_classifier
from condgan.study.plan import PRIMARY_METRICS, Cell, StudyConfig, plan
from condgan.study.preparation import Prepared
from condgan.study.selection import Criterion, class_kid
from condgan.study.usefulness import gan_test, keep_patients
from condgan.training.engines import EngineName

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
        controls = [cell for cell in plan(config) if cell.kind == "classifier" and cell.entry is None]
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
            save_classifier(classifier, self.folder.classifier(cell.name))
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
        judged = judge_images(
            generated,
            train,
            self.data.validation,
            self.data.test,
            self.extractor,
            neighbors=self.folder.gan(cell) / "neighbors.png" if self.real_images else None,
        )
        recognized = None
        if cell.percent in self.examiners:
            report = gan_test(
                self._examiner(cell.percent), generated, resamples=self.config.resamples, level=self.config.level
            )
            recognized = {"classifier": self.examiners[cell.percent], **report.as_dict()}
        return {"images": len(generated), **judged, "gan_test": recognized}

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
        name = self.examiners[percent]
        return load_classifier(self.folder.classifier(name), self.folder.read(name), device=self.device)

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
