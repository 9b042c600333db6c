"""A sheet of paper measured in inches: the drawing ground of the figures."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# The bright scheme of Paul Tol, which colour-blind readers can tell apart.
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
    """Break a text into lines that fit into `width` inches at so many inches a character."""
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
