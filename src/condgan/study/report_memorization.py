"""The section of the HTML report on copies of training images and on privacy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condgan.study.cells import Cell
from condgan.study.report_html import (
    DASH,
    Html,
    details,
    interval,
    join,
    missing,
    number,
    p_value,
    paragraph,
    picture,
    render,
    section,
    table,
)
from condgan.study.report_judged import badge, grounds, judged, nothing_judged, unanswered, who
from condgan.study.report_words import Results, Row

NEIGHBORS = "neighbors.png"
"""Picture of suspicious generated images and their nearest training images, in the folder of a generator."""

COPIES = "copies training images"
"""The verdict on a class after which its generated images are no longer anybody's to share."""


def memorization_section(results: Results, folder: Path, *, real_images: bool) -> Html:
    """Return the section on copies of training images and on privacy."""
    title = "Whether training images or patients shine through"
    cells = judged(results, "memorization")
    if not cells:
        return nothing_judged(results, "memorization", title)
    verdicts, rows, pictures = [], [], []
    for cell in cells:
        for name, entry in cell["memorization"]["per_class"].items():
            verdicts.append(
                render(
                    "<li><b>{who}, {name}:</b> {verdict} <small>{why}</small></li>",
                    who=who(cell),
                    name=name,
                    verdict=badge(entry["verdict"], bad=_is_bad(entry["verdict"])),
                    why=entry["explanation"],
                )
            )
            rows.append([f"{who(cell)}: {name}", *_memorization_row(entry)])
        if real_images:
            caption = (
                f"{who(cell)}: in each row first a generated image, then the training images nearest to it. Shown are "
                f"the images that stand out most, not typical ones. {results['data'].get('attribution') or ''}"
            )
            pictures.append(picture(gan_folder(folder, cell) / NEIGHBORS, _neighbors_alt(cell), caption, width=280))
    head = ["class", "stand out / expected / of", "p", "smallest share of copies found", "C_T (p)"]
    head += ["authentic, generated", "authentic, held out", "attack, AUROC", "its control", "shift, AUROC"]
    head += ["images generated / training / held out", "patients training / held out"]
    removed = "; ".join(
        f"{who(cell)}: {found.get('exact', 0)} exact and {found.get('near', 0)} near duplicates in the training set"
        for cell in cells
        if (found := cell["memorization"].get("duplicates"))
    )
    return section(
        "memorization",
        title,
        paragraph(
            "Generated images are compared with the images the generator was trained on, and so are real images of "
            "patients it has never seen. It copies where more of its images stand out as near one training image than "
            "those of unseen patients do. No sign of copying is no proof of privacy."
        ),
        render('<ul class="findings">{verdicts}</ul>', verdicts=join(verdicts)),
        unanswered(results, "memorization"),
        render("<h3>Nearest training images</h3>"),
        render('<div class="beside panels">{pictures}</div>', pictures=join(pictures))
        if real_images
        else missing("Left out of this report, because they show real patients."),
        details(
            "Figures of every class",
            table("Memorization", head, rows),
            paragraph(
                f"{grounds(cells, 'memorization')} Removed first: {removed or 'nothing'}. C_T is below 0 where "
                "generated images lie nearer to the training images than held-out ones; smooth images do so too, so it "
                "does not decide. The attack guesses who was trained on; 0.5 is chance; so should its control be."
            ),
        ),
    )


def copied(results: Results, recipe: str, seed: int) -> list[str] | None:
    """Return the classes of a generator that were found to be copied, or None if nobody has looked."""
    cells = [c for c in judged(results, "memorization") if c["recipe"] == recipe and c["seed"] == seed]
    if not cells:
        return None
    return [name for c in cells for name, entry in c["memorization"]["per_class"].items() if entry["verdict"] == COPIES]


def gan_folder(folder: Path, cell: Row) -> Path:
    """Return the folder of the generator that a cell trained or judged."""
    gan = Cell(kind="gan", entry=cell["recipe"], seed=cell["seed"], percent=cell["p"])
    return folder / "gans" / gan.name


def _memorization_row(entry: Mapping[str, Any]) -> list[object]:
    copies, test, attack = entry["copies"], entry.get("c_t"), entry["membership"]
    return [
        f"{copies['count']} / {number(copies['expected'], 1)} / {copies['generated']}",
        p_value(copies["p_value"]),
        number(copies["detectable"]),
        f"{number(test['value'], 2)} ({p_value(test['p_value'])})" if test else DASH,
        interval(entry["authenticity"]),
        interval(entry["authenticity_held_out"]),
        interval(attack["auroc"]),
        interval(attack["control"]),
        interval(entry["shift"]),
        " / ".join(map(str, entry["images"])),
        " / ".join(map(str, entry["patients"])),
    ]


def _is_bad(verdict: str) -> bool | None:
    return None if verdict.startswith("cannot tell") else not verdict.startswith("no sign")


def _neighbors_alt(cell: Row) -> str:
    return f"Generated images of {who(cell)} and their nearest training images"
