"""What the sections of the HTML report on images share, and the one on diversity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from condgan.study.report_html import Html, details, join, missing, paragraph, render, section, significant, table
from condgan.study.report_words import Results, Row, cells_of


def diversity_section(results: Results) -> Html:
    """Return the section on how different generated images of a class are from each other."""
    title = "How varied the images of a class are"
    cells = judged(results, "diversity")
    if not cells:
        return nothing_judged(results, "diversity", title)
    rows, said = [], []
    for cell in cells:
        for name, entry in cell["diversity"]["per_class"].items():
            fake, real = entry["generated"], entry["real"]
            pairs = [_with_error(side[key]) for key in ("ms_ssim", "distance", "nearest") for side in (fake, real)]
            sizes = [f"{side['images']} / {side['groups']} / {side['pairs']}" for side in (fake, real)]
            verdict = "collapsed" if entry["collapsed"] else "not collapsed"
            rows.append([f"{who(cell)}: {name}", badge(verdict, bad=entry["collapsed"]), *pairs, *sizes])
            said.append((f"{who(cell)}, {name}: ", entry["explanation"], entry["collapsed"]))
    collapsed = [(whose, text) for whose, text, found in said if found]
    verdicts = _list(collapsed) if collapsed else paragraph("No class was found to have collapsed onto few images.")
    sides = [f"{what}, {side}" for what in ("MS-SSIM", "distance", "nearest") for side in ("generated", "real")]
    sizes = [f"images / patients / pairs, {side}" for side in ("generated", "real")]
    return section(
        "diversity",
        title,
        paragraph(
            "A generator that shows the same few images again and again has collapsed, however real each one looks. "
            "Pairs of its images are then more alike than pairs of real images of different patients."
        ),
        verdicts,
        unanswered(results, "diversity"),
        details(
            "Figures of every class",
            table("Diversity, mean ± standard error", ["class", "verdict", *sides, *sizes], rows),
            paragraph(
                "MS-SSIM is the similarity of a pair of images (1: equal). Distances are between features, of pairs "
                f"and to the nearest image of another patient. {grounds(cells, 'diversity')}"
            ),
            _list((whose, text) for whose, text, _ in said),
        ),
    )


def judged(results: Results, part: str) -> list[Row]:
    """Return the cells in which a generator's images were judged in some respect."""
    return [cell for cell in cells_of(results, "judge") if cell.get(part)]


def unanswered(results: Results, part: str) -> Html:
    """Say which generators could not be judged in some respect, and why."""
    refused = [(cell, cell.get("refused", {}).get(part)) for cell in cells_of(results, "judge")]
    return join(missing(f"{who(cell)}: not measured. {why}") for cell, why in refused if why)


def nothing_judged(results: Results, part: str, title: str) -> Html:
    """Return a section that says why it is empty."""
    why = unanswered(results, part)
    return section(part, title, why or missing("Not measured: no generator has been judged."))


def who(cell: Row) -> str:
    """Return the name of a generator for readers."""
    return f"{cell['recipe']}, seed {cell['seed']}"


def grounds(cells: Iterable[Row], part: str) -> str:
    """Say what features the figures were measured on, and with which seeds."""
    said: dict[str, None] = {}
    for cell in cells:
        extractor, settings = cell[part].get("extractor") or {}, cell[part].get("settings") or {}
        text = f"Features: {extractor.get('name', 'unknown')}"
        text += f", weights {extractor.get('weights_hash', 'unknown')}, resize: {extractor.get('resize', 'unknown')}"
        if (folds := settings.get("folds", 1)) > 1:
            text += f", cross-fitted in {folds} folds of patients"
        text += f"; seed of the measurement {settings.get('seed', 'unknown')}"
        said[text + "."] = None
    return " ".join(said)


def badge(text: str, *, bad: bool | None) -> Html:
    """Return a short verdict; None is for one that is open."""
    kind = "open" if bad is None else "bad" if bad else "good"
    return render('<span class="badge {kind}">{text}</span>', kind=kind, text=text)


def _list(entries: Iterable[tuple[str, str]]) -> Html:
    return render(
        '<ul class="findings">{lines}</ul>',
        lines=join(render("<li><b>{whose}</b>{text}</li>", whose=whose, text=text) for whose, text in entries),
    )


def _with_error(entry: Mapping[str, float]) -> str:
    return f"{significant(entry['value'])} ± {significant(entry['standard_error'])}"
