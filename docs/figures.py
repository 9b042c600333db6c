"""Figures of samples, training and comparisons, drawn without global state of matplotlib."""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from page_parts import COMPARISON, RECALLS, curves_picture, samples_picture
from PIL import Image
from torch import Tensor

from condgan.images import image_grid
from condgan.runs import KeptStep
from condgan.study.arms import ARMS
from condgan.study.report import REAL, SAMPLES
from condgan.study.report.view import ArmView, StudyView, make_view
from condgan.study.report.words import Found, ends_of, metric_name, side_name
from condgan.study.results import ArmKey, Results, recalled_class
from condgan.types import ImageShape

_COUNTERS = ("step", "images_seen", "epoch")
_PADDING = 2  # between the images of a sheet, see `condgan.images.image_grid`


def sample_grid(
    images: Tensor,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    title: str | None = None,
    *,
    real: Tensor | None = None,
    caption: str | None = None,
) -> None:
    """Draw generated images, one row per class, each above a row of real ones.

    Pixels are enlarged by a whole factor without smoothing: the figure shows what the network made.

    Args:
        images: Generated images, class by class.
        class_names: Names of the classes.
        path: File to write; its suffix names the format (`.png`, `.pdf`, `.svg`).
        title: Title of the figure.
        real: Real images, class by class. The smaller number of columns of the two is shown.
        caption: Small print at the bottom, such as steps and credits.

    Shape:
        - `images`, `real`: `(K, M, C, H, W)`, uint8, with 1 or 3 channels.

    Raises:
        ValueError: If shapes or types do not fit.
    """
    parts = [images] if real is None else [images, real]
    for name, part in zip(("images", "real"), parts, strict=False):
        _check_images(name, part, len(class_names), images.shape[2:])
    columns = min(part.shape[1] for part in parts)
    scale = max(1, round(96 / max(images.shape[-2:])))
    sheets = [[_sheet(part[c, :columns], scale) for part in parts] for c in range(len(class_names))]

    height, width = (side / DPI for side in sheets[0][0].shape[:2])
    left = 2 * MARGIN + 0.08 * max(9, *map(len, class_names))
    block = height * len(parts) + MARGIN
    canvas = Canvas(left + width + MARGIN, MARGIN + block * len(sheets), title, caption)
    for c, (name, rows) in enumerate(zip(class_names, sheets, strict=True)):
        for r, sheet in enumerate(rows):
            y = canvas.bottom + block * (len(sheets) - 1 - c) + height * (len(rows) - 1 - r) + MARGIN
            axes = canvas.axes(left, y, width, height)
            axes.imshow(sheet, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            where = (left - MARGIN, y + height / 2)
            if r == 0:
                canvas.text(where[0], where[1] + 0.08, name, ha="right", va="center", fontsize=8.5, weight="bold")
                canvas.text(where[0], where[1] - 0.08, "generated", ha="right", va="center", fontsize=7.5)
            else:
                canvas.text(*where, "real", ha="right", va="center", fontsize=7.5)
    canvas.save(path)


def training_curves(
    rows: Sequence[Mapping[str, object]],
    path: str | os.PathLike[str],
    title: str | None = None,
    *,
    caption: str | None = None,
) -> None:
    """Draw one panel for each metric of a training, over the generator's steps.

    Args:
        rows: Rows of a logger: `step` and metrics such as `critic/adversarial`, as numbers or text. A row need not hold
            every metric; text that is not a number is ignored.
        path: File to write; its suffix names the format.
        title: Title of the figure.
        caption: Small print at the bottom.

    Raises:
        ValueError: If no row holds a step and a metric.
    """
    curves = _curves(rows)
    if not curves:
        raise ValueError(
            f'rows must hold "step" and at least one metric, got {len(rows)} rows with the keys '
            f"{sorted({key for row in rows for key in row})}. Pass what a CSVLogger or JSONLLogger wrote."
        )
    columns = min(3, len(curves))
    lines = math.ceil(len(curves) / columns)
    left, width, height, below, above = 0.55, 2.35, 1.35, 0.38, 0.28
    canvas = Canvas(columns * (left + width) + 2 * MARGIN, lines * (below + height + above), title, caption)
    last = max(1.0, *(steps[-1] for steps, _ in curves.values()))
    for i, (name, (steps, values)) in enumerate(curves.items()):
        row, column = divmod(i, columns)
        x = MARGIN + column * (left + width) + left
        y = canvas.bottom + (lines - 1 - row) * (below + height + above) + below
        axes = canvas.axes(x, y, width, height)
        style_axes(axes)
        color = COLORS[_family(name, curves) % len(COLORS)]
        smooth = _moving_mean(values)
        axes.plot(
            steps, values, color=color, linewidth=1.2 if smooth is None else 0.6, alpha=1 if smooth is None else 0.3
        )
        if smooth is not None:
            axes.plot(steps, smooth, color=color, linewidth=1.4)
        axes.set_title(name.replace("/", ": ").replace("_", " "), fontsize=8.5, color=INK, loc="left", pad=4)
        axes.margins(y=0.08)
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if i + columns >= len(curves):
            axes.set_xlabel("generator steps", fontsize=7.5, color=INK, labelpad=2)
    canvas.save(path)


def comparison_chart(
    arms: Mapping[str, Mapping[str, Found]],
    path: str | os.PathLike[str],
    title: str | None = None,
    *,
    chance: Mapping[str, float] | None = None,
    kinds: Mapping[str, int] | None = None,
    caption: str | None = None,
) -> None:
    """Draw the metrics of several arms beside each other: a dot for the value and a bar for its interval.

    Args:
        arms: Scores by name of the arm and name of the metric. Every arm has the same metrics.
        path: File to write; its suffix names the format.
        title: Title of the figure.
        chance: Value of each metric for a guess, drawn as a dashed line.
        kinds: Index of each arm's color in `COLORS`; by default one color for all.
        caption: Small print at the bottom, such as what the intervals cover.

    Raises:
        ValueError: If there are no arms, or they have different metrics.
    """
    metrics = list(next(iter(arms.values()), {}))
    differing = [name for name, estimates in arms.items() if list(estimates) != metrics]
    if not metrics or differing:
        raise ValueError(
            f"arms must be at least one, all with the same metrics in the same order, got {len(arms)} arms, of which "
            f"{differing} differ from {metrics}."
        )
    row, width, gap, columns = 0.26, 1.75, 0.3, min(4, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    left = 2 * MARGIN + 0.068 * max(map(len, arms))
    height, below, above = row * len(arms) + 0.1, 0.3, 0.34
    canvas = Canvas(left + columns * (width + gap), lines * (below + height + above), title, caption)
    limits = _limits(arms, chance or {})
    for i, metric in enumerate(metrics):
        line, column = divmod(i, columns)
        y = canvas.bottom + (lines - 1 - line) * (below + height + above) + below
        axes = canvas.axes(left + column * (width + gap), y, width, height)
        style_axes(axes)
        axes.grid(visible=False, axis="y")
        guess = None if chance is None else chance.get(metric)
        if guess is not None:
            axes.axvline(guess, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        for place, (name, estimates) in enumerate(arms.items()):
            estimate, color = estimates[metric], COLORS[kinds[name] if kinds else 0]
            if (ends := ends_of(estimate)) is not None:
                axes.plot(ends, [place, place], color=color, linewidth=3, alpha=0.45, solid_capstyle="butt")
            axes.plot(estimate.value, place, "o", color=color, markersize=5)
            axes.text(
                estimate.value,
                place - 0.3,
                f"{estimate.value:.3f}",
                ha="center",
                va="center",
                fontsize=6.5,
                color=INK,
            )
        axes.set_title(metric, fontsize=8.5, color=INK, loc="left", pad=4)
        axes.set_ylim(len(arms) - 0.5, -0.7)
        axes.set_xlim(limits)
        axes.set_yticks(range(len(arms)), labels=list(arms) if column == 0 else [""] * len(arms))
    canvas.save(path)


# Pictures of a study


def draw_pictures(results: Results, folder: Path, assets: Path) -> None:
    """Draw all pictures of a study, as far as its folder has the data.

    Args:
        results: The results of the study.
        folder: Folder of a study, or of its published part (`samples`, `curves`).
        assets: Where the pictures go.
    """
    assets.mkdir(parents=True, exist_ok=True)
    study = make_view(results)
    _draw_charts(study, assets)
    data = results.data
    for generator in study.generators:
        name = generator.record.name
        sheet = _existing(folder / "gans" / name / SAMPLES, folder / "samples" / f"{name}.png")
        if sheet is not None:
            real = credit = None
            if generator.is_first and (folder / REAL).is_file():
                real, credit = tiles(folder / REAL, data.num_classes, data.image_shape), data.attribution
            path = assets / samples_picture(name)
            generated = tiles(sheet, data.num_classes, data.image_shape)
            sample_grid(generated, data.class_names, path, real=real, caption=credit)
            if data.image_shape[0] == 1:
                Image.open(path).convert("L").save(path, optimize=True)  # the same pixels, once instead of three times
        curve = _existing(folder / "gans" / name / "curve.json", folder / "curves" / f"{name}.json")
        if generator.is_first and curve is not None and (rows := json.loads(curve.read_text(encoding="utf-8"))):
            path = assets / curves_picture(name)
            training_curves([*rows, *_evaluations(generator.record.kept)], path)
            Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def tiles(path: Path, rows: int, image_shape: ImageShape) -> Tensor:
    """Cut a sheet of samples, one row per class, back into its images.

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


def _draw_charts(study: StudyView, assets: Path) -> None:
    recalls = [metric for metric in study.metrics if recalled_class(metric)]
    kinds = {side_name(arm.key): _kind(arm.key) for arm in study.arms}
    for file, metrics in ((COMPARISON, ("balanced_accuracy", "auroc")), (RECALLS, recalls)):
        arms = {side_name(arm.key): _known(arm, metrics) for arm in study.arms}
        whole = {name: found for name, found in arms.items() if len(found) == max(map(len, arms.values()))}
        if any(whole.values()):
            comparison_chart(
                whole,
                assets / file,
                chance={metric_name(m): 0.5 if m == "auroc" else study.chance for m in metrics},
                kinds=kinds,
                caption="Blue: real images alone. Red: generated ones alone. Green: both.\n"
                f"Bars: {study.intervals} over the seeds of generators and classifiers, and over test patients. "
                "Dashed: guessing.",
            )


def _known(arm: ArmView, metrics: Sequence[str]) -> dict[str, Found]:
    found = {metric_name(metric): arm.score(metric) for metric in metrics}
    return {name: score for name, score in found.items() if score is not None and not math.isnan(score.value)}


def _kind(arm: ArmKey) -> int:
    """Return the number of an arm's color: real images alone, generated ones alone, both."""
    return 0 if arm.recipe is None else 1 if ARMS[arm.arm].synthetic_only else 2


def _evaluations(kept: KeptStep) -> list[dict[str, float]]:
    """Return the values that the step was chosen by as rows of a curve."""
    name = f"validation/{(kept.criterion or '').removeprefix('best_').upper()}"
    return [{"step": found.step, name: found.value} for found in kept.evaluations]


def _existing(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _sheet(images: Tensor, scale: int) -> np.ndarray:
    sheet = image_grid(images.cpu(), columns=len(images), padding=1)
    enlarged = sheet.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    # three channels for greyscale too: matplotlib would map gray levels through a table, with rounding
    return enlarged.expand(3, -1, -1).permute(1, 2, 0).numpy()


def _check_images(name: str, images: Tensor, classes: int, image_shape: tuple[int, ...]) -> None:
    if images.dtype != torch.uint8 or images.ndim != 5 or images.shape[0] != classes or images.shape[2] not in (1, 3):
        raise ValueError(
            f"{name} must be uint8 of the shape ({classes}, M, C, H, W), one row for each class name and 1 or 3 "
            f"channels, got {images.dtype} of the shape {tuple(images.shape)}."
        )
    if images.shape[2:] != image_shape:
        raise ValueError(f"{name} must have the image shape {tuple(image_shape)}, got {tuple(images.shape[2:])}.")


def _limits(arms: Mapping[str, Mapping[str, Found]], chance: Mapping[str, float]) -> tuple[float, float]:
    """Return one range for all metrics, so that they compare."""
    scores = [score for row in arms.values() for score in row.values()]
    shown = [end for score in scores for end in (score.value, *(ends_of(score) or ()))] + list(chance.values())
    low, high = min(shown), max(shown)
    margin = 0.08 * (high - low) or 0.05
    return low - margin, high + margin


def _curves(rows: Sequence[Mapping[str, object]]) -> dict[str, tuple[list[float], list[float]]]:
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        step = _number(row.get("step"))
        for name, cell in row.items():
            value = _number(cell)
            if name not in _COUNTERS and step is not None and value is not None:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
    return dict(sorted(curves.items()))


def _number(cell: object) -> float | None:
    try:
        return float(str(cell))
    except ValueError:
        return None


def _family(name: str, names: Mapping[str, object]) -> int:
    """Return the index of the first part of a name, so that all curves of the critic share a color."""
    return sorted({other.split("/")[0] for other in names}).index(name.split("/")[0])


def _moving_mean(values: Sequence[float]) -> list[float] | None:
    """Return the mean over a window of a twentieth of the curve, or None for short curves."""
    reach = len(values) // 40
    if reach < 2:
        return None
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


# the bright scheme of Paul Tol, which color-blind readers can tell apart
COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777")
INK, FAINT, GRID = "#222222", "#777777", "#dddddd"
DPI = 160
MARGIN = 0.1
TITLE_CHARACTER, CAPTION_CHARACTER = 0.085, 0.05
TITLE_LINE, CAPTION_LINE = 0.2, 0.12


class Canvas:
    """A figure measured in inches from its lower left corner, laid out by hand: pixels of images stay whole.

    Args:
        width: Width of the figure.
        height: Height between title and caption.
        title: Text at the top, or None.
        caption: Small print at the bottom, or None.

    Attributes:
        bottom: Height of the caption; drawing begins above it.
    """

    def __init__(self, width: float, height: float, title: str | None, caption: str | None) -> None:
        heading = wrap(title, width - 2 * MARGIN, TITLE_CHARACTER)
        small = wrap(caption, width - 2 * MARGIN, CAPTION_CHARACTER)
        self.bottom = MARGIN + CAPTION_LINE * len(small)
        self.size = (snap(width), snap(self.bottom + height + TITLE_LINE * len(heading)))
        self.figure = Figure(figsize=self.size, dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        for i, line in enumerate(heading):
            y = self.size[1] - MARGIN / 2 - 0.1 - TITLE_LINE * i
            self.text(self.size[0] / 2, y, line, ha="center", va="center", fontsize=10.5)
        for i, line in enumerate(reversed(small)):
            self.text(MARGIN, 0.1 + CAPTION_LINE * i, line, va="center", fontsize=6.5, color=FAINT)

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Add axes whose box begins and ends at whole pixels."""
        (full_width, full_height), box = self.size, tuple(map(snap, (left, bottom, width, height)))
        return self.figure.add_axes(
            (box[0] / full_width, box[1] / full_height, box[2] / full_width, box[3] / full_height)
        )

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text."""
        self.figure.text(x / self.size[0], y / self.size[1], text, **{"color": INK, **style})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure in the format that the suffix names."""
        self.figure.savefig(Path(path), dpi=DPI)


def snap(length: float) -> float:
    """Round inches to whole pixels."""
    return round(length * DPI) / DPI


def wrap(text: str | None, width: float, character: float) -> list[str]:
    """Break a text into lines that fit into `width` inches, given the inches per character."""
    columns = max(20, int(width / character))
    return [line for paragraph in (text or "").splitlines() for line in textwrap.wrap(paragraph, columns)]


def style_axes(axes: Axes) -> None:
    """Keep two spines, a light grid and small ticks."""
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, length=2, color=FAINT, labelcolor=INK, pad=2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
