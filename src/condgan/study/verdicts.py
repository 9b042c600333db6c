"""What the figures of a study say, in sentences that claim no more than their intervals bear.

Every verdict follows from a rule that is stated here and in the verdict's evidence. A verdict on recipes, rather than
on single networks, asks for at least three generator seeds, and for at least three classifiers of each control: with
one an interval knows nothing of another training, and with two it is too narrow (see `condgan.metrics.seeds`). The
seeds of classifiers behind several generators are part of the spread between these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from condgan.study.arms import CONTROLS
from condgan.study.cells import make_cells
from condgan.study.summaries import Outcomes, chance_of, focus_class, is_synthetic_only

Row = Mapping[str, Any]

_METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
}
_COPIES = "copies training images"
_RECOGNIZED = "training patients can be recognized"
CANNOT_TELL = "cannot tell"
_LEAST_SEEDS = 3


def verdicts(
    outcomes: Outcomes,
    cells: Sequence[Row],
    summaries: Sequence[Row],
    comparisons: Sequence[Row],
    counts: Sequence[int],
) -> list[dict[str, str]]:
    """Answer the questions of a study.

    Args:
        outcomes: Configuration and classes.
        cells: All finished cells.
        summaries: What `summarize_arms` returned.
        comparisons: What `compare_arms` returned.
        counts: Numbers of the real training images of each class.

    Returns:
        Verdicts with `question`, `answer` and `evidence`, the most important first.
    """
    config = outcomes.config
    full = config.full_percent
    rare = focus_class(config, outcomes.class_names, counts)
    primary = [row for row in comparisons if row["primary"]]
    of_rare = [row for row in comparisons if row["family"] == "rare" and row["a"]["p"] == full]
    between = [row for row in comparisons if row["family"] == "recipes" and row["a"]["p"] == full]
    sweep = [row for row in comparisons if row["family"] == "rare" and row["a"]["p"] != full]
    controls = [arm for arm in CONTROLS if any(row["arm"] == arm and row["p"] == full for row in summaries)]
    metric = _METRICS[config.primary_metric]
    return [
        *_against(f"Do generated images help, by {metric}?", primary, _control_rule(controls)),
        *_alone(outcomes, [row for row in summaries if row["p"] == full]),
        *[
            verdict
            for recipe in config.recipes
            for verdict in _against(
                f"Do the images of {recipe} raise the recall of {rare}?",
                [row for row in of_rare if row["a"]["recipe"] == recipe],
                "Compared with the arm named last. Recall alone can be bought with errors on other classes.",
            )
        ],
        *[
            verdict
            for p in dict.fromkeys(row["a"]["p"] for row in sweep)
            for verdict in _against(
                f"With {p:g} % of the patients of {rare}: do generated images raise its recall?",
                [row for row in sweep if row["a"]["p"] == p],
                "Compared with the arm named last.",
            )
        ],
        *[_between(row, metric) for row in between],
        *_judged(cells, config.recipes),
        *_failed(cells),
        *_unfinished(outcomes, cells),
    ]


def _control_rule(controls: Sequence[str]) -> str:
    missing = [arm for arm in CONTROLS if arm not in controls]
    rule = f"The controls are {', '.join(controls)}; the best of them by the same score counts."
    return rule + (f" Not run: {', '.join(missing)}." if missing else "")


def _against(question: str, rows: Sequence[Row], rule: str) -> list[dict[str, str]]:
    """Answer with a family of comparisons: help, no help, or neither for sure."""
    if not rows:
        return []
    best = max(rows, key=lambda row: (row["p_holm"] < _alpha(row) and row["difference"] > 0, row["difference"]))
    if not all(_has_seeds(row) for row in rows):
        answer = f"{CANNOT_TELL}: fewer than three seeds"
    elif best["p_holm"] < _alpha(best) and best["difference"] > 0:
        answer = "yes"
    elif all(row["simultaneous"]["high"] <= 0 for row in rows):
        answer = "no"
    else:
        answer = CANNOT_TELL
    told = (
        f"Yes is said where a difference is above 0 with a Holm-corrected p below {_alpha(best):.2g}, no where all "
        f"simultaneous intervals of {len(rows)} arm{'s' * (len(rows) > 1)} end at or below 0, and neither with fewer "
        "than three seeds."
    )
    return [_verdict(question, answer, f"Best arm: {_compared(best)}. {rule} {told}")]


def _alone(outcomes: Outcomes, summaries: Sequence[Row]) -> list[dict[str, str]]:
    """Say of each recipe whether its images alone teach the classes."""
    metric = outcomes.config.primary_metric
    chance = chance_of(metric, len(outcomes.class_names))
    real = next((r for r in summaries if r["arm"] == "real" and r["metric"] == metric), None)
    found = []
    for recipe in outcomes.config.recipes:
        rows = [r for r in summaries if r["recipe"] == recipe and r["metric"] == metric and is_synthetic_only(r["arm"])]
        if not rows or chance is None:
            continue
        row = rows[0]
        if row["low"] > chance:
            answer = "yes"
        elif row["high"] < chance:
            answer = "no: it does worse than guessing"
        else:
            answer = "not distinguishable from guessing"
        if row["generator_seeds"] < _LEAST_SEEDS:
            answer += f", for {row['generator_seeds']} generator seed{'s' * (row['generator_seeds'] > 1)} only"
        evidence = f"{_METRICS[metric]} of {row['arm']}: {_estimate(row)}; guessing: {chance:.3f}"
        if real is not None:
            evidence += f"; real images: {_estimate(real)}"
        if row["relative_usefulness"] is not None:
            evidence += f"; relative usefulness: {row['relative_usefulness']:.2f}"
        question = f"Does a classifier learn the classes from images of {recipe} alone?"
        found.append(_verdict(question, answer, evidence + ". Yes is said where the interval lies above guessing."))
    return found


def _between(row: Row, metric: str) -> dict[str, str]:
    a, b = row["a"]["recipe"], row["b"]["recipe"]
    if not _has_seeds(row):
        answer = f"{CANNOT_TELL}: fewer than three seeds"
    elif row["p_holm"] >= _alpha(row):
        answer = CANNOT_TELL
    else:
        answer = a if row["difference"] > 0 else b
    rule = f"A recipe is named where the Holm-corrected p is below {_alpha(row):.2g}; seeds count as chance."
    evidence = f"{_compared(row)}. {rule}"
    return _verdict(f"Which images teach more, alone and by {metric}: {a} or {b}?", answer, evidence)


def _judged(cells: Sequence[Row], recipes: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    for recipe in recipes:
        judged = [
            cell for cell in cells if cell["kind"] == "judge" and cell["recipe"] == recipe and "error" not in cell
        ]
        if not judged:
            continue
        found += _copies(recipe, judged) + _collapse(recipe, judged)
    return found


def _copies(recipe: str, judged: Sequence[Row]) -> list[dict[str, str]]:
    question = f"Do the images of {recipe} repeat training images or give patients away?"
    said = [
        (cell["seed"], name, entry["verdict"])
        for cell in judged
        if cell["memorization"] is not None
        for name, entry in cell["memorization"]["per_class"].items()
    ]
    if not said:
        return [_verdict(question, CANNOT_TELL, _refusal(judged, "memorization"))]
    kinds = {verdict for _, _, verdict in said}
    signs = [kind for kind in (_COPIES, _RECOGNIZED) if kind in kinds]
    if signs:
        answer = "yes: it " + signs[0] if signs[0] == _COPIES else "yes: " + signs[0]
    else:
        answer = next((kind for kind in sorted(kinds) if kind.startswith(CANNOT_TELL)), "no sign of it")
    said.sort(key=lambda found: found[2] not in signs)  # what the answer rests on comes first
    listed = "; ".join(f"seed {seed}, {name}: {verdict}" for seed, name, verdict in said)
    return [_verdict(question, answer, f"{listed}. The gravest finding counts. No sign is no proof of privacy.")]


def _collapse(recipe: str, judged: Sequence[Row]) -> list[dict[str, str]]:
    question = f"Has {recipe} collapsed onto few images of a class?"
    known = [cell for cell in judged if cell["diversity"] is not None]
    if not known:
        return [_verdict(question, CANNOT_TELL, _refusal(judged, "diversity"))]
    classes = [(cell["seed"], name, entry) for cell in known for name, entry in cell["diversity"]["per_class"].items()]
    collapsed: dict[int, list[str]] = {}
    for seed, name, entry in classes:
        if entry["collapsed"]:
            collapsed.setdefault(seed, []).append(name)
    told = "; ".join(f"seed {seed} ({', '.join(names)})" for seed, names in collapsed.items())
    answer = f"yes: {told}" if collapsed else "no"
    classes.sort(key=lambda found: not found[2]["collapsed"])  # what the answer rests on comes first
    listed = " ".join(f"Seed {seed}, {name}: {entry['explanation']}" for seed, name, entry in classes)
    return [_verdict(question, answer, listed)]


def _refusal(judged: Sequence[Row], what: str) -> str:
    return " ".join(dict.fromkeys(cell["refused"][what] for cell in judged))


def _failed(cells: Sequence[Row]) -> list[dict[str, str]]:
    failed = [cell for cell in cells if "error" in cell]
    if not failed:
        return []
    listed = "; ".join(f"{cell['name']}: {cell['error']}" for cell in failed)
    return [_verdict("Did every training end well?", f"no: {len(failed)} diverged", f"{listed}. They are in no score.")]


def _unfinished(outcomes: Outcomes, cells: Sequence[Row]) -> list[dict[str, str]]:
    planned = len(make_cells(outcomes.config))
    if len(cells) == planned:
        return []
    evidence = f"{len(cells)} of {planned} cells are finished; all that is said above may change."
    return [_verdict("Is the study finished?", "no", evidence)]


def _verdict(question: str, answer: str, evidence: str) -> dict[str, str]:
    return {"question": question, "answer": answer, "evidence": evidence}


def _alpha(row: Row) -> float:
    level: float = row["level"]
    return 1 - level


def _has_seeds(row: Row) -> bool:
    """Return whether the outermost seeds of both arms were varied enough."""
    outermost = ("classifier" if row[side]["recipe"] is None else "generator" for side in ("a", "b"))
    return all(row["seeds"][side][kind] >= _LEAST_SEEDS for side, kind in zip(("a", "b"), outermost, strict=True))


def _compared(row: Row) -> str:
    a, b = (f"{side['recipe']}: {side['arm']}" if side["recipe"] else side["arm"] for side in (row["a"], row["b"]))
    return (
        f"{a} less {b}: {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], Holm-corrected p "
        f"{row['p_holm']:.2g}"
    )


def _estimate(row: Row) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
