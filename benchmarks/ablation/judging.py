"""How the images of a generator are judged: by what a ResNet-18 learns from them alone, and by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from condgan.classifier import Classifier, train_classifier
from condgan.data import ArrayDataset
from condgan.metrics import density_coverage, diversity_report, memorization_report
from condgan.metrics.crossfit import classifier_extractor
from condgan.stats import auroc

CLASSIFIER_STEPS = 300
CLASSIFIER_SEEDS = 2
LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """Scores, on real images, of one classifier that was trained on the images to be judged."""

    auroc: float
    balanced_accuracy: float
    recall: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was found of the images of one generator.

    Args:
        classifiers: Classifiers trained on these images alone, one per seed.
        recognized: By class, the share of the images whose class a classifier of real images recognizes.
        coverage: By class, the share of real validation images near which there is an image.
        collapsed: Classes that have collapsed, see `condgan.metrics.diversity_report`.
        memorization: Verdict on each class, see `condgan.metrics.memorization_report`.
    """

    classifiers: tuple[Taught, ...]
    recognized: dict[str, float]
    coverage: dict[str, float]
    collapsed: tuple[str, ...]
    memorization: dict[str, str]

    @property
    def auroc(self) -> float:
        """Mean AUROC of the classifiers."""
        return sum(taught.auroc for taught in self.classifiers) / len(self.classifiers)

    @property
    def balanced_accuracy(self) -> float:
        """Mean balanced accuracy of the classifiers."""
        return sum(taught.balanced_accuracy for taught in self.classifiers) / len(self.classifiers)


class Judge:
    """Judges images of two classes against real ones.

    Args:
        train: The real images that generators are trained on (all of them, also for generators of a part).
        validation: Real images of other patients: the test set of the classifiers.
        folder: Where the classifier of real images is kept.
    """

    def __init__(self, train: ArrayDataset, validation: ArrayDataset, folder: Path) -> None:
        self.train, self.validation = train, validation
        path = folder / f"real-{train.fingerprint[:12]}.safetensors"
        if not path.is_file():
            self.teach(train, steps=CLASSIFIER_STEPS, seed=0).save(path)
        self.real = Classifier.load(path)
        self.features = classifier_extractor(self.real, name="ResNet-18 trained on the real training images")

    def teach(self, images: ArrayDataset, *, steps: int, seed: int) -> Classifier:
        """Train a classifier on images. The last weights are kept: nothing is chosen on the validation images."""
        return train_classifier(
            images,
            self.validation,
            epochs=1,
            steps=steps,
            learning_rate=LEARNING_RATE,
            device="cpu",
            seed=seed,
        )

    def judge(
        self, images: ArrayDataset, trained_on: ArrayDataset, *, classifier_steps: int = CLASSIFIER_STEPS
    ) -> Judgement:
        """Judge images of a generator that was trained on `trained_on`."""
        names = images.class_names
        found = self.real.predict_proba(images.images).argmax(1)
        real, generated = self.features(self.validation.images), self.features(images.images)
        recognized, coverage = {}, {}
        for label, name in enumerate(names):
            of_class = images.labels == label
            recognized[name] = float((found[of_class] == label).double().mean())
            x = real[self.validation.labels == label]
            coverage[name] = density_coverage(generated[of_class][: len(x)], x).coverage.value
        memorization = memorization_report(images, trained_on, self.validation, None, seed=0)
        return Judgement(
            classifiers=tuple(
                self.score(self.teach(images, steps=classifier_steps, seed=seed)) for seed in range(CLASSIFIER_SEEDS)
            ),
            recognized=recognized,
            coverage=coverage,
            collapsed=diversity_report(images, trained_on, None, seed=0).collapsed,
            memorization={name: entry.verdict.value for name, entry in memorization.per_class.items()},
        )

    def score(self, classifier: Classifier) -> Taught:
        """Return the scores of a classifier on the validation images; the threshold is one half."""
        y = self.validation.labels
        p = classifier.predict_proba(self.validation.images)
        found = p.argmax(1)
        recall = {
            name: float((found[y == label] == label).double().mean())
            for label, name in enumerate(self.validation.class_names)
        }
        return Taught(
            auroc=float(auroc(p, y)),
            balanced_accuracy=sum(recall.values()) / len(recall),
            recall=recall,
        )
