"""Figures of the speed page: bars of what was compared, and lines of what grows with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import COLORS, INK, MARGIN, Canvas, style_axes
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator
from subjects import Config

WIDTH = 6.0
"""Inches: on a page figures shrink little, so that their letters stay as large as those around them."""
BAR, GROUP_GAP, LETTER = 0.16, 0.1, 0.067

AXES = {"image_size": "side, px", "batch_size": "batch", "num_classes": "classes", "images": "images"}

Row = Mapping[str, Any]
Series = Mapping[str, float]
"""Values by label of the bars' group."""


@dataclass(frozen=True)
class Bars:
    """Grouped horizontal bars in panels side by side.

    Attributes:
        panels: By title, the series of a panel by name; a label that a series lacks has no bar.
        value: What the length of a bar is.
        reference: Where to draw a line, or None.
        log: Draw dots on a logarithmic scale in place of bars.
    """

    panels: Mapping[str, Mapping[str, Series]]
    value: str
    reference: float | None = None
    log: bool = False

    def draw(self, path: Path) -> None:
        """Write the figure."""
        names = list(dict.fromkeys(name for series in self.panels.values() for name in series))
        labels = list(
            dict.fromkeys(label for series in self.panels.values() for bars in series.values() for label in bars)
        )
        left = 2 * MARGIN + LETTER * max(map(len, labels))
        width = (WIDTH - left - MARGIN) / len(self.panels)
        height = len(labels) * (len(names) * BAR + GROUP_GAP)
        below, above = 0.4, 0.05 + 0.2 * any(self.panels) + 0.22 * (len(names) > 1)
        canvas = Canvas(WIDTH, below + height + above, None, None)
        values = [value for series in self.panels.values() for bars in series.values() for value in bars.values()]
        shortest, longest = min(values), max(values)
        for i, (title, series) in enumerate(self.panels.items()):
            axes = canvas.axes(left + i * width, canvas.bottom + below, width - 0.2, height)
            style_axes(axes)
            axes.grid(visible=False, axis="y")
            axes.set_title(title, fontsize=9, color=INK, loc="left", pad=4)
            axes.set_xlabel(self.value, fontsize=8, color=INK)
            axes.set_yticks(range(len(labels)), labels=labels if i == 0 else [""] * len(labels))
            axes.tick_params(labelsize=8)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(labels) - 0.5, -0.5)
            if self.log:
                axes.set_xscale("log")
                axes.set_xlim(shortest / 2, 4 * longest)
                axes.tick_params(which="minor", length=0)
            else:
                axes.set_xlim(0, 1.18 * max(longest, self.reference or 0))
                axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            if self.reference is not None:
                axes.axvline(self.reference, color=INK, linewidth=0.8, zorder=0.9)
            self._draw_bars(axes, series, names, labels)
        if len(names) > 1:
            draw_legend(canvas, names)
        canvas.save(path)

    def _draw_bars(self, axes: Axes, series: Mapping[str, Series], names: Sequence[str], labels: Sequence[str]) -> None:
        thickness = BAR / (len(names) * BAR + GROUP_GAP)
        for place, label in enumerate(labels):
            for j, name in enumerate(names):
                value = series.get(name, {}).get(label)
                if value is not None:
                    y = place + (j - (len(names) - 1) / 2) * thickness
                    if self.log:  # a bar would have to start at 0
                        axes.plot(value, y, "o", color=COLORS[j], markersize=5)
                    else:
                        axes.barh(y, value, height=0.9 * thickness, color=COLORS[j], linewidth=0)
                    axes.annotate(
                        f"{value:.2g}" if self.log else f"{value:.2f}",
                        (value, y),
                        xytext=(6 if self.log else 3, 0),
                        textcoords="offset points",
                        va="center",
                        fontsize=7,
                        color=INK,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                    )


def draw_legend(canvas: Canvas, names: Sequence[str]) -> None:
    """Name the colors above the panels."""
    handles = [Patch(color=color, label=name) for name, color in zip(names, COLORS, strict=False)]
    canvas.figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(names),
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handlelength=0.9,
        handleheight=0.9,
        borderaxespad=0.2,
        columnspacing=1.2,
    )


def draw_bars(name: str, rows: Sequence[Row], ratios: Mapping[str, float], path: Path) -> None:
    """Draw the bars of a part of the benchmark."""
    BARS[name](rows, ratios).draw(path)


def iterations(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of iterations."""
    return [row for row in rows if row.get("what", "iteration") == "iteration"]


def points(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of points that were measured."""
    return [row for row in rows if "seconds" in row]


def config_of(row: Row) -> Config:
    """Return the configuration that a row is about."""
    return Config(row["networks"], row["image_size"], row["base_channels"], row["batch_size"])


def iteration_bars(rows: Sequence[Row], ratios: Mapping[str, float]) -> Bars:
    """Return ratios to the tutorial loop."""
    wanted = {
        "fp32": ("fp32", "tutorial"),
        "bf16 over bf16": ("bf16", "tutorial_bf16"),
        "bf16 over fp32": ("bf16", "tutorial"),
    }
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for row in iterations(rows):
        for series, (precision, rival) in wanted.items():
            value = ratios.get(f"{config_of(row).name('iteration', precision)}.{rival}")
            if value is not None:
                label = f"{row['image_size']} px, batch {row['batch_size']}"
                panels.setdefault(row["networks"], {}).setdefault(series, {})[label] = value
    return Bars(panels, "time over that of the tutorial loop", reference=1.0)


def savings_bars(rows: Sequence[Row], ratios: Mapping[str, float]) -> Bars:
    """Return time with each saving over time without."""
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        series = panels.setdefault(f"{row['networks']}, {row['image_size']} px", {})
        series.setdefault(f"batch {row['batch_size']}", {})[row["saving"].replace("_", " ")] = row["ratio"]
    return Bars(panels, "time with over without", reference=1.0)


def roofline_bars(rows: Sequence[Row], ratios: Mapping[str, float]) -> Bars:
    """Return shares of the roofline."""
    series: dict[str, dict[str, float]] = {}
    for row in iterations(rows):
        label = f"{row['networks']}, {row['image_size']} px, batch {row['batch_size']}"
        series.setdefault(row["precision"], {})[label] = row["share"]
    return Bars({"": series}, "share of the roofline")


def data_path_bars(rows: Sequence[Row], ratios: Mapping[str, float]) -> Bars:
    """Return milliseconds per batch."""
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        title = f"{row['image_size']} px, batch {row['batch_size']}"
        panels.setdefault(title, {}).setdefault("", {})[row["path"]] = 1e3 * row["seconds"]["median"]
    return Bars(panels, "ms per batch", log=True)


BARS: dict[str, Callable[[Sequence[Row], Mapping[str, float]], Bars]] = {
    "iteration": iteration_bars,
    "savings": savings_bars,
    "roofline": roofline_bars,
    "data_paths": data_path_bars,
}


def draw_growth(rows: Sequence[Row], path: Path) -> None:
    """Draw time and memory of an iteration over each axis, both scales logarithmic."""
    rows = points(rows)
    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    measures: dict[str, Callable[[Row], float | None]] = {
        "time, ms": lambda row: 1e3 * row["seconds"]["median"],
        "memory, MB": lambda row: row["peak_bytes"] / 1e6 if row.get("peak_bytes") else None,
    }
    left, gap, below, height, above = 0.62, 0.12, 0.45, 1.25, 0.12
    width = (WIDTH - left - MARGIN) / len(axes_names)
    canvas = Canvas(WIDTH, 2 * (below + height + above), None, None)
    for line, (measure, of) in enumerate(measures.items()):
        values = [value for row in rows if (value := of(row))]
        if not values:
            continue
        for column, name in enumerate(axes_names):
            drawn = [(row[name], value) for row in rows if row["axis"] == name and (value := of(row))]
            bottom = canvas.bottom + (1 - line) * (below + height + above) + below
            axes = canvas.axes(left + column * width, bottom, width - gap, height)
            style_axes(axes)
            axes.loglog([x for x, _ in drawn], [y for _, y in drawn], "o-", color=COLORS[line], markersize=4)
            axes.set_ylim(0.6 * min(values), 1.7 * max(values))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks([x for x, _ in drawn], labels=[short(x) for x, _ in drawn])
            axes.tick_params(labelsize=8)
            axes.tick_params(which="minor", length=0)
            axes.set_xlabel(AXES[name], fontsize=8, color=INK)
            axes.margins(x=0.15)
            if column == 0:
                axes.set_ylabel(measure, fontsize=8, color=INK)
            else:
                axes.yaxis.set_major_formatter(NullFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
    canvas.save(path)


def short(number: int) -> str:
    """Write thousands as k.

    >>> short(100_000), short(64)
    ('100k', '64')
    """
    return f"{number // 1000}k" if number >= 1000 and number % 1000 == 0 else str(number)
