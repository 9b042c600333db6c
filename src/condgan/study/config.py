"""The configuration of a study."""

from __future__ import annotations

import re
from dataclasses import dataclass

from condgan.classifier.network import Precision
from condgan.classifier.training import check_settings
from condgan.files import check_count, check_names
from condgan.metrics.evaluation import EXTRACTOR_NAMES, ExtractorName
from condgan.runs import RecipeConfig
from condgan.stats import OVERALL_METRICS
from condgan.study.arms import ARMS, CONTROLS
from condgan.types import ImageShape

SEED_STRIDE = 1000
"""Distance of the seeds that belong to one generator from those of the next, and the most seeds of a study."""
_SEEDS_END = 2**32 // SEED_STRIDE - 2 * SEED_STRIDE  # what is made of them has 32 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """Everything that the results of a study depend on, besides the data and the machine.

    Args:
        image_shape: Channels, height and width of all images.
        recipes: How generators are trained, by a name of letters, digits and underscores. One recipe on two kinds of
            networks takes two entries.
        seeds: Number of generator seeds of each recipe.
        classifier_seeds: Number of classifiers for each generator and arm.
        first_seed: The first seed of generators and classifiers; the others count up from it.
        arms: Names of `condgan.study.arms.ARMS`.
        percents: Percentages of the patients of `reduced_class` that are kept for training, generators included. The
            largest is the main study; the others make the imbalance sweep.
        reduced_class: Name of the class that the sweep makes rare.
        classifier_steps: Optimizer steps of every classifier, whatever its training set.
        classifier_epochs: Evaluations on the validation set.
        classifier_batch_size: Images per step of a classifier.
        learning_rate: Peak learning rate of the classifiers.
        precision: Precision of the passes through all networks.
        extractor: Network of the features that images are evaluated in: `"in_domain"` (a ResNet-18 trained on the real
            training images, cross-fitted by patient), `"inception"`, `"dinov2"` or `"clip"`; None evaluates no images.
        primary_metric: The metric that answers the main question.
        level: Nominal coverage of intervals.
        resamples: Bootstrap resamples of the interval of a single classifier.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or settings contradict each other.

    Examples:
        >>> from condgan.study.cells import make_cells
        >>> config = StudyConfig(
        ...     image_shape=(1, 64, 64),
        ...     recipes={"acgan": RecipeConfig(recipe="acgan", steps=1000)},
        ...     arms=("real", "synthetic_1x"),
        ...     seeds=1,
        ...     classifier_seeds=1,
        ... )
        >>> [cell.name for cell in make_cells(config)][:3]
        ['classifier-real-c0-p100', 'gan-acgan-s0-p100', 'classifier-acgan-s0-synthetic_1x-c0-p100']
    """

    image_shape: ImageShape
    recipes: dict[str, RecipeConfig]
    arms: tuple[str, ...] = (
        "real",
        "real_augmented",
        "real_weighted",
        "real_augmented_weighted",
        "real_oversampled",
        "synthetic_1x",
        "real_plus_synthetic_1to1",
        "pretrained",
    )
    seeds: int = 3
    classifier_seeds: int = 3
    first_seed: int = 0
    percents: tuple[float, ...] = (100.0,)
    reduced_class: str | None = None
    classifier_steps: int = 1000
    classifier_epochs: int = 5
    classifier_batch_size: int = 64
    learning_rate: float = 1e-3
    precision: Precision = "bf16"
    extractor: ExtractorName | None = "in_domain"
    primary_metric: str = "balanced_accuracy"
    level: float = 0.95
    resamples: int = 2000

    def __post_init__(self) -> None:
        check_names("arms", self.arms, ARMS)
        check_names("primary_metric", [self.primary_metric], OVERALL_METRICS)
        check_names("extractor", [] if self.extractor is None else [self.extractor], EXTRACTOR_NAMES)
        self._check_numbers()
        wrong = [name for name in self.recipes if not re.fullmatch(r"\w+", name)]
        if wrong:
            raise ValueError(
                f"names of recipes must be letters, digits and underscores, got {', '.join(wrong)}. They are parts of "
                "file names."
            )
        needing = [name for name in self.arms if ARMS[name].needs_synthetic]
        if not self.arms or (needing and not self.recipes):
            raise ValueError(
                f"a study needs at least one arm, and a recipe for arms with generated images, got the arms "
                f"{list(self.arms)} and no recipe. Name some."
            )
        choosing = [name for name, recipe in self.recipes.items() if recipe.keep != "last"]
        if choosing and not self.controls:
            raise ValueError(
                f"keep={self.recipes[choosing[0]].keep!r} of {choosing[0]} needs an arm without generated images, "
                f"whose first classifier chooses the step, got {list(self.arms)}. Add 'real', or keep the last step."
            )

    def _check_numbers(self) -> None:
        for name in ("seeds", "classifier_seeds", "classifier_steps", "resamples"):
            check_count(name, getattr(self, name))
        for name in ("seeds", "classifier_seeds"):
            if getattr(self, name) > SEED_STRIDE:
                raise ValueError(f"{name} must be at most {SEED_STRIDE}, got {getattr(self, name)}.")
        if not 0 <= self.first_seed < _SEEDS_END:
            raise ValueError(f"first_seed must lie in [0, {_SEEDS_END}), got {self.first_seed}.")
        if not 1 <= self.classifier_epochs <= self.classifier_steps:
            raise ValueError(
                f"classifier_epochs must lie between 1 and classifier_steps ({self.classifier_steps}), got "
                f"{self.classifier_epochs}."
            )
        if self.classifier_batch_size < 2:
            raise ValueError(f"classifier_batch_size must be at least 2, got {self.classifier_batch_size}.")
        check_settings(
            epochs=self.classifier_epochs,
            steps=self.classifier_steps,
            batch_size=self.classifier_batch_size,
            learning_rate=self.learning_rate,
            precision=self.precision,
            class_weights=None,
        )
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {self.level}. Give a coverage such as 0.95.")
        self._check_percents()

    def _check_percents(self) -> None:
        if not self.percents or not all(0 < p <= 100 for p in self.percents):
            raise ValueError(f"percents must lie in (0, 100], got {list(self.percents)}. For a tenth pass 10.")
        if any(p < 100 for p in self.percents) and self.reduced_class is None:
            raise ValueError(
                f"percents {list(self.percents)} need reduced_class, the name of the class to make rare, got None."
            )

    @property
    def full_percent(self) -> float:
        """The percentage of the main study."""
        return max(self.percents)

    @property
    def controls(self) -> tuple[str, ...]:
        """The arms without generated images, in order."""
        return tuple(name for name in self.arms if name in CONTROLS)

    @property
    def synthetic_arms(self) -> tuple[str, ...]:
        """The arms with generated images, in order."""
        return tuple(name for name in self.arms if name not in CONTROLS)
