"""The section of the HTML report on what classifiers learn from generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from condgan.study.report_comparisons import comparisons_part
from condgan.study.report_figures import Mark, dot_chart, legend
from condgan.study.report_html import (
    DASH,
    Html,
    details,
    facts,
    interval,
    join,
    missing,
    number,
    paragraph,
    render,
    section,
    table,
)
from condgan.study.report_words import (
    METRIC_NAMES,
    Results,
    Row,
    arm_name,
    cells_of,
    intervals_name,
    metric_name,
    recall_class,
    recipes_of,
    seeds_of,
    size_of_test,
    summary_mark,
)

_TITLE = "What classifiers learn from the images"
_CONTROLS = "Without generated images (controls)"


def usefulness_section(results: Results) -> Html:
    """Return the section on all arms with all patients."""
    summaries = results.get("summaries", [])
    if not summaries:
        return section("usefulness", _TITLE, missing("No classifier has been tested."))
    full = max(summary["p"] for summary in summaries)
    shown = [summary for summary in summaries if summary["p"] == full]
    recalls = [metric for metric in _metrics(shown) if recall_class(metric)]
    chance = number(1 / len(results["data"]["class_names"]))
    return section(
        "usefulness",
        _TITLE,
        paragraph(
            "Each classifier is trained on one set of images and tested on the same real test images of other "
            "patients. All take equally many optimizer steps. The controls use no generated images: generated images "
            "are worth their trouble only where they beat the best control, not just the plain real images."
        ),
        details(
            "What the training sets are called in results.json",
            facts({arm_name(s["arm"]): render("<code>{arm}</code>", arm=s["arm"]) for s in shown}),
        ),
        join(_cautions(shown)),
        legend(recipes_of(results)),
        join(_chart(results, shown, metric) for metric in ("balanced_accuracy", "auroc")),
        render("<h3>Recall of each class</h3>"),
        paragraph("Recall is the share of a class's test images that are called by their right name."),
        render('<div class="beside">{charts}</div>', charts=join(_chart(results, shown, name) for name in recalls)),
        details(
            "All figures of the arms as a table",
            _arms_table(shown),
            paragraph(
                "Relative usefulness is (score - chance) / (score of the real images - chance), of balanced accuracy: "
                f"1 means as good as real images, 0 means nothing was learned. Chance is {chance}."
            ),
        ),
        comparisons_part(results),
        details("Every classifier by itself", _classifiers(results)),
    )


def _metrics(summaries: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(summary["metric"] for summary in summaries))


def _chart(results: Results, summaries: Sequence[Row], metric: str) -> Html:
    shown = [summary for summary in summaries if summary["metric"] == metric]
    if not shown:
        return missing(f"{metric_name(metric)} has not been measured.")
    controls = [summary for summary in shown if not summary["recipe"]]
    best = max(controls, key=lambda summary: summary["value"]) if len(controls) > 1 else None
    groups: dict[str, list[Mark]] = {}
    for recipe in dict.fromkeys([None] * bool(controls) + [summary["recipe"] for summary in shown]):
        own = [summary for summary in shown if summary["recipe"] == recipe]
        seeds = list(dict.fromkeys(map(seeds_of, own)))
        heading = ", ".join([recipe or _CONTROLS, *(seeds if len(seeds) == 1 else [])])
        notes = [[seeds_of(s)] * (len(seeds) > 1) + ["best control"] * (s is best) for s in own]
        groups[heading] = [summary_mark(results, s, ", ".join(note)) for s, note in zip(own, notes, strict=True)]
    guesses = {"auroc": 0.5, "macro_f1": None, "accuracy": None}
    chance = guesses.get(metric, 1 / len(results["data"]["class_names"]))
    return dot_chart(
        metric_name(metric),
        groups,
        caption=f"{size_of_test(shown)}. Marks: means over all seeds. Bars: {intervals_name(results)} over seeds and "
        "patients.",
        reference=None if chance is None else (chance, f"guessing, {number(chance)}"),
        limits=(0.0, 1.0),
    )


def _cautions(summaries: Sequence[Row]) -> list[Html]:
    once = dict.fromkeys(s["recipe"] for s in summaries if s["generator_seeds"] == 1)
    said = []
    if once:
        said.append(
            f"Trained once only: {', '.join(once)}. The intervals hold for these very generators and do not say how "
            "another training of the same recipe would do."
        )
    if any(s["classifier_seeds"] == 1 for s in summaries):
        said.append("Some arms have one classifier seed only: their intervals leave out the chance of its training.")
    return [render('<p class="caution">{text}</p>', text=text) for text in said]


def _arms_table(summaries: Sequence[Row]) -> Html:
    known = [metric for metric in METRIC_NAMES if metric in _metrics(summaries)]
    metrics = known + [metric for metric in _metrics(summaries) if metric not in known]
    arms: dict[tuple[str, str], dict[str, Row]] = {}
    for summary in summaries:
        arms.setdefault((summary["arm"], summary["recipe"] or DASH), {})[summary["metric"]] = summary
    rows = []
    for (arm, recipe), found in arms.items():
        relative = found.get("balanced_accuracy", {}).get("relative_usefulness")
        cells = [interval(found[metric]) if metric in found else DASH for metric in metrics]
        rows.append([arm_name(arm), recipe, *cells, number(relative), seeds_of(next(iter(found.values())))])
    head = ["training images", "recipe", *map(metric_name, metrics), "relative usefulness", "seeds"]
    return table(f"All arms, {size_of_test(summaries)}", head, rows)


def _classifiers(results: Results) -> Html:
    cells = cells_of(results, "classifier")
    names = ", ".join(results["data"]["class_names"])
    head = ["training images", "recipe", "generator seed", "classifier seed", "patients kept, %"]
    head += [*METRIC_NAMES.values(), f"recall ({names})", "confusion (a row a true class)", "seconds"]
    return table("Every classifier; intervals over patients only", head, map(_classifier_row, cells))


def _classifier_row(cell: Row) -> list[object]:
    metrics: Mapping[str, float] = cell["metrics"]
    intervals = cell["interval"]
    return [
        arm_name(cell["arm"]),
        cell["recipe"] or DASH,
        number(cell["seed"]),
        number(cell["classifier_seed"]),
        f"{cell['p']:g}",
        *(interval(intervals[name]) if name in intervals else number(metrics[name]) for name in METRIC_NAMES),
        ", ".join(map(number, cell["metrics"]["recall"])),
        "; ".join(" ".join(map(str, row)) for row in cell["confusion"]),
        number(cell["seconds"], 0),
    ]
