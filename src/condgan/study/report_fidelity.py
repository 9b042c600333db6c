"""The section of the HTML report on how near generated images come to real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from condgan.study.report_figures import Mark, dot_chart, legend
from condgan.study.report_html import (
    DASH,
    Html,
    details,
    interval,
    join,
    missing,
    paragraph,
    percent_intervals,
    render,
    section,
    significant,
    table,
)
from condgan.study.report_judged import grounds, judged, nothing_judged, unanswered, who
from condgan.study.report_words import Results, Row, recipes_of, series_of

_SCORES = {
    "kid": "KID",
    "fid": "FID",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "inception_score": "Inception Score",
}


def fidelity_section(results: Results) -> Html:
    """Return the section on how near generated images come to real ones."""
    title = "How near the images come to real ones"
    cells = judged(results, "fidelity")
    if not cells:
        return nothing_judged(results, "fidelity", title)
    groups: dict[str, list[Mark]] = {}
    for cell in cells:
        for name, scores in _scopes(cell["fidelity"]):
            if "kid" in scores:
                found = scores["kid"]
                change = found["difference"]
                series = series_of(results, cell["recipe"])
                mark = Mark(who(cell), change["value"], change["low"], change["high"], series, _images(found))
                groups.setdefault(name, []).append(mark)
    level = next((f["difference"]["level"] for c in cells for _, s in _scopes(c["fidelity"]) for f in s.values()), None)
    subsets = " ".join(dict.fromkeys(_subsets(cell["fidelity"]) for cell in cells))
    chart = missing("The KID has not been measured.")
    if groups:
        chart = dot_chart(
            "KID of generated images, less that of real training images",
            groups,
            caption=f"Left is better. Bars: {percent_intervals(level)} over images and patients, for these very "
            f"generators. {grounds(cells, 'fidelity')} {subsets}",
            reference=(0.0, "as near to the test images as real training images are"),
            show=significant,
        )
    return section(
        "fidelity",
        title,
        paragraph(
            "The Kernel Inception Distance (KID) measures how far two sets of images are apart in the features of a "
            "network; 0 means not at all. Real training images are not at 0 from real test images either, so each "
            "figure is taken less theirs: that is the level which a perfect generator would reach."
        ),
        render("<ul>{lines}</ul>", lines=join(render("<li>{text}</li>", text=_finding(cell)) for cell in cells)),
        legend(recipes_of(results), controls=False),
        chart,
        unanswered(results, "fidelity"),
        *[details(f"All scores: {who(cell)}", _scores(cell["fidelity"])) for cell in cells],
        join(_gan_tests(results)),
    )


def _scopes(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [*report["per_class"].items(), ("All classes together", report["overall"])]


def _subsets(report: Mapping[str, Any]) -> str:
    sizes = [scores["kid"]["generated"]["settings"]["subset_size"] for _, scores in _scopes(report) if "kid" in scores]
    return f"KID subsets, in the order of the classes: {', '.join(map(str, sizes))} images."


def _images(comparison: Mapping[str, Any]) -> str:
    fake, real = comparison["generated"], comparison["floor"]
    return f"{fake['samples']} generated and {real['samples']} training against {fake['reference_samples']} test images"


def _finding(cell: Row) -> str:
    scores = {n: s["kid"]["difference"] for n, s in cell["fidelity"].get("per_class", {}).items() if "kid" in s}
    above = [name for name, change in scores.items() if change["low"] > 0]
    open_ = [name for name in scores if name not in above]
    said = []
    if above:
        said.append(f"farther from the real test images than real training images are: {', '.join(above)}")
    if open_:
        said.append(f"not distinguishable from that, or nearer: {', '.join(open_)}")
    return f"{who(cell)}: {'; '.join(said) or 'no class has a KID'}."


def _scores(report: Mapping[str, Any]) -> Html:
    named = [
        (f"{scope}: {_SCORES.get(name, name)}", found)
        for scope, scores in _scopes(report)
        for name, found in scores.items()
    ]
    notes: dict[str, list[str]] = {}
    for name, found in named:
        for note in found["generated"]["notes"]:
            notes.setdefault(note, []).append(name)
    head = ["score", "generated", "real training images", "difference", "images generated", "training", "test"]
    settings = json.dumps(report.get("settings", {}), indent=1, ensure_ascii=False)
    return join(
        [
            table("Scores against the real test images", head, (_score(*entry) for entry in named)),
            join(paragraph(f"{note[:1].upper()}{note[1:]} ({'; '.join(names)}).") for note, names in notes.items()),
            details("Settings of the measurement", render("<pre>{text}</pre>", text=settings)),
        ]
    )


def _score(name: str, found: Mapping[str, Any]) -> list[object]:
    fake, real, change = found["generated"], found["floor"], found["difference"]
    return [
        name,
        significant(fake["value"]),
        significant(real["value"]),
        f"{significant(change['value'])} [{significant(change['low'])}, {significant(change['high'])}]",
        fake["samples"],
        real["samples"],
        DASH if fake["reference_samples"] is None else fake["reference_samples"],
    ]


def _gan_tests(results: Results) -> list[Html]:
    cells = judged(results, "gan_test")
    if not cells:
        return []
    rows = [
        [f"{who(cell)}: {name}", interval(recall)]
        for cell in cells
        for name, recall in cell["gan_test"]["recall"].items()
    ]
    return [
        render("<h3>What a classifier of real images sees in them</h3>"),
        table(
            "GAN-test: share of the generated images called by the class they were made for", ["class", "recall"], rows
        ),
    ]
