"""The studies that a run works on: those of the sizes for a GPU, or miniatures of them."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from configs import SIZES, Size
from names import ENGINES, LEAST_OF_THE_HOST
from timing import on_cuda
from work import Work
from xrays import load

from condgan.data import ArrayDataset, ChestPhantom
from condgan.runs import RecipeConfig
from condgan.study import Study, StudyConfig
from condgan.study.cells import Cell, make_cells

NAMES = {2: "two-classes", 3: "three-classes"}


def size_of(name: str, *, rehearse: bool) -> Size:
    """Return a size of the study, or a miniature of it with its last recipe."""
    size = SIZES[name]
    if not rehearse:
        return size
    recipe = list(size.config.recipes)[-1]
    config = replace(
        size.config,
        image_shape=(1, 16, 16),
        recipes={recipe: _miniature(size.config.recipes[recipe])},
        arms=("real", "synthetic_1x"),
        seeds=2,
        classifier_seeds=1,
        classifier_steps=2,
        classifier_epochs=1,
        resamples=20,
    )
    return replace(size, config=config)


def _miniature(recipe: RecipeConfig) -> RecipeConfig:
    return replace(recipe, steps=4, batch_size=8, generator_batch_size=None, base_channels=4, evaluations=2)


def folder_of(work: str | Path, size: str, classes: int) -> Path:
    """Return the folder of a study."""
    return Path(work) / size / NAMES[classes]


def make_study(work: Work) -> Study:
    """Return the study that a task's options name; its folder is shared with other processes."""
    given = work.options
    size = size_of(given["size"], rehearse=work.rehearse)
    root = Path(given["data"])
    real = root.is_dir()
    if not real and not work.rehearse:
        raise FileNotFoundError(f"the X-rays must be in {root}: a folder with train, val and test. See README.md.")
    data = load(root, given["classes"], size, Path(given["work"]) / "decoded") if real else phantoms(given["classes"])
    return Study(
        size.config,
        *data,
        folder_of(given["work"], given["size"], given["classes"]),
        device=work.device,
        engine=ENGINES[given["engine"] or LEAST_OF_THE_HOST] if on_cuda(work.device) else "auto",
        progress=lambda line: print(line, flush=True),
        command=f"python benchmarks/study --size {given['size']} --classes {given['classes']}",
    )


def phantoms(classes: int) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """Return drawn images for a rehearsal without X-rays."""
    counts = ((24, 40, 32), (12, 12, 12), (20, 30, 25))
    draw: dict[str, Any] = {"classes": classes, "image_shape": (1, 16, 16), "difficulty": 0.0}
    train, validation, test = (ChestPhantom(own[:classes], seed=seed, **draw) for seed, own in enumerate(counts))
    return train, validation, test


def generators(config: StudyConfig, recipes: list[str] | None, seeds: list[int] | None) -> list[Cell]:
    """Return the generators of the main study by patterns of recipes and by seeds."""
    return [
        cell
        for cell in make_cells(config)
        if cell.kind == "gan"
        and cell.percent == config.full_percent
        and (recipes is None or any(fnmatch(str(cell.recipe), pattern) for pattern in recipes))
        and (seeds is None or cell.seed in seeds)
    ]


def reference(config: StudyConfig) -> Cell:
    """Return the classifier of real images whose features choose the kept step of a generator."""
    return next(cell for cell in make_cells(config) if cell.kind == "classifier" and cell.recipe is None)
