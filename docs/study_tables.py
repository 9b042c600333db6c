"""Tables of the results of a study, from the content of its `results.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from page_parts import markdown_table, plain

from condgan.study.report_html import DASH, interval, number, p_value, significant
from condgan.study.report_words import METRIC_NAMES, Results, Row, cells_of, metric_name, recall_class, side_name

Arm = tuple[str | None, str]
"""Recipe (None for arms without generated images) and name of an arm."""

MAIN = ("balanced_accuracy", "auroc", "accuracy")


def full_percent(results: Results) -> float | None:
    """Return the percentage of the main study, or None where nothing has been tested."""
    return max((row["p"] for row in results.get("summaries", [])), default=None)


def arms_of(results: Results, percent: float | None = None) -> dict[Arm, dict[str, Row]]:
    """Return the summaries of each arm by metric, by default of the main study."""
    percent = full_percent(results) if percent is None else percent
    found: dict[Arm, dict[str, Row]] = {}
    for row in results.get("summaries", []):
        if row["p"] == percent:
            found.setdefault((row["recipe"], row["arm"]), {})[row["metric"]] = row
    return found


def name_of(arm: Arm) -> str:
    """Return the name of an arm for readers."""
    return side_name({"recipe": arm[0], "arm": arm[1]})


def table_of_arms(
    results: Results, percent: float | None = None, *, metrics: Sequence[str] = MAIN, only: Iterable[Arm] | None = None
) -> str:
    """Return what classifiers learn from the images of each arm.

    Args:
        results: The content of `results.json`.
        percent: Percentage of the patients of the reduced class; by default that of the main study.
        metrics: Metrics to show, before the recall of each class.
        only: The arms to show, by default all.
    """
    arms = arms_of(results, percent)
    shown = {arm: arms[arm] for arm in (arms if only is None else only)}
    recalls = dict.fromkeys(metric for found in shown.values() for metric in found if recall_class(metric))
    columns = [*metrics, *recalls]
    head = ["training images", "number", "seeds", *map(metric_name, columns), "relative usefulness"]
    rows = []
    for arm, found in shown.items():
        relative = found.get("balanced_accuracy", {}).get("relative_usefulness")
        cells = [interval(found[metric]) if metric in found else DASH for metric in columns]
        count = _images(results, arm, next(iter(found.values()))["p"])
        rows.append([plain(name_of(arm)), count, _seeds(next(iter(found.values()))), *cells, number(relative, 2)])
    return markdown_table([plain(name) for name in head], rows)


def table_at_threshold(results: Results) -> str:
    """Return the scores at the thresholds chosen on validation images, over all classifiers; empty without any."""
    found: dict[Arm, list[Row]] = {}
    for cell in cells_of(results, "classifier"):
        if cell.get("at_threshold") and cell["p"] == full_percent(results):
            found.setdefault((cell["recipe"], cell["arm"]), []).append(cell["at_threshold"])
    if not found:
        return ""
    scores: dict[str, Callable[[Row], float]] = {
        "threshold": lambda entry: float(entry["threshold"]),
        **{METRIC_NAMES[name]: _value_of(name) for name in ("balanced_accuracy", "accuracy")},
        **{metric_name(f"recall/{name}"): _recall_of(name) for name in results["data"]["class_names"]},
    }
    rows = [
        [
            plain(name_of(arm)),
            str(len(entries)),
            *(spread(list(map(score, entries))) for score in scores.values()),
        ]
        for arm, entries in found.items()
    ]
    return markdown_table(["training images", "classifiers", *map(plain, scores)], rows)


def table_of_comparisons(rows: Iterable[Row]) -> str:
    """Return differences between arms."""
    lines = []
    for row in rows:
        together = row.get("simultaneous") or {}
        lines.append(
            [
                plain(side_name(row["a"])),
                plain(side_name(row["b"])),
                plain(metric_name(row["metric"])),
                difference(row),
                f"[{signed(together['low'])}, {signed(together['high'])}]" if together else DASH,
                plain(p_value(row.get("p_holm"))),
            ]
        )
    return markdown_table(["images", "less", "metric", "difference", "interval of all together", "p, Holm"], lines)


def table_of_judged(results: Results) -> str:
    """Return what was found in the images of each recipe, class by class, over its generators; empty without any."""
    judged = cells_of(results, "judge")
    rows = []
    for recipe in dict.fromkeys(cell["recipe"] for cell in judged):
        own = [cell for cell in judged if cell["recipe"] == recipe]
        for name in results["data"]["class_names"]:
            rows.append([plain(f"{recipe}: {name}"), str(len(own)), *_judged(own, name)])
    head = ["images", "generators", "KID", "KID, real", "farther", "coverage", "coverage, real"]
    head += ["recognized", "collapsed", "copies"]
    return markdown_table(head, rows) if rows else ""


def table_of_data(results: Results) -> str:
    """Return numbers of images and patients."""
    data = results["data"]
    rows = [
        [part, str(sum(counts)), number(data["patients"][part]), *map(str, counts)]
        for part, counts in data["counts"].items()
    ]
    return markdown_table(["", "images", "patients", *map(plain, data["class_names"])], rows)


def signed(value: float | None) -> str:
    """Return a difference as it is shown, a dash for none.

    Examples:
        >>> signed(0.0123), signed(None)
        ('+0.012', '\u2013')
    """
    return DASH if value is None else f"{value:+.3f}"


def difference(row: Row) -> str:
    """Return the difference of a comparison with its interval."""
    return f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]"


def spread(values: Sequence[float], show: Callable[[float], str] = number) -> str:
    """Return the mean of values and, where they differ, the lowest and the highest.

    Examples:
        >>> spread([0.5, 0.5]), spread([0.5, 0.7]), spread([])
        ('0.500', '0.600 (0.500 to 0.700)', '\u2013')
    """
    if not values:
        return DASH
    mean, low, high = show(sum(values) / len(values)), show(min(values)), show(max(values))
    return mean if low == high else f"{mean} ({low} to {high})"


def _judged(cells: Sequence[Row], name: str) -> list[str]:
    fidelity = [cell["fidelity"]["per_class"].get(name, {}) for cell in cells if cell.get("fidelity")]
    kids = [scores["kid"] for scores in fidelity if "kid" in scores]
    covered = [scores["coverage"] for scores in fidelity if "coverage" in scores]
    diversity = [cell["diversity"]["per_class"][name] for cell in cells if cell.get("diversity")]
    copies = [cell["memorization"]["per_class"][name]["verdict"] for cell in cells if cell.get("memorization")]
    seen = [cell["gan_test"]["recall"][name]["value"] for cell in cells if cell.get("gan_test")]
    return [
        spread([kid["generated"]["value"] for kid in kids], significant),
        spread([kid["floor"]["value"] for kid in kids], significant),
        _share([kid["difference"]["low"] > 0 for kid in kids]),
        spread([found["generated"]["value"] for found in covered]),
        spread([found["floor"]["value"] for found in covered]),
        spread(seen),
        _share([found["collapsed"] for found in diversity]),
        "; ".join(f"{plain(verdict)} ({count})" for verdict, count in Counter(copies).items()) or DASH,
    ]


def _share(found: Sequence[bool]) -> str:
    return f"{sum(found)} of {len(found)}" if found else DASH


def _images(results: Results, arm: Arm, percent: float) -> str:
    cells = [cell for cell in cells_of(results, "classifier") if (cell["recipe"], cell["arm"]) == arm]
    counts = dict.fromkeys(str(sum(cell["train_counts"])) for cell in cells if cell["p"] == percent)
    return " or ".join(counts) or DASH


def _seeds(row: Mapping[str, int]) -> str:
    classifiers = str(row["classifier_seeds"])
    return f"{row['generator_seeds']} x {classifiers}" if row["generator_seeds"] else classifiers


def _value_of(metric: str) -> Callable[[Row], float]:
    return lambda entry: float(entry[metric]["value"])


def _recall_of(name: str) -> Callable[[Row], float]:
    return lambda entry: float(entry["recall"][name]["value"])
