"""Layout of the charts of a study's report: dots with intervals, and lines. The templates draw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

REFERENCE = -1
"""The series of a dashed line to compare with."""

_SERIES = 6  # shapes and colors in the style sheet, beside those of the controls
WIDTH, HEIGHT = 340, 220
"""Size of a line panel in the units of its SVG."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 24, 10, 44


@dataclass(frozen=True, slots=True)
class Mark:
    """A value and its interval.

    Args:
        label: Name of the value.
        value: The value.
        interval: The ends of its interval, if there is one.
        series: Number of its color and shape; 0 for controls, `REFERENCE` for a dashed line.
        note: Small print after the number.
    """

    label: str
    value: float
    interval: tuple[float, float] | None
    series: int = 0
    note: str = ""

    @property
    def style(self) -> str:
        """The class of the series in the style sheet."""
        return series_style(self.series)


@dataclass(frozen=True, slots=True)
class Tick:
    """A round number on an axis, or a reference value, and its position."""

    value: float
    at: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class PlacedMark:
    """A mark and its position: in percent of the width of a dot chart, or in SVG units of a panel.

    Args:
        mark: The mark.
        x: Horizontal position of the value.
        bar: Positions of the ends of its interval, horizontal in a dot chart, vertical in a panel.
        y: Vertical position of the value in a panel.
    """

    mark: Mark
    x: float
    bar: tuple[float, float] | None
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class DotChart:
    """Values of several groups below each other: a mark for the value, a bar for its interval."""

    title: str
    caption: str
    ticks: tuple[Tick, ...]
    reference: Tick | None
    groups: tuple[tuple[str, tuple[PlacedMark, ...]], ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A percentage of patients kept, its horizontal position, and the number of training images."""

    percent: float
    at: float
    images: int | None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a panel."""

    name: str
    style: str
    points: tuple[PlacedMark, ...]


@dataclass(frozen=True, slots=True)
class LinePanel:
    """Recall against the share of patients kept, the share on a logarithmic axis."""

    title: str
    said: str
    ticks: tuple[Tick, ...]
    shares: tuple[Share, ...]
    lines: tuple[Line, ...]
    left: int = _LEFT
    width: int = WIDTH
    height: int = HEIGHT


def dot_chart(
    title: str,
    groups: Mapping[str, Sequence[Mark]],
    *,
    caption: str,
    reference: tuple[float, str] | None = None,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> DotChart:
    """Lay out values of several groups below each other.

    Args:
        title: Title of the chart.
        groups: Marks by the heading above them; at least one mark.
        caption: What the intervals cover, and what the numbers rest on.
        reference: A value to compare with, drawn as a dashed line, and its name.
        limits: Range of possible values; bars are clipped to it, their numbers are not.

    Examples:
        >>> chart = dot_chart("AUROC", {"controls": [Mark("real", 0.9, (0.8, 1.1))]}, caption="", limits=(0, 1))
        >>> [tick.value for tick in chart.ticks], chart.groups[0][1][0].bar
        ([0.8, 0.85, 0.9, 0.95, 1.0], (2.0, 98.0))
    """
    marks = [mark for group in groups.values() for mark in group]
    ends = [end for mark in marks for end in (mark.value, *(mark.interval or ()))]
    within = [_clip(end, *limits) for end in ends + ([reference[0]] if reference else [])]
    ticks = nice_ticks(min(within), max(within))
    scale = _scale(ticks[0], ticks[-1], 2, 98)

    def place(value: float) -> float:
        return scale(_clip(value, *limits))

    def placed(mark: Mark) -> PlacedMark:
        return PlacedMark(mark, place(mark.value), _bar(mark, place))

    return DotChart(
        title,
        caption,
        tuple(Tick(tick, place(tick)) for tick in ticks),
        Tick(reference[0], place(reference[0]), reference[1]) if reference else None,
        tuple((heading, tuple(map(placed, group))) for heading, group in groups.items()),
    )


def line_panel(
    title: str, lines: Mapping[str, Sequence[tuple[float, Mark]]], counts: Mapping[float, int | None]
) -> LinePanel:
    """Lay out recall against the share of patients kept, one line for each name.

    Args:
        title: Title of the panel.
        lines: Points of each line, by share in percent.
        counts: Number of training images at each share, written below it.
    """
    across = _scale(math.log(min(counts)), math.log(max(counts)), _LEFT + 12, WIDTH - _RIGHT)
    down = _scale(0, 1, HEIGHT - _BOTTOM, _TOP)
    placed, said = [], []
    for place, (name, points) in enumerate(lines.items()):
        shift = 5 * (place - (len(lines) - 1) / 2)  # so that bars of one share lie beside each other
        marks = tuple(
            PlacedMark(
                mark,
                round(across(math.log(percent)) + shift, 2),
                _bar(mark, lambda value: down(_clip(value))),
                down(_clip(mark.value)),
            )
            for percent, mark in sorted(points, key=lambda point: point[0])
        )
        said.append(f"{name}: " + ", ".join(f"{mark.value:.3f} at {percent:g} %" for percent, mark in points))
        placed.append(Line(name, series_style(points[0][1].series if points else 0), marks))
    return LinePanel(
        title,
        f"{title}. {'; '.join(said)}",
        tuple(Tick(tick, down(tick)) for tick in (0, 0.25, 0.5, 0.75, 1)),
        tuple(Share(percent, across(math.log(percent)), count) for percent, count in counts.items()),
        tuple(placed),
    )


def series_style(series: int) -> str:
    """Return the class of a series in the style sheet.

    Examples:
        >>> series_style(0), series_style(7), series_style(REFERENCE)
        ('s0', 's1', 'ref')
    """
    return {REFERENCE: "ref", 0: "s0"}.get(series, f"s{(series - 1) % _SERIES + 1}")


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers that span a range.

    Examples:
        >>> nice_ticks(0.31, 0.94)
        [0.2, 0.4, 0.6, 0.8, 1.0]
        >>> nice_ticks(2, 2)
        [2.0]
    """
    span = high - low
    if span <= 0:
        return [float(low)]
    smallest = 10 ** math.floor(math.log10(span / most))
    step = next(smallest * factor for factor in (1, 2, 5, 10, 20) if span / (smallest * factor) <= most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _bar(mark: Mark, place: Callable[[float], float]) -> tuple[float, float] | None:
    return None if mark.interval is None else (place(mark.interval[0]), place(mark.interval[1]))


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    span = high - low
    return lambda value: round(first + (last - first) * ((value - low) / span if span else 0.5), 2)


def _clip(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return min(high, max(low, value))
