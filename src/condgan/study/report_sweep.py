"""The section of the HTML report on one class made rare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from condgan.study.report_figures import REFERENCE, Mark, legend, line_panel
from condgan.study.report_html import DASH, Html, details, interval, missing, number, paragraph, render, section, table
from condgan.study.report_words import (
    Results,
    Row,
    arm_name,
    cells_of,
    intervals_name,
    recall_class,
    recipes_of,
    size_of_test,
    summary_mark,
)

_TITLE = "When one class is rare"


def sweep_section(results: Results) -> Html:
    """Return the section on the imbalance sweep: recall of the reduced class against its patients."""
    summaries = results.get("summaries", [])
    percents = sorted({summary["p"] for summary in summaries})
    if len(percents) < 2:
        return section("sweep", _TITLE, missing("Not measured: no class was made rarer in this study."))
    rare = results["config"]["reduced_class"]
    shown = [summary for summary in summaries if recall_class(summary["metric"]) == rare]
    counts = {percent: _images_left(results, percent, rare) for percent in percents}
    plain = [summary for summary in shown if summary["arm"] == "real"]
    baseline = [_as_reference(point) for point in _points(results, plain)]
    others = dict.fromkeys(summary["arm"] for summary in shown if summary["arm"] != "real")
    panels = [
        line_panel(
            arm_name(arm),
            {
                **({arm_name("real"): baseline} if baseline else {}),
                **_lines(results, [summary for summary in shown if summary["arm"] == arm]),
            },
            counts,
        )
        for arm in others
    ] or [line_panel(arm_name("real"), _lines(results, plain), counts)]
    return section(
        "sweep",
        _TITLE,
        paragraph(
            f"Only a part of the patients of the class {rare} was kept for training; all other classes were left as "
            "they are. Who is kept at some percentage is kept at every larger one, and all recipes get the same "
            f"patients. The figures show the recall of {rare}, from 0 to 1, over the percentage of patients kept; "
            f"below it stands the number of their images. {size_of_test(shown)}. Bars: {intervals_name(results)} over "
            "seeds and patients."
        ),
        paragraph("The dashed line in every panel are the real images alone.") if baseline and others else "",
        legend(recipes_of(results)),
        render('<div class="beside panels">{panels}</div>', panels=Html("\n".join(panels))),
        details(
            "The sweep as a table",
            table(
                f"Recall of {rare}",
                ["training images", "recipe", "patients kept, %", "images of the class", "recall"],
                [
                    [arm_name(s["arm"]), s["recipe"] or DASH, f"{s['p']:g}", number(counts[s["p"]]), interval(s)]
                    for s in sorted(shown, key=lambda s: (s["recipe"] or "", s["arm"], -s["p"]))
                ],
            ),
        ),
    )


def _as_reference(point: tuple[float, Mark]) -> tuple[float, Mark]:
    return point[0], replace(point[1], series=REFERENCE)


def _lines(results: Results, summaries: Sequence[Row]) -> dict[str, list[tuple[float, Mark]]]:
    return {
        recipe or arm_name(summaries[0]["arm"]): _points(results, [s for s in summaries if s["recipe"] == recipe])
        for recipe in dict.fromkeys(summary["recipe"] for summary in summaries)
    }


def _points(results: Results, summaries: Sequence[Row]) -> list[tuple[float, Mark]]:
    return [(summary["p"], summary_mark(results, summary)) for summary in summaries]


def _images_left(results: Results, percent: float, rare: str) -> int | None:
    """Return how many real training images of the reduced class there are at a percentage."""
    label = results["data"]["class_names"].index(rare)
    cells = [cell for cell in cells_of(results, "classifier") if cell["p"] == percent]
    count: int | None = cells[0]["real_counts"][label] if cells else None
    return count
