"""The cells of a study: its pieces of work, each with one result."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from condgan.study.config import StudyConfig

Kind = Literal["gan", "judge", "classifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One piece of work of a study.

    Args:
        kind: `"gan"` trains a generator, `"judge"` evaluates its images, `"classifier"` trains and tests a classifier.
        percent: Percentage of the patients of the reduced class that is kept.
        recipe: Name of the recipe in the configuration; None for arms without generated images.
        seed: Seed of the generator; None likewise.
        arm: Name of the arm; None except for classifiers.
        classifier_seed: Seed of the classifier; None except for classifiers.
        needs: Names of the cells that must be finished first.
    """

    kind: Kind
    percent: float
    recipe: str | None = None
    seed: int | None = None
    arm: str | None = None
    classifier_seed: int | None = None
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name that is unique in the study and fit for files."""
        parts = [
            self.kind,
            self.recipe,
            None if self.seed is None else f"s{self.seed}",
            self.arm,
            None if self.classifier_seed is None else f"c{self.classifier_seed}",
            f"p{self.percent:g}",
        ]
        return "-".join(part for part in parts if part is not None)


def make_cells(config: StudyConfig) -> list[Cell]:
    """Return the cells of a study, each after those that it needs.

    The main study comes first, then the sweep from large to small percentages. Within each, the arms of real images
    come first, then everything of the first generator seed of every recipe: a study that is stopped early is a
    complete study with fewer seeds.
    """
    return [cell for percent in sorted(config.percents, reverse=True) for cell in _cells_at(config, percent)]


def choose_cells(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """Return the cells whose names match one of the patterns, such as `"gan-acgan-*"`.

    Raises:
        ValueError: If a pattern matches no cell.
    """
    names = [cell.name for cell in cells]
    idle = [pattern for pattern in patterns if not fnmatch.filter(names, pattern)]
    if idle:
        raise ValueError(f"every pattern must match a cell, got {', '.join(idle)}. Cells are {', '.join(names)}.")
    return [cell for cell in cells if any(fnmatch.fnmatch(cell.name, pattern) for pattern in patterns)]


def _cells_at(config: StudyConfig, percent: float) -> Iterator[Cell]:
    main = percent == config.full_percent
    numbers = range(config.first_seed, config.first_seed + config.classifier_seeds)
    controls = [
        Cell(kind="classifier", percent=percent, arm=arm, classifier_seed=number)
        for number in numbers
        for arm in config.controls
    ]
    yield from controls
    reference = tuple(cell.name for cell in controls[:1])
    for seed in range(config.first_seed, config.first_seed + config.seeds):
        for recipe in config.recipes:
            judged = config.recipes[recipe].keep != "last"
            gan = Cell(kind="gan", percent=percent, recipe=recipe, seed=seed, needs=reference if judged else ())
            yield gan
            for number in numbers:
                for arm in config.synthetic_arms:
                    yield Cell(
                        kind="classifier",
                        percent=percent,
                        recipe=recipe,
                        seed=seed,
                        arm=arm,
                        classifier_seed=number,
                        needs=(gan.name,),
                    )
            if main and config.extractor is not None:
                yield Cell(kind="judge", percent=percent, recipe=recipe, seed=seed, needs=(gan.name, *reference))
