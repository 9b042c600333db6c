"""The results of a study as typed records: everything in `results.json`, from outcomes of cells to verdicts.

`condgan.files.to_json` writes them, `condgan.files.from_json` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from condgan.files import as_path, from_json, read_record, to_json, write_record
from condgan.metrics.diversity import DiversityReport
from condgan.metrics.fidelity_report import FidelityReport
from condgan.metrics.memorization import MemorizationReport, MemorizationVerdict
from condgan.runs import KeptStep, TrainingImages
from condgan.stats import ClassificationReport, Interval, SeedDifference, SeedEstimate
from condgan.study.arms import CONTROLS
from condgan.study.cells import Kind
from condgan.study.config import StudyConfig
from condgan.study.provenance import Provenance
from condgan.types import ImageShape

SCHEMA = 2
WHAT = "What a classifier learns from generated images"


# Data


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDescription:
    """One of the three sets of images, after removal of repeated images.

    Args:
        counts: Number of images of each class, in label order.
        patients: Number of patients; None where they are unknown.
        fingerprint: Digest of images and labels before removal.
    """

    counts: tuple[int, ...]
    patients: int | None
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDescription:
    """The data of a study.

    Args:
        source: Where the training images come from.
        class_names: Names of the classes, in label order.
        image_shape: Channels, height and width.
        train: Training images.
        validation: Validation images.
        test: Test images.
        duplicates_removed: Number of training images that were removed because they repeat another one.
        repeats_of_other_sets_removed: Number of training and validation images that were removed because they repeat
            one of a later set.
        attribution: Credit that the licence of the images asks for.
        notice: Warning about the data, for the top of the report.
        notes: Further remarks on the data.
    """

    source: str
    class_names: tuple[str, ...]
    image_shape: ImageShape
    train: PartDescription
    validation: PartDescription
    test: PartDescription
    duplicates_removed: int
    repeats_of_other_sets_removed: int
    attribution: str | None = None
    notice: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, PartDescription]:
        """The three sets by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)


# Outcomes of cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What the outcomes of all cells have in common.

    Args:
        name: Name of the cell.
        percent: Percentage of the patients of the reduced class that was kept for training.
        seconds: Wall-clock time.
        origin: Device, commit and versions.
    """

    name: str
    percent: float
    seconds: float
    origin: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorOutcome(Finished):
    """A trained generator.

    Args:
        recipe: Name of its recipe in the study's configuration.
        seed: Seed of the generator.
        steps: Generator updates.
        images_seen: Real images that the critic, or in pretraining the generator, has seen, with repetitions.
        kept: The step whose generator was kept.
        settings: Networks, terms and options of the trainer.
        generator_parameters: Number of parameters of the generator.
        critic_parameters: Number of parameters of the critic.
        last_metrics: Losses and other metrics of the last step that was logged.
        train: The training images.
    """

    kind: Literal["gan"] = "gan"
    recipe: str
    seed: int
    steps: int
    images_seen: int
    kept: KeptStep
    settings: dict[str, object]
    generator_parameters: int
    critic_parameters: int
    last_metrics: dict[str, float]
    train: TrainingImages


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """How well a classifier of real images recognizes the classes of generated ones (GAN-test).

    Args:
        classifier: Name of the cell of the classifier.
        report: Its scores on the generated images.

    References:
        Shmelkov et al. 2018, arXiv:1807.09499.
    """

    classifier: str
    report: ClassificationReport


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOutcome(Finished):
    """The evaluation of the images of a generator, see `condgan.metrics.evaluate`.

    Args:
        recipe: Name of its recipe in the study's configuration.
        seed: Seed of the generator.
        images: Number of images.
        fidelity: How near they are to real images; None where it could not be measured.
        diversity: How much they differ; None likewise.
        memorization: Whether they repeat training images; None likewise.
        refusals: Why a report is None, by its name.
        gan_test: How well a classifier of real images recognizes them; None where the study has no such classifier.
    """

    kind: Literal["judge"] = "judge"
    recipe: str
    seed: int
    images: int
    fidelity: FidelityReport | None
    diversity: DiversityReport | None
    memorization: MemorizationReport | None
    refusals: dict[str, str]
    gan_test: Recognition | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierOutcome(Finished):
    """A classifier that was trained on an arm and tested.

    Args:
        arm: Name of the arm.
        recipe: Name of the recipe of the generated images; None for arms without any.
        seed: Seed of the generator; None likewise.
        classifier_seed: Seed of the classifier, as it is counted in the study's configuration.
        train_counts: Number of its training images of each class.
        real_counts: Number of real training images of each class at this percentage, used by the arm or not.
        report: Scores on the test images, with intervals over patients only.
        settings: Network, data and options of the training.
        history: One row per epoch, see `Classifier`.
    """

    kind: Literal["classifier"] = "classifier"
    arm: str
    recipe: str | None
    seed: int | None
    classifier_seed: int
    train_counts: tuple[int, ...]
    real_counts: tuple[int, ...]
    report: ClassificationReport
    settings: dict[str, object]
    history: tuple[dict[str, float], ...]

    @property
    def key(self) -> ArmKey:
        """The arm at its percentage."""
        return ArmKey(recipe=self.recipe, arm=self.arm, percent=self.percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedOutcome(Finished):
    """A cell that failed: a training diverged, memory was short, or the data did not suffice.

    Args:
        of: Kind of the cell.
        error: What happened.
    """

    kind: Literal["failed"] = "failed"
    of: Kind
    error: str


Outcome = GeneratorOutcome | JudgeOutcome | ClassifierOutcome | FailedOutcome


# Scores of arms and their comparisons


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmKey:
    """An arm at a percentage.

    Args:
        recipe: Name of the recipe of its generated images in the study's configuration; None without any.
        arm: Name of the arm.
        percent: Percentage of the patients of the reduced class.
    """

    recipe: str | None
    arm: str
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The score of an arm by one metric.

    Args:
        arm: The arm.
        metric: Name of the metric, see `condgan.stats`.
        estimate: The mean over all its classifiers, with an interval over seeds and patients.
        images: Number of test images that the metric depends on.
        relative_usefulness: Share of what real images teach that generated ones teach too, see `relative_usefulness`;
            None without generated images, without real ones to compare with, or without a chance level.
    """

    arm: ArmKey
    metric: str
    estimate: SeedEstimate
    images: int
    relative_usefulness: float | None = None


class Family(Enum):
    """Comparisons that are corrected together, for each metric and percentage.

    - `CONTROL`: every arm with generated images against the best of the controls, by the same metric.
    - `RARE`: the recall of the rarest class, of every such arm against real images alone (the best control where
      these were not run).
    - `RECIPES`: the recipes with each other, on the first arm of generated images alone.
    """

    CONTROL = "control"
    RARE = "rare"
    RECIPES = "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The difference of two arms, a minus b.

    Args:
        family: The comparisons that it is corrected with.
        a: One arm.
        b: The other.
        metric: Name of the metric.
        level: Nominal coverage of the intervals.
        difference: The difference, with its own interval and p value.
        simultaneous: Interval that covers all differences of the family together (Bonferroni); None without interval.
        p_holm: The p value corrected for the family (Holm); None without p value.
        primary: Whether it answers the main question.
    """

    family: Family
    a: ArmKey
    b: ArmKey
    metric: str
    level: float
    difference: SeedDifference
    simultaneous: Interval | None
    p_holm: float | None
    primary: bool


# Verdicts


class Question(Enum):
    """The questions of a study."""

    IMAGES_HELP = "images_help"  # do generated images help, by the primary metric?
    TEACH_ALONE = "teach_alone"  # does a classifier learn the classes from the images of a recipe alone?
    RECALL_RISES = "recall_rises"  # do the images of a recipe, or at a percentage of any, raise the recall of a class?
    BETTER_RECIPE = "better_recipe"  # the images of which of two recipes teach more, alone?
    COPIES = "copies"  # do the images of a recipe repeat training images or reveal training patients?
    COLLAPSED = "collapsed"  # has a recipe collapsed onto few images of a class?
    ALL_TRAINED = "all_trained"  # did every training end well?
    COMPLETE = "complete"  # is the study finished?


class Answer(Enum):
    """An answer; `FIRST` and `SECOND` name one of two recipes, `NO_SIGN` is weaker than `NO`."""

    YES = "yes"
    NO = "no"
    NO_SIGN = "no_sign"
    CANNOT_TELL = "cannot_tell"
    FIRST = "first"
    SECOND = "second"


class Reason(Enum):
    """Why an answer is qualified or open."""

    FEW_SEEDS = "few_seeds"  # fewer than three generators, or classifiers of a control
    WITHIN_CHANCE = "within_chance"  # not distinguishable from chance
    BELOW_GUESSING = "below_guessing"
    NOT_MEASURED = "not_measured"
    TOO_FEW_IMAGES = "too_few_images"
    COPIES = "copies"  # generated images repeat training images
    PATIENTS_RECOGNIZED = "patients_recognized"


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferencesEvidence:
    """A family of comparisons.

    Args:
        best: The comparison most in favor of generated images, or the only one between two recipes.
        compared: Number of comparisons.
        controls: The controls that were run; the best of them counts. Empty for other families.
    """

    best: Comparison
    compared: int
    controls: tuple[str, ...] = ()

    @property
    def controls_missing(self) -> tuple[str, ...]:
        """The controls that were not run, for a family that is compared with the best of them."""
        return tuple(arm for arm in CONTROLS if arm not in self.controls) if self.controls else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AloneEvidence:
    """The score of generated images alone.

    Args:
        score: Their score.
        guessing: The score of guessing.
        real: The score of real images alone, if they were run.
    """

    score: Summary
    guessing: float
    real: Summary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCopies:
    """Whether the images of one class of one generator are copies."""

    seed: int
    class_name: str
    verdict: MemorizationVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiesEvidence:
    """Findings about copies; the most serious one counts.

    Args:
        copies: Findings, those that the answer rests on first.
        not_measured: Why findings are missing.
    """

    copies: tuple[ClassCopies, ...]
    not_measured: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCollapse:
    """Whether one class of one generator has collapsed, and the numbers that say so."""

    seed: int
    class_name: str
    collapsed: bool
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapseEvidence:
    """Findings about collapse.

    Args:
        classes: Findings, collapsed classes first.
        not_measured: Why findings are missing.
    """

    classes: tuple[ClassCollapse, ...]
    not_measured: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresEvidence:
    """The cells that failed, which no score includes."""

    failed: tuple[FailedOutcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEvidence:
    """How many cells are finished."""

    finished: int
    planned: int


Evidence = DifferencesEvidence | AloneEvidence | CopiesEvidence | CollapseEvidence | FailuresEvidence | ProgressEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to a question, by a rule of `condgan.study.verdicts`.

    Args:
        question: What is asked.
        answer: The answer.
        evidence: What it rests on.
        reason: Why the answer is qualified or open.
        recipes: The recipes in question: one, two for `BETTER_RECIPE`, none for a question about all.
        class_name: The class in question.
        metric: The metric that decides.
        percent: Percentage of the patients of the reduced class.
    """

    question: Question
    answer: Answer
    evidence: Evidence
    reason: Reason | None = None
    recipes: tuple[str, ...] = ()
    class_name: str | None = None
    metric: str | None = None
    percent: float = 100.0


# All of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All results of a study so far.

    Args:
        config: The configuration.
        data: The data.
        cells_planned: Number of all cells of the study.
        cells: Outcomes of the finished cells, in the order of the plan.
        summaries: Scores of the arms.
        comparisons: Differences between them.
        verdicts: Answers, the most important first.
        test_evaluations: Number of uses of the test set, by what was tested.
        commit: Commits of the sources.
        device: Devices.
        versions: Versions of packages, by name.
        command: The command that repeats the study.
        what: Title of the study.
        schema: Version of this record.
    """

    schema: int = SCHEMA
    what: str = WHAT
    command: str | None = None
    config: StudyConfig
    data: DataDescription
    commit: str | None
    device: str | None
    versions: dict[str, str]
    cells_planned: int
    cells: tuple[Outcome, ...]
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[Verdict, ...]
    test_evaluations: dict[str, int]

    @property
    def generators(self) -> tuple[GeneratorOutcome, ...]:
        """The trained generators."""
        return tuple(cell for cell in self.cells if isinstance(cell, GeneratorOutcome))

    @property
    def judged(self) -> tuple[JudgeOutcome, ...]:
        """The evaluations of the images of generators."""
        return tuple(cell for cell in self.cells if isinstance(cell, JudgeOutcome))

    @property
    def classifiers(self) -> tuple[ClassifierOutcome, ...]:
        """The tested classifiers."""
        return tuple(cell for cell in self.cells if isinstance(cell, ClassifierOutcome))

    @property
    def failed(self) -> tuple[FailedOutcome, ...]:
        """The cells that failed."""
        return tuple(cell for cell in self.cells if isinstance(cell, FailedOutcome))

    @property
    def rare_class(self) -> str:
        """The class whose recall is compared."""
        return rare_class(self.config, self.data)

    def by_arm(self, percent: float | None = None) -> dict[ArmKey, dict[str, Summary]]:
        """Return the summaries of each arm by metric, by default those of the main study."""
        percent = self.config.full_percent if percent is None else percent
        found: dict[ArmKey, dict[str, Summary]] = {}
        for summary in self.summaries:
            if summary.arm.percent == percent:
                found.setdefault(summary.arm, {})[summary.metric] = summary
        return found

    def copied(self, recipe: str, seed: int) -> tuple[str, ...] | None:
        """Return the classes of a generator whose images are copies, or None where this was not measured."""
        reports = [c.memorization for c in self.judged if (c.recipe, c.seed) == (recipe, seed) and c.memorization]
        if not reports:
            return None
        return tuple(
            name
            for report in reports
            for name, found in report.per_class.items()
            if found.verdict is MemorizationVerdict.COPIES
        )

    def write(self, path: str | Path) -> None:
        """Write a `results.json`, completely or not at all."""
        write_record(as_path(path), to_json(self))

    @classmethod
    def read(cls, path: str | Path) -> Results:
        """Read a `results.json`.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If it has another schema, or a key or value is wrong; the message says which.
        """
        content = read_record(path)
        check_schema(content, path)
        return from_json(cls, content)


def check_schema(content: Mapping[str, Any], path: str | Path) -> None:
    """Check that the content of a file has the schema of this version.

    Raises:
        ValueError: If it has not.
    """
    found = content.get("schema")
    if found != SCHEMA:
        raise ValueError(
            f"{str(path)!r} must have schema {SCHEMA}, got {found!r}: it was written by another version. Run the study "
            "again in a new folder."
        )


def read_outcome(content: object) -> Outcome:
    """Return the outcome that `to_json` turned into plain values.

    Raises:
        ValueError: If a key or value is wrong; the message says which.
    """
    return from_json(_Cell, {"outcome": content}).outcome


@dataclass(frozen=True, slots=True)
class _Cell:
    outcome: Outcome


def rare_class(config: StudyConfig, data: DataDescription) -> str:
    """Return the class whose recall is compared: the one made rare, or else the rarest."""
    if config.reduced_class is not None:
        return config.reduced_class
    counts = data.train.counts
    return data.class_names[min(range(len(counts)), key=lambda label: counts[label])]


def recalled_class(metric: str) -> str | None:
    """Return the class whose recall a metric is; None for other metrics.

    Examples:
        >>> recalled_class("recall/normal"), recalled_class("auroc")
        ('normal', None)
    """
    head, _, name = metric.partition("/")
    return name if head == "recall" and name else None


def guessing(metric: str, num_classes: int) -> float | None:
    """Return the score of guessing, or None where it depends on the guesses."""
    return {"balanced_accuracy": 1 / num_classes, "auroc": 0.5}.get(metric)
