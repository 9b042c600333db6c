"""What a study computes: its configuration, and the cells that it is cut into."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

from condgan.recipes import CONDITIONAL, RECIPES
from condgan.study.arms import ARMS, CONTROLS
from condgan.study.checks import check_settings
from condgan.study.network import Precision
from condgan.training import Trainer
from condgan.types import ImageShape

Kind = Literal["gan", "judge", "classifier"]
NETWORKS = ("recipe", "dcgan", "resnet")
KEPT = ("last", "best_kid")
EXTRACTOR_NAMES = ("in_domain", "inception", "dinov2", "clip")
_SEEDS = 1_000_000  # images are drawn with multiples of 2**32 of a seed, which must stay below 2**63
PRIMARY_METRICS = ("balanced_accuracy", "auroc", "accuracy", "macro_f1")

_OWN = {"data", "trainer_options", "generator", "critic", "networks", "base_channels", "augment", "auxiliary"}
_OWN |= {"precision", "engine", "device", "seed", "callbacks"}
_AUXILIARY_WEIGHTS = ("real_weight", "fake_weight", "generator_weight")

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipePlan:
    """How the generators of one entry of a study are trained.

    Args:
        recipe: Name of a conditional recipe.
        steps: Generator updates.
        batch_size: Images of a critic step.
        generator_batch_size: Images of a generator step; by default `batch_size`.
        networks: `"recipe"` for those of its paper, else `"dcgan"` or `"resnet"`: two recipes on the same networks
            differ in their losses alone.
        base_channels: Width of the networks; None for the default of the recipe or of the networks that it gets.
        augment: Policy of a `DiffAugment` in front of the critic, such as `"translation,cutout"`; None for the
            recipe's own, if it has any.
        auxiliary: Weights of the `AuxiliaryClassifierLoss` in place of the recipe's, such as
            `{"real_weight": 1.0, "fake_weight": 0.0, "generator_weight": 0.2}`; None for the recipe's.
        keep: Which step's generator is kept: `"last"`, or `"best_kid"`, the one of the smallest KID on the validation
            images, class by class, in the features of a classifier of real images (see
            `condgan.study.selection.class_kid`). The latter makes use of real images that are not trained on.
        looks: How often the generator is looked at for that, at even distances, the last step included.
        options: Further keywords of the recipe and of the `Trainer`, numbers and strings only, such as
            `{"ema_decay": 0.9}`.

    Raises:
        ValueError: If a name is unknown or a number is out of range.
    """

    recipe: str
    steps: int = 20_000
    batch_size: int = 64
    generator_batch_size: int | None = None
    networks: str = "recipe"
    base_channels: int | None = None
    augment: str | None = None
    auxiliary: dict[str, Any] | None = None
    keep: str = "last"
    looks: int = 10
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_names("recipe", [self.recipe], CONDITIONAL)
        check_names("networks", [self.networks], NETWORKS)
        check_names("auxiliary", self.auxiliary or {}, _AUXILIARY_WEIGHTS)
        check_names("keep", [self.keep], KEPT)
        check_names("options", self.options, _options_of(self.recipe))
        for name in ("steps", "batch_size", "base_channels", "looks"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """Everything that the results of a study depend on, beside the data and the machine.

    Args:
        image_shape: Channels, height and width of all images.
        recipes: Entries of the study: how generators are trained, by a name of letters, digits and underscores. One
            recipe on two networks makes two entries.
        seeds: Number of generator seeds of each entry.
        classifier_seeds: Number of classifiers for each generator and arm.
        first_seed: The first seed of generators and classifiers; the others count up from there.
        arms: Names of `condgan.study.arms.ARMS`.
        percents: How many percent of the patients of `reduced_class` are kept for training, generators included. The
            largest is the main study; the others make the imbalance sweep.
        reduced_class: Name of the class that the sweep makes rare.
        classifier_steps: Optimizer steps of every classifier, whatever its training set.
        classifier_epochs: Looks at the validation set.
        classifier_batch_size: Images of a classifier's step.
        learning_rate: Peak learning rate of the classifiers.
        precision: Arithmetic of the passes through all networks.
        extractor: Network of the features that images are judged in: `"in_domain"` (a ResNet-18 trained on the real
            training images, cross-fitted by patient), `"inception"`, `"dinov2"` or `"clip"`; None judges no images.
        primary_metric: The metric that the main question is answered by.
        level: Nominal coverage of intervals.
        resamples: Bootstrap resamples of the interval of a single classifier.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or parts do not fit each other.

    Examples:
        >>> config = StudyConfig(
        ...     image_shape=(1, 64, 64),
        ...     recipes={"acgan": RecipePlan(recipe="acgan", steps=1000)},
        ...     arms=("real", "synthetic_1x"),
        ...     seeds=1,
        ...     classifier_seeds=1,
        ... )
        >>> [cell.name for cell in plan(config)][:3]
        ['classifier-real-c0-p100', 'gan-acgan-s0-p100', 'classifier-acgan-s0-synthetic_1x-c0-p100']
        >>> StudyConfig.from_dict(config.as_dict()) == config
        True
    """

    image_shape: ImageShape
    recipes: dict[str, RecipePlan]
    arms: tuple[str, ...]
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
    extractor: str | None = "in_domain"
    primary_metric: str = "balanced_accuracy"
    level: float = 0.95
    resamples: int = 2000

    def __post_init__(self) -> None:
        check_names("arms", self.arms, ARMS)
        check_names("primary_metric", [self.primary_metric], PRIMARY_METRICS)
        check_names("extractor", [] if self.extractor is None else [self.extractor], EXTRACTOR_NAMES)
        for name in ("seeds", "classifier_seeds", "classifier_steps", "resamples"):
            _check_count(name, getattr(self, name))
        if not 0 <= self.first_seed < _SEEDS:
            raise ValueError(f"first_seed must be at least 0 and below {_SEEDS}, got {self.first_seed}.")
        check_settings(
            epochs=self.classifier_epochs,
            steps=self.classifier_steps,
            batch_size=self.classifier_batch_size,
            learning_rate=self.learning_rate,
            precision=self.precision,
            class_weights=None,
        )
        wrong = [name for name in self.recipes if not re.fullmatch(r"\w+", name)]
        if wrong:
            raise ValueError(
                f"names of recipes must be letters, digits and underscores, got {', '.join(wrong)}. They name files."
            )
        needing = [name for name in self.arms if ARMS[name].needs_synthetic]
        if not self.arms or (needing and not self.recipes):
            raise ValueError(
                f"a study needs at least one arm, and a recipe for arms with generated images, got the arms "
                f"{list(self.arms)} and no recipe. Name some."
            )
        choosing = [name for name, plan in self.recipes.items() if plan.keep != "last"]
        if choosing and not self.controls:
            raise ValueError(
                f"{choosing[0]} keeps {self.recipes[choosing[0]].keep!r} and needs an arm without generated images, "
                f"whose first classifier looks at them, got {list(self.arms)}. Add 'real', or keep the last step."
            )
        self._check_percents()
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {self.level}. Give a coverage such as 0.95.")

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

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> StudyConfig:
        """Make a configuration from what `as_dict` returned.

        Raises:
            ValueError: If a key is unknown or missing, or a value is out of range.
        """
        recipes = {name: _from_dict(RecipePlan, f"recipe {name}", plan) for name, plan in content["recipes"].items()}
        lists = {name: tuple(content[name]) for name in ("image_shape", "arms", "percents") if name in content}
        return _from_dict(cls, "the configuration", {**content, **lists, "recipes": recipes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One piece of work of a study, and the name of its results.

    Args:
        kind: `"gan"` trains a generator, `"judge"` looks at its images, `"classifier"` trains and tests a classifier.
        entry: Name of the recipe's entry; None for arms without generated images.
        seed: Seed of the generator; None likewise.
        percent: Share of the patients of the reduced class.
        arm: Name of the arm, of classifiers.
        classifier_seed: Number of the classifier of this generator and arm.
        needs: Names of the cells that must be finished before.
    """

    kind: Kind
    percent: float
    entry: str | None = None
    seed: int | None = None
    arm: str | None = None
    classifier_seed: int | None = None
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name that is unique in the study and fit for files."""
        parts = [
            self.kind,
            self.entry,
            None if self.seed is None else f"s{self.seed}",
            self.arm,
            None if self.classifier_seed is None else f"c{self.classifier_seed}",
            f"p{self.percent:g}",
        ]
        return "-".join(part for part in parts if part is not None)


def plan(config: StudyConfig) -> list[Cell]:
    """Cut a study into cells, each behind those that it needs.

    The main study comes first, then the sweep from large to small percentages. Within each, the arms of real images
    come first, then all that belongs to the first generator seed of every recipe: what was finished when time is up
    answers a smaller version of the whole question.
    """
    return [cell for percent in sorted(config.percents, reverse=True) for cell in _plan_percent(config, percent)]


def _plan_percent(config: StudyConfig, percent: float) -> Iterator[Cell]:
    main = percent == config.full_percent
    numbers = range(config.first_seed, config.first_seed + config.classifier_seeds)
    controls = [
        Cell(kind="classifier", percent=percent, arm=arm, classifier_seed=number)
        for number in numbers
        for arm in config.controls
    ]
    yield from controls
    examiner = tuple(cell.name for cell in controls[:1])
    for seed in range(config.first_seed, config.first_seed + config.seeds):
        for entry in config.recipes:
            looked_at = config.recipes[entry].keep != "last"
            gan = Cell(kind="gan", percent=percent, entry=entry, seed=seed, needs=examiner if looked_at else ())
            yield gan
            for number in numbers:
                for arm in config.synthetic_arms:
                    yield Cell(
                        kind="classifier",
                        percent=percent,
                        entry=entry,
                        seed=seed,
                        arm=arm,
                        classifier_seed=number,
                        needs=(gan.name,),
                    )
            if main and config.extractor is not None:
                yield Cell(kind="judge", percent=percent, entry=entry, seed=seed, needs=(gan.name, *examiner))


def check_names(role: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Make sure that names are known and differ.

    Raises:
        ValueError: If not; the message has near names.
    """
    given, choices = list(names), sorted(known)
    for name in given:
        if name not in choices:
            near = difflib.get_close_matches(name, choices, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{role} must be among {', '.join(choices)}, got {name!r}.{hint}")
    if len(set(given)) < len(given):
        raise ValueError(f"{role} must differ from each other, got {', '.join(given)}.")


def _options_of(recipe: str) -> set[str]:
    parameters = {*inspect.signature(Trainer).parameters, *inspect.signature(RECIPES[recipe]).parameters}
    return parameters - _OWN


def _from_dict(cls: type[Config], role: str, content: Mapping[str, Any]) -> Config:
    known = [entry.name for entry in fields(cls)]  # type: ignore[arg-type]  # a dataclass
    check_names(f"keys of {role}", content, known)
    try:
        return cls(**content)
    except TypeError as error:
        raise ValueError(f"{role} lacks something: {error}.") from error


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")
