"""What is shown of a study: everything on the documentation's page, the main things in the README."""

from __future__ import annotations

from collections.abc import Collection

from page_parts import bullets, folded, image, listed, plain
from study_pictures import COMPARISON, RECALLS, curves_picture, first_generators, samples_picture
from study_tables import (
    arms_of,
    full_percent,
    table_at_threshold,
    table_of_arms,
    table_of_comparisons,
    table_of_data,
    table_of_judged,
)
from study_words import (
    answers,
    captions,
    evidence,
    findings,
    headline,
    notice,
    primary_metric,
    provenance,
    rare_class,
    recipe_pairs,
    shown_arms,
    tested_on,
    unfinished,
    uses_of_test,
)

from condgan.study.report_html import number
from condgan.study.report_words import Results, cells_of, side_name

NOT_RUN = "Not run yet."
"""Stands where results of a study will be."""


def page_body(results: Results, prefix: str, pictures: Collection[str], source: str) -> str:
    """Return everything that the documentation's page says of a study.

    Args:
        results: The content of `results.json`.
        prefix: Folder of the pictures, seen from the page.
        pictures: Names of the pictures that there are.
        source: Where `results.json` is, in Markdown.
    """
    return "\n\n".join(
        filter(
            None,
            [
                notice(results),
                headline(results),
                bullets(unfinished(results)),
                *_arms(results, prefix, pictures),
                *_answers(results),
                *_comparisons(results),
                *_images(results, prefix, pictures),
                *_judged(results),
                *_origin(results, source),
            ],
        )
    )


def readme_body(results: Results, prefix: str, pictures: Collection[str], more: str) -> str:
    """Return what the README says of a study: a table, a few sentences, a picture and the command.

    Args:
        results: The content of `results.json`.
        prefix: Folder of the pictures, seen from the README.
        pictures: Names of the pictures that there are.
        more: Where there is more, in Markdown.
    """
    shown = shown_arms(results)
    blocks = [
        notice(results),
        headline(results),
        table_of_arms(results, metrics=("balanced_accuracy", "auroc"), only=shown) if shown else "",
        tested_on(results),
        bullets([*findings(results), *unfinished(results)]),
        image(f"{prefix}/{COMPARISON}", "scores of all arms with their intervals") if COMPARISON in pictures else "",
        f"```bash\n{results['command']}\n```" if results.get("command") else "",
        f"Everything else, other controls and images of every recipe included: {more}.",
    ]
    return "\n\n".join(filter(None, blocks))


def sample_picture(results: Results, prefix: str, pictures: Collection[str]) -> str:
    """Return the samples of one generator above real images: the first one of the recipe whose images taught most."""
    arms, metric = arms_of(results), primary_metric(results)
    score = {recipe: found[metric]["value"] for (recipe, arm), found in arms.items() if arm == "synthetic_1x"}
    shown = [cell for cell in first_generators(results) if samples_picture(cell["name"]) in pictures]
    if not shown:
        return NOT_RUN
    cell = max(shown, key=lambda cell: score.get(cell["recipe"]) or 0)
    caption = captions(results)[cell["name"]]
    chosen = " Of the recipes, the one whose images taught a classifier most is shown." if len(shown) > 1 else ""
    shown_picture = image(f"{prefix}/{samples_picture(cell['name'])}", "generated images of each class above real ones")
    credit = plain(results["data"].get("attribution") or "")
    return f"{shown_picture}\n\n*{f'{plain(caption)}{chosen} Below them real images. {credit}'.strip()}*"


def _arms(results: Results, prefix: str, pictures: Collection[str]) -> list[str]:
    if full_percent(results) is None:
        return []
    chance = number(1 / len(results["data"]["class_names"]))
    less = sorted({row["p"] for row in results["summaries"]} - {full_percent(results)}, reverse=True)
    tuned = table_at_threshold(results)
    return [
        _title("What classifiers learn"),
        table_of_arms(results),
        f"{tested_on(results)} Seeds: generators x classifiers of each. Relative usefulness is (score - chance) / "
        f"(score of the real images - chance), by balanced accuracy; chance is {chance}.",
        *(
            image(f"{prefix}/{name}", f"{what} of all arms, with intervals")
            for name, what in _CHARTS
            if name in pictures
        ),
        *(
            folded(
                f"With {percent:g} % of the patients of {plain(rare_class(results))}", table_of_arms(results, percent)
            )
            for percent in less
        ),
        folded(
            "At the threshold chosen on the validation images",
            "Means over classifiers, and the lowest and highest; without intervals.",
            tuned,
        )
        if tuned
        else "",
    ]


_CHARTS = ((COMPARISON, "balanced accuracy and AUROC"), (RECALLS, "recall of each class"))


def _answers(results: Results) -> list[str]:
    if not results.get("verdicts"):
        return []
    return [
        _title("Questions and answers"),
        bullets(answers(results)),
        folded("What the answers rest on", bullets(evidence(results))),
    ]


def _comparisons(results: Results) -> list[str]:
    rows = [row for row in results.get("comparisons", []) if row["a"]["p"] == full_percent(results)]
    if not rows:
        return []
    primary = [row for row in rows if row["primary"]]
    pairs = recipe_pairs(results)
    others = [row for row in rows if row not in primary and row not in pairs]
    best = f" The best control is {side_name(primary[0]['b'])}." if primary else ""
    return [
        _title("Differences"),
        "Paired by patient, over seeds and patients. Whether a difference counts, p after Holm's correction says; the "
        f"second interval covers all differences of its kind together.{best}",
        table_of_comparisons([*primary, *pairs]),
        folded("By other metrics", table_of_comparisons(others)) if others else "",
    ]


def _images(results: Results, prefix: str, pictures: Collection[str]) -> list[str]:
    said, first = captions(results), [cell["name"] for cell in first_generators(results)]
    there = [cell["name"] for cell in cells_of(results, "gan") if samples_picture(cell["name"]) in pictures]
    curves = [name for name in first if curves_picture(name) in pictures]
    if not there and not curves:
        return []
    return [
        _title("Images"),
        *(_shown(name, said, prefix) for name in there if name in first),
        folded("The other seeds", *(_shown(name, said, prefix) for name in there if name not in first))
        if set(there) - set(first)
        else "",
        folded(
            "Curves of training, first seed of each recipe",
            *(f"{plain(name)}:\n\n{image(f'{prefix}/{curves_picture(name)}', f'curves of {name}')}" for name in curves),
        )
        if curves
        else "",
    ]


def _shown(name: str, said: dict[str, str], prefix: str) -> str:
    return f"{image(f'{prefix}/{samples_picture(name)}', f'images of {name}')}\n\n*{plain(said[name])}*"


def _judged(results: Results) -> list[str]:
    table = table_of_judged(results)
    if not table:
        return []
    judged = cells_of(results, "judge")
    extractors = dict.fromkeys(cell["fidelity"]["extractor"]["name"] for cell in judged if cell.get("fidelity"))
    refused = {f"{what}: {why}" for cell in judged for what, why in cell.get("refused", {}).items()}
    return [
        _title("Judging the images"),
        table,
        "Means over generators, and the lowest and highest. *KID* is the distance to the real test images (0: none); "
        "*real* is the same of the real training images; *farther* counts the generators whose distance is larger than "
        "that by more than chance. *Coverage* is the share of test images with a generated one nearby. *Recognized* is "
        "the share that a classifier of real images calls by the class it was made for. No sign of copying is no proof "
        "of privacy. Features: "
        f"{plain(listed(list(extractors)) or 'none')}.",
        bullets(f"Not measured: {plain(reason)}" for reason in sorted(refused)),
    ]


def _origin(results: Results, source: str) -> list[str]:
    data, counts = results["data"], results.get("test_evaluations", {})
    removed = data.get("duplicates_removed")
    said = f"Data: {plain(data['source'])}. {plain(data.get('attribution') or '')}".strip()
    said += f" Removed from the training images as repeated: {removed}." if removed is not None else ""
    uses = folded("Uses of the test set", bullets(f"`{name}`: {count}" for name, count in counts.items()))
    return [
        _title("How it was computed"),
        provenance(results, source),
        uses_of_test(results),
        uses if counts else "",
        table_of_data(results),
        said,
        *map(plain, data.get("notes", [])),
    ]


def _title(text: str) -> str:
    return f"#### {text}"
