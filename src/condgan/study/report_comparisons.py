"""The part of the HTML report on differences between arms."""

from __future__ import annotations

from collections.abc import Sequence

from condgan.study.report_figures import Mark, dot_chart
from condgan.study.report_html import (
    DASH,
    Html,
    details,
    interval,
    join,
    missing,
    p_value,
    paragraph,
    render,
    table,
)
from condgan.study.report_words import (
    Results,
    Row,
    intervals_name,
    metric_name,
    series_of,
    side_name,
)

_FAMILIES = {
    "control": "{metric}: difference from the best control, {other}",
    "rare": "{metric}: difference from {other}",
}
"""Headings of the families of comparisons that share one side; each family is corrected by itself."""


def comparisons_part(results: Results) -> Html:
    """Return the differences that answer the questions as a figure, and all of them as a table."""
    comparisons = results.get("comparisons", [])
    heading = render("<h3>Differences</h3>")
    if not comparisons:
        return join([heading, missing("No two arms have been compared.")])
    full = max(row["a"]["p"] for row in comparisons)
    asked = [row for row in comparisons if row["a"]["p"] == full and (row["primary"] or row["family"] != "control")]
    groups: dict[str, list[Mark]] = {}
    for family in dict.fromkeys(row["family"] for row in asked):
        own = [row for row in asked if row["family"] == family]
        groups |= _group(results, family, own)
    chart = dot_chart(
        "More than chance?",
        groups,
        caption=f"Right of the dashed line the first of the two is better. Bars: {intervals_name(results)} of each "
        "difference alone, paired by patient, over seeds and patients. Whether it counts, p after Holm says: it is "
        "corrected for the number of comparisons under one heading.",
        reference=(0.0, "no difference"),
    )
    return join([heading, chart if asked else "", details("All comparisons", *_table(comparisons))])


def _group(results: Results, family: str, rows: Sequence[Row]) -> dict[str, list[Mark]]:
    names = {"metric": metric_name(rows[0]["metric"]), "other": side_name(rows[0]["b"])}
    heading = _FAMILIES.get(family, "{metric}: recipes against each other").format(**names)
    marks = [
        Mark(
            side_name(row["a"]) + ("" if family in _FAMILIES else f" less {side_name(row['b'])}"),
            row["difference"],
            row["low"],
            row["high"],
            series_of(results, row["a"]["recipe"]),
            f"p {p_value(row['p_value'])}, after Holm {p_value(row['p_holm'])}",
        )
        for row in rows
    ]
    return {heading: marks}


def _table(comparisons: Sequence[Row]) -> list[Html]:
    rows = [
        [
            f"{side_name(row['a'])} less {side_name(row['b'])}",
            f"{row['a']['p']:g}",
            metric_name(row["metric"]),
            interval(row, "difference"),
            p_value(row["p_value"]),
            p_value(row["p_holm"]),
            "primary" if row["primary"] else row["family"],
            *(p_value(test["p_value"]) if (test := row["secondary"][name]) else DASH for name in ("mcnemar", "delong")),
        ]
        for row in comparisons
    ]
    head = ["comparison", "patients kept, %", "metric", "difference", "p", "p, Holm", "role"]
    singles = " and ".join(dict.fromkeys(row["secondary"]["of"] for row in comparisons))
    return [
        paragraph(
            f"McNemar's and DeLong's tests compare {singles}: they take images for independent and know nothing of "
            "seeds."
        ),
        table("Differences between arms", [*head, "McNemar, p", "DeLong, p"], rows),
    ]
