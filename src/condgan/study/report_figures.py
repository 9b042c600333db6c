"""Figures of the HTML report: marks and bars that follow the window's width and the reader's light or dark scheme."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from condgan.study.report_html import Html, join, number, render

REFERENCE = -1
"""The series of a line that others are held against."""

_SERIES = 6  # shapes and colours in the style sheet, beside those of the controls
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 220, 34, 24, 10, 44


@dataclass(frozen=True, slots=True)
class Mark:
    """A value and its interval.

    Args:
        label: What it is the value of.
        value: The value.
        low: Lower end of its interval.
        high: Upper end.
        series: Number of its colour and shape; 0 for controls, `REFERENCE` for a dashed line.
        note: Small print behind the number.
    """

    label: str
    value: float
    low: float
    high: float
    series: int = 0
    note: str = ""


def dot_chart(
    title: str,
    groups: Mapping[str, Sequence[Mark]],
    *,
    caption: str,
    reference: tuple[float, str] | None = None,
    limits: tuple[float, float] = (-math.inf, math.inf),
    show: Callable[[float], str] = number,
) -> Html:
    """Draw values of several groups under each other: a mark for the value, a bar for its interval.

    Each line carries its number as text, so the chart reads without colours and without eyes.

    Args:
        title: What is shown.
        groups: Marks by the heading above them; an empty heading is left out.
        caption: What the intervals cover, and what the figures rest on.
        reference: A value to compare with, drawn as a dashed line, and its name.
        limits: The ends of what the values can be; bars are cut there, their numbers are not.
        show: Turns numbers into text.
    """
    marks = [mark for group in groups.values() for mark in group]
    ends = [end for mark in marks for end in (mark.low, mark.high, mark.value)] + ([reference[0]] if reference else [])
    within = [_clip(end, *limits) for end in ends]
    ticks = nice_ticks(min(within), max(within))
    scale = _scale(ticks[0], ticks[-1], 2, 98)

    def place(value: float) -> float:
        return scale(_clip(value, *limits))

    lines = [render('<i class="tick" style="left:{x}%"></i>', x=place(tick)) for tick in ticks]
    if reference:
        lines.append(render('<i class="reference" style="left:{x}%"></i>', x=place(reference[0])))
    rows = []
    for heading, group in groups.items():
        if heading:
            rows.append(render('<li class="group">{heading}</li>', heading=heading))
        rows += [_row(mark, join(lines, ""), place, show) for mark in group]
    axis = join((render('<i style="left:{x}%">{tick}</i>', x=place(tick), tick=f"{tick:g}") for tick in ticks), "")
    return render(
        '<figure class="chart">\n<figcaption><strong>{title}</strong> {caption}{reference}</figcaption>\n'
        '<ul>\n{rows}\n<li class="axis" aria-hidden="true"><span class="track">{axis}</span></li>\n</ul>\n</figure>',
        title=title,
        caption=caption,
        reference=f" Dashed: {reference[1]}." if reference else "",
        rows=join(rows),
        axis=axis,
    )


def legend(names: Sequence[str], *, controls: bool = True) -> Html:
    """Explain the marks of the series 1, 2, ..., and of the controls if there are any."""
    entries = [(0, "without generated images (controls)")] * controls + list(enumerate(names, start=1))
    return render(
        '<p class="legend">{entries}</p>',
        entries=join(
            render('<span class="{style}"><i class="dot"></i> {name}</span>', style=style(series), name=name)
            for series, name in entries
        ),
    )


def line_panel(
    title: str, lines: Mapping[str, Sequence[tuple[float, Mark]]], counts: Mapping[float, int | None]
) -> Html:
    """Draw recall against the share of patients kept, one line for each name, the share on a logarithmic axis.

    Args:
        title: Title of the panel.
        lines: Points of each line, by share in percent.
        counts: Number of training images at each share, written below it.
    """
    across = _scale(math.log(min(counts)), math.log(max(counts)), _LEFT + 12, _WIDTH - _RIGHT)
    down = _scale(0, 1, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(render('<path class="grid" d="M{left} {y}H{right}"/>', left=_LEFT, right=_WIDTH, y=down(tick)))
        parts.append(render('<text class="y" x="{x}" y="{y}">{tick}</text>', x=_LEFT - 5, y=down(tick), tick=tick))
    for percent, count in counts.items():
        at = across(math.log(percent))
        parts.append(render('<text x="{x}" y="{y}">{p} %</text>', x=at, y=_HEIGHT - _BOTTOM + 16, p=f"{percent:g}"))
        parts.append(
            render('<text class="small" x="{x}" y="{y}">{count}</text>', x=at, y=_HEIGHT - 14, count=number(count))
        )
    said = []
    for place, (name, points) in enumerate(lines.items()):
        shift = 5 * (place - (len(lines) - 1) / 2)  # so that bars of one share lie beside each other
        found = [(across(math.log(percent)) + shift, mark) for percent, mark in sorted(points, key=lambda p: p[0])]
        said.append(f"{name}: " + ", ".join(f"{number(mark.value)} at {percent:g} %" for percent, mark in points))
        path = " ".join(f"{x:.2f},{down(_clip(mark.value))}" for x, mark in found)
        inner = [render('<polyline points="{path}"/>', path=path)]
        for x, mark in found:
            bar = f"M{x:.2f} {down(_clip(mark.low))}V{down(_clip(mark.high))}"
            if mark.series != REFERENCE:
                inner.append(render('<path class="bar" d="{bar}"/>', bar=bar))
                inner.append(_symbol(mark.series, x, down(_clip(mark.value))))
        parts.append(
            render('<g class="{style}">{inner}</g>', style=style(found[0][1].series if found else 0), inner=join(inner))
        )
    return render(
        '<figure class="panel"><figcaption>{title}</figcaption>\n<svg viewBox="0 0 {w} {h}" role="img" '
        'aria-label="{said}">\n{parts}\n</svg></figure>',
        title=title,
        w=_WIDTH,
        h=_HEIGHT,
        said=f"{title}. {'; '.join(said)}",
        parts=join(parts),
    )


def style(series: int) -> str:
    """Return the name of a series in the style sheet."""
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


def _row(mark: Mark, lines: Html, place: Callable[[float], float], show: Callable[[float], str]) -> Html:
    left, right = place(mark.low), place(mark.high)
    return render(
        '<li class="{style}"><span class="label">{label}</span><span class="track" aria-hidden="true">{lines}'
        '<i class="bar" style="left:{left}%;width:{width}%"></i><i class="dot" style="left:{x}%"></i></span>'
        '<span class="value"><b>{value}</b> <span>[{low}, {high}]</span> <small>{note}</small></span></li>',
        style=style(mark.series),
        label=mark.label,
        lines=lines,
        left=left,
        width=round(right - left, 2),
        x=place(mark.value),
        value=show(mark.value),
        low=show(mark.low),
        high=show(mark.high),
        note=mark.note,
    )


def _symbol(series: int, x: float, y: float) -> Html:
    """Return the mark of a series as in the style sheet: ring, disc, diamond, square, triangle and their turns."""
    shapes = {
        "s1": '<circle cx="{x}" cy="{y}" r="4.5"/>',
        "s2": '<path d="M{x} {y}m0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>',
        "s3": '<path d="M{x} {y}m-4 -4h8v8h-8z"/>',
        "s4": '<path d="M{x} {y}m0 -5l5 9h-10z"/>',
        "s5": '<path d="M{x} {y}m0 5l5 -9h-10z"/>',
        "s6": '<path d="M{x} {y}m-5 0l9 -5v10z"/>',
    }
    return render(shapes.get(style(series), '<circle class="ring" cx="{x}" cy="{y}" r="4"/>'), x=round(x, 2), y=y)


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    span = high - low
    return lambda value: round(first + (last - first) * ((value - low) / span if span else 0.5), 2)


def _clip(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return min(high, max(low, value))
