"""Pictures of a study for the pages: sheets of samples, curves of training, scores of the arms."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from figures import chance_levels, comparison_chart, sample_grid, training_curves
from PIL import Image
from study_tables import arms_of, name_of
from torch import Tensor

from condgan.stats import Estimate
from condgan.study.report import REAL, SAMPLES
from condgan.study.report_words import Results, Row, cells_of, intervals_name, recall_class
from condgan.study.summaries import is_synthetic_only

COMPARISON, RECALLS = "comparison.png", "recalls.png"
_PADDING = 2  # between the images of a sheet, see `condgan.images.image_grid`


def samples_picture(gan: str) -> str:
    """Return the file name of a generator's samples on the pages."""
    return f"{gan}_samples.png"


def curves_picture(gan: str) -> str:
    """Return the file name of a generator's curves on the pages."""
    return f"{gan}_curves.png"


def first_generators(results: Results) -> list[Row]:
    """Return the generator of the first seed of each recipe, with all patients."""
    found: dict[str, Row] = {}
    for cell in sorted(cells_of(results, "gan"), key=lambda cell: (-cell["p"], cell["seed"])):
        found.setdefault(cell["recipe"], cell)
    return [found[recipe] for recipe in dict.fromkeys(cell["recipe"] for cell in cells_of(results, "gan"))]


def draw_pictures(results: Results, folder: Path, assets: Path) -> None:
    """Draw everything that there is material for.

    Args:
        results: The content of `results.json`.
        folder: Folder of a study, or of its published part (`samples`, `curves`).
        assets: Where the pictures go.
    """
    assets.mkdir(parents=True, exist_ok=True)
    _draw_charts(results, assets)
    first = {cell["name"] for cell in first_generators(results)}
    names, shape = results["data"]["class_names"], tuple(results["data"]["image_shape"])
    for cell in cells_of(results, "gan"):
        gan = cell["name"]
        sheet = _existing(folder / "gans" / gan / SAMPLES, folder / "samples" / f"{gan}.png")
        if sheet is not None:
            real = credit = None
            if gan in first and (folder / REAL).is_file():
                real, credit = tiles(folder / REAL, len(names), shape), results["data"].get("attribution")
            path = assets / samples_picture(gan)
            sample_grid(tiles(sheet, len(names), shape), names, path, real=real, caption=credit)
            if shape[0] == 1:
                Image.open(path).convert("L").save(path, optimize=True)  # the same pixels, once instead of three times
        curve = _existing(folder / "gans" / gan / "curve.json", folder / "curves" / f"{gan}.json")
        if gan in first and curve is not None and (rows := json.loads(curve.read_text(encoding="utf-8"))):
            path = assets / curves_picture(gan)
            training_curves([*rows, *_looks(cell)], path)
            Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def tiles(path: Path, rows: int, image_shape: tuple[int, ...]) -> Tensor:
    """Cut a sheet of samples, one row a class, back into its images.

    Shape:
        - Returns: `(rows, M, C, H, W)`, uint8.

    Raises:
        ValueError: If the sheet is not made of such images.
    """
    channels, height, width = image_shape
    with Image.open(path) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("L" if channels == 1 else "RGB")))
    sheet = pixels.reshape(*pixels.shape[:2], channels)[_PADDING:, _PADDING:]
    high, wide = height + _PADDING, width + _PADDING
    if sheet.shape[0] != rows * high or sheet.shape[1] % wide:
        raise ValueError(f"{path.name} must be a sheet of {rows} rows of {width}x{height} images, got {picture.size}.")
    images = rearrange(sheet, "(k h) (m w) c -> k m c h w", h=high, w=wide)
    return images[..., :height, :width].contiguous()


def _draw_charts(results: Results, assets: Path) -> None:
    estimates = {name_of(arm): _estimates(found) for arm, found in arms_of(results).items()}
    kinds = {name_of(arm): 0 if arm[0] is None else 1 if is_synthetic_only(arm[1]) else 2 for arm in arms_of(results)}
    chance = chance_levels(results["data"]["class_names"])
    for file, recalls in ((COMPARISON, False), (RECALLS, True)):
        arms = {
            arm: {name: value for name, value in found.items() if name.startswith("recall") == recalls}
            for arm, found in estimates.items()
        }
        whole = {arm: found for arm, found in arms.items() if len(found) == max(map(len, arms.values()))}
        if any(whole.values()):
            comparison_chart(
                whole,
                assets / file,
                chance=chance,
                kinds=kinds,
                caption="Blue: real images alone. Red: generated ones alone. Green: both.\n"
                f"Bars: {intervals_name(results)} over the seeds of generators and classifiers, and over test "
                "patients. Dashed: guessing.",
            )


def _estimates(found: dict[str, Row]) -> dict[str, Estimate]:
    names = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
    names |= {metric: f"recall, {name}" for metric in found if (name := recall_class(metric))}
    ends = ("value", "low", "high")
    rows = {shown: [found[metric][end] for end in ends] for metric, shown in names.items() if metric in found}
    return {shown: Estimate(*row) for shown, row in rows.items() if None not in row}


def _looks(cell: Row) -> Iterable[dict[str, Any]]:
    """Return the looks by which the step was chosen as rows of a curve."""
    kept = cell.get("kept", {})
    name = f"validation/{kept.get('criterion', '').removeprefix('best_').upper()}"
    return [{"step": look["step"], name: look["value"]} for look in kept.get("evaluations", [])]


def _existing(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
