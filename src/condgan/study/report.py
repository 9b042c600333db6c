"""The report of a study as one HTML file that needs no other file and no network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from condgan.study.report_fidelity import fidelity_section
from condgan.study.report_html import (
    Html,
    details,
    facts,
    join,
    missing,
    number,
    paragraph,
    picture,
    plural,
    render,
    section,
    table,
)
from condgan.study.report_judged import diversity_section
from condgan.study.report_memorization import copied, gan_folder, memorization_section
from condgan.study.report_sweep import sweep_section
from condgan.study.report_usefulness import usefulness_section
from condgan.study.report_words import Results, Row, cells_of

CANNOT_TELL = "cannot tell"

RESEARCH_ONLY = "For research only. Nothing in this report may be used to diagnose or treat anybody."

REAL, SAMPLES = "real.png", "samples.png"
"""Sheets of images, one row a class: real ones in the study's folder, generated ones in that of their generator."""

_CONTENTS = {
    "verdicts": "In short",
    "usefulness": "What classifiers learn",
    "sweep": "When one class is rare",
    "samples": "The images",
    "fidelity": "Nearness to real images",
    "diversity": "Variety",
    "memorization": "Privacy",
    "data": "Data",
    "reproduce": "How to reproduce",
}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="research">{research}</p>
{lead}
<nav aria-label="Contents"><ul>{contents}</ul></nav>
</header>
<main>
{sections}
</main>
</body>
</html>
"""


def write_report(results: Results, folder: str | os.PathLike[str], *, real_images: bool = True) -> Path:
    """Write `report.html` into the folder of a study: verdicts first, then what they rest on.

    The file holds its pictures and its style, loads nothing and runs no script. What has not been measured, and
    pictures that are missing, are said in their place.

    Args:
        results: The content of `results.json`.
        folder: The folder of the study, for its pictures.
        real_images: Whether to show real images, and their credit. Without them the report leaves out real samples and
            nearest neighbours, and also the samples of a generator that was found to copy its training images.

    Returns:
        The path of the file.

    Raises:
        ValueError: If the results are of another schema.
    """
    if results.get("schema") != 1:
        raise ValueError(
            f"results must be of schema 1, got {results.get('schema')!r}. Pass the content of results.json, written by "
            "this version."
        )
    folder = Path(folder)
    sections = [
        _verdicts(results),
        usefulness_section(results),
        sweep_section(results),
        _samples(results, folder, real_images=real_images),
        fidelity_section(results),
        diversity_section(results),
        memorization_section(results, folder, real_images=real_images),
        _data(results),
        _reproduce(results),
    ]
    page = render(
        _PAGE,
        title=results.get("what") or "A study of generated images",
        css=Html(Path(__file__).with_name("report.css").read_text(encoding="utf-8")),
        research=RESEARCH_ONLY,
        lead=_lead(results, real_images=real_images),
        contents=join((render('<li><a href="#{i}">{t}</a></li>', i=i, t=title) for i, title in _CONTENTS.items()), ""),
        sections=join(sections),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _lead(results: Results, *, real_images: bool) -> Html:
    data = results["data"]
    kinds = {"gan": "generator", "judge": "judged generator", "classifier": "classifier"}
    finished = ", ".join(plural(len(cells_of(results, kind)), what) for kind, what in kinds.items())
    planned = results.get("cells_planned")
    parts = [
        f"Data: {data['source']}, classes {', '.join(data['class_names'])}.",
        f"Images: {' x '.join(map(str, data['image_shape']))} (channels, height, width).",
        f"Finished: {finished}"
        + (f", {len(results['cells'])} of {planned} parts of the study." if planned is not None else "."),
    ]
    if not real_images:
        parts.append("Real images are left out of this report.")
    notice = render('<p class="notice">{notice}</p>', notice=data["notice"]) if data.get("notice") else ""
    return join([notice, paragraph(" ".join(parts))])


def _verdicts(results: Results) -> Html:
    verdicts = results.get("verdicts", [])
    if not verdicts:
        return section("verdicts", "In short", missing("No verdict yet: too little of the study is finished."))
    # the main question comes first and is never folded away
    undecided = [row for row in verdicts[1:] if row["answer"].startswith(CANNOT_TELL)]
    decided = [row for row in verdicts[1:] if row not in undecided]
    return section(
        "verdicts",
        "In short",
        _cards([*verdicts[:1], *decided]),
        details(f"What cannot be told ({plural(len(undecided), 'question')})", _cards(undecided)) if undecided else "",
    )


def _cards(verdicts: Sequence[Row]) -> Html:
    return render('<div class="verdicts">{said}</div>', said=join(map(_verdict, verdicts)))


def _verdict(verdict: Row) -> Html:
    """Return a verdict with the first sentence of its evidence, and the others on demand."""
    first, stop, others = verdict["evidence"].partition(". ")
    return render(
        '<article><h3>{question}</h3><p class="answer">{answer}</p><p class="evidence">{first}</p>{others}</article>',
        question=verdict["question"],
        answer=verdict["answer"],
        first=first + stop.rstrip(),
        others=details("What this rests on", paragraph(others)) if others else "",
    )


def _samples(results: Results, folder: Path, *, real_images: bool) -> Html:
    data = results["data"]
    names = data["class_names"]
    gans = cells_of(results, "gan")
    full = max((cell["p"] for cell in gans), default=None)
    shown = [cell for cell in gans if cell["p"] == full]
    real: list[Html] = []
    if real_images:
        caption = f"Real training images, one row a class. {data.get('attribution') or ''}"
        real = [picture(folder / REAL, f"Real images of {', '.join(names)}", caption, rows=names)]
    first = [cell for cell in shown if cell["seed"] == min(other["seed"] for other in shown)]
    others = [cell for cell in shown if cell not in first]
    pictures = {cell["name"]: _samples_of(results, folder, cell, real_images=real_images) for cell in shown}
    more = [render('<div class="beside">{rest}</div>', rest=join(pictures[cell["name"]] for cell in others))]
    return section(
        "samples",
        "The images",
        paragraph("The first images that each generator made of each class, not selected."),
        "" if real_images else missing("Real images are left out of this report."),
        "" if shown else missing("No generator has been trained."),
        render('<div class="beside">{all}</div>', all=join([*real, *(pictures[cell["name"]] for cell in first)])),
        details("The other seeds", *more) if others else "",
    )


def _samples_of(results: Results, folder: Path, cell: Row, *, real_images: bool) -> Html:
    who, names = f"{cell['recipe']}, seed {cell['seed']}", results["data"]["class_names"]
    copies = copied(results, cell["recipe"], cell["seed"])
    if copies and not real_images:
        return missing(
            f"{who}: left out, because images of {', '.join(copies)} were found to be copies of real training images."
        )
    caption = f"Generated by {who}."
    if copies is None:
        caption += " Nobody has tested whether these are copies of training images."
    return picture(
        gan_folder(folder, cell) / SAMPLES, f"Images of {', '.join(names)} generated by {who}", caption, rows=names
    )


def _data(results: Results) -> Html:
    data = results["data"]
    names = data["class_names"]
    rows = [
        [part, sum(counts), *counts, data["patients"][part] or "unknown", data["fingerprints"][part]]
        for part, counts in data["counts"].items()
    ]
    removed = {
        "Repeated training images": data.get("duplicates_removed"),
        "Images that repeat one of the validation or test set": data.get("repeats_of_other_sets_removed"),
    }
    said = "; ".join(f"{what}: {count}" for what, count in removed.items() if count is not None)
    return section(
        "data",
        "Data",
        table("Images and patients after removal", ["part", "images", *names, "patients", "fingerprint"], rows),
        paragraph(f"Removed before anything else. {said}.") if said else "",
        *(render('<p class="caution">{note}</p>', note=note) for note in data.get("notes", [])),
        paragraph(f"Credit: {data['attribution']}") if data.get("attribution") else "",
    )


def _reproduce(results: Results) -> Html:
    uses = results.get("test_evaluations") or {}
    versions = results.get("versions") or {}
    about = {
        "Command": render("<code>{command}</code>", command=results["command"]) if results.get("command") else None,
        "Commit": results.get("commit"),
        "Device": results.get("device"),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    config = json.dumps(results.get("config", {}), indent=1, ensure_ascii=False)
    return section(
        "reproduce",
        "How to reproduce",
        facts({name: what for name, what in about.items() if what}),
        details("Configuration (config.json)", render("<pre>{config}</pre>", config=config)),
        paragraph(
            "Every figure of this report, with seeds, settings and standard errors, is in results.json beside it. "
            "A finished part of a study is never computed again: the same command in the same folder goes on where it "
            "stopped."
        ),
        render("<h3>Uses of the test set</h3>"),
        paragraph(
            "How often the test images were looked at, by what was tested. Epochs and thresholds were chosen on others."
        ),
        table("Uses of the test set", ["tested", "times"], [[name, number(count)] for name, count in uses.items()])
        if uses
        else missing("The test set has not been used."),
    )
