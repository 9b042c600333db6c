"""A study in the documentation: the text of its page, and the summary in the README.

The templates hold the layout, this module the sentences that depend on the results. None claims more than the intervals
support.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from page_parts import COMPARISON, RECALLS, curves_picture, markdown_table, plain, samples_picture, unbroken

from condgan.metrics.memorization import MemorizationVerdict
from condgan.runs import in_words
from condgan.stats import recall_of
from condgan.study.arms import ARMS
from condgan.study.report import filters
from condgan.study.report.view import KINDS, ArmView, GeneratorView, JudgedView, StudyView, VerdictView, make_view
from condgan.study.report.words import (
    DASH,
    MEMORIZATION_WORDS,
    arm_name,
    capital,
    ends,
    interval,
    listed,
    metric_name,
    number,
    p_value,
    plural,
    question_words,
    side_name,
    signed,
    significant,
)
from condgan.study.results import (
    Answer,
    Comparison,
    FailedOutcome,
    Family,
    Question,
    Results,
    guessing,
    recalled_class,
)

NOT_RUN = "Not run yet."
"""Placeholder for results of a study."""

MAIN_METRICS = ("balanced_accuracy", "auroc", "accuracy")
_CHARTS = ((COMPARISON, "balanced accuracy and AUROC"), (RECALLS, "recall of each class"))
_MOST_LISTED = 2


def page_body(results: Results, prefix: str, pictures: Collection[str], source: str) -> str:
    """Return the text of the documentation's page on a study.

    Args:
        results: The results of the study.
        prefix: Folder of the pictures, seen from the page.
        pictures: Names of the existing pictures.
        source: Where `results.json` is, in Markdown.
    """
    study = make_view(results)
    seconds: dict[str, float] = dict.fromkeys(KINDS.values(), 0.0)
    for cell in results.cells:
        seconds[KINDS[cell.of if isinstance(cell, FailedOutcome) else cell.kind]] += cell.seconds
    return _filled(
        "page.md.j2",
        study=study,
        prefix=prefix,
        pictures=pictures,
        source=source,
        main_metrics=MAIN_METRICS,
        headline=headline(study),
        unfinished=unfinished(study),
        tested_on=tested_on(study),
        answers=answers(study),
        evidence=evidence(study),
        recipe_pairs=recipe_pairs(study),
        refused=sorted({f"{part}: {why}" for cell in results.judged for part, why in cell.refusals.items()}),
        times=", ".join(f"{kind} {in_words(spent)}" for kind, spent in seconds.items() if spent),
        fidelity_uses=sum(
            count for name, count in results.test_evaluations.items() if name.partition("@")[0].endswith("/fidelity")
        ),
    )


def readme_body(results: Results, prefix: str, pictures: Collection[str], more: str) -> str:
    """Return the README's summary of a study: a table, a few sentences, a picture and the command.

    Args:
        results: The results of the study.
        prefix: Folder of the pictures, seen from the README.
        pictures: Names of the existing pictures.
        more: Link to the whole page, in Markdown.
    """
    study = make_view(results)
    return _filled(
        "readme.md.j2",
        study=study,
        prefix=prefix,
        pictures=pictures,
        more=more,
        headline=headline(study),
        shown_arms=shown_arms(study),
        tested_on=tested_on(study),
        findings=findings(study),
        unfinished=unfinished(study),
    )


def sample_picture(results: Results, prefix: str, pictures: Collection[str]) -> str:
    """Return the samples of the first generator of the recipe whose images taught most, above real images."""
    study = make_view(results)
    metric = results.config.primary_metric
    score = {arm.key.recipe: found.value for arm in alone(study) if (found := arm.score(metric)) is not None}
    shown = [found for found in study.generators if found.is_first and samples_picture(found.record.name) in pictures]
    if not shown:
        return NOT_RUN
    generator = max(shown, key=lambda found: score.get(found.record.recipe, 0.0))
    chosen = " Of the recipes, the one whose images taught a classifier most is shown." if len(shown) > 1 else ""
    said = f"{caption(study, generator)}{chosen} Below them real images. {results.data.attribution or ''}".strip()
    picture = f"{prefix}/{samples_picture(generator.record.name)}"
    return f"![generated images of each class above real ones]({picture})\n\n*{plain(said)}*"


# Sentences


def headline(study: StudyView) -> str:
    """Return the main result in a sentence or two."""
    main = [verdict for verdict in study.verdicts if verdict.record.question is Question.IMAGES_HELP]
    said = [_scored(study, study.results.config.primary_metric)]
    said += [f"{verdict.question} **{capital(verdict.answer)}**." for verdict in main]
    return " ".join(filter(None, said)) or "No classifier has been tested."


def findings(study: StudyView) -> list[str]:
    """Return the results on recipes, on the rarest class and on the images themselves, a sentence each."""
    said = [_matched(study), _best(study), _scored(study, recall_of(study.results.rare_class)), _judged(study)]
    return [sentence for sentence in said if sentence]


def tested_on(study: StudyView) -> str:
    """Return what the scores were measured on, and what their intervals cover."""
    if not study.arms:
        return "No classifier has been tested."
    said = f"Tested on {study.size_of_test}. In brackets: {study.intervals} over the seeds of generators and of "
    said += "classifiers, and over patients."
    return " ".join([said, *study.cautions])


def unfinished(study: StudyView) -> list[str]:
    """Return what of the study is missing, and which trainings failed."""
    progress, said = study.progress, []
    if progress.done < progress.planned:
        said.append(
            f"**Unfinished**: {progress.done} of {progress.planned} parts of the study are done; all figures may "
            "change."
        )
        if missing := [f"{count} of the {KINDS[kind]}" for kind, count in progress.missing.items()]:
            said[0] += f" Missing: {', '.join(missing)}."
        untouched = [f"`{recipe}`" for recipe in progress.recipes_missing]
        if untouched := untouched + [arm_name(arm) for arm in progress.arms_missing]:
            said[0] += f" Not started: {'; '.join(untouched)}."
    if failed := study.results.failed:
        names = "; ".join(f"{cell.name}: {cell.error}" for cell in failed)
        said.append(f"**Failed**: {plural(len(failed), 'training')} diverged, which no score includes ({names}).")
    return said


def answers(study: StudyView) -> list[str]:
    """Return questions and answers; a question about each recipe is one entry."""
    return [
        f"**{question}** {_together(group)}."
        for question, group in _by_question(study).items()
        if group[0].record.question is not Question.COMPLETE  # see `unfinished`
    ]


def evidence(study: StudyView) -> list[str]:
    """Return what each answer rests on, as a list of lists; a rule that answers share is said once."""
    lines = []
    for question, group in _by_question(study).items():
        rule = " ".join(group[0].rule)
        if len(group) == 1:
            lines.append(f"- **{group[0].question}** {_said(group[0])}".rstrip() + (f" {rule}" if rule else ""))
            continue
        lines.append(f"- **{question}** {rule}".rstrip())
        for found in group:
            own = "" if found.rule == group[0].rule else f" {' '.join(found.rule)}"
            lines.append(f"    - {' or '.join(f'`{name}`' for name in found.record.recipes)}: {_said(found)}{own}")
    return lines


def caption(study: StudyView, generator: GeneratorView) -> str:
    """Return the caption of a generator's samples."""
    found, size = generator.record, "x".join(map(str, study.results.data.image_shape[1:]))
    said = [found.recipe, f"generator seed {found.seed}", f"{size} pixels"]
    if found.kept.criterion:
        criterion = found.kept.criterion.replace("_", " ").replace("kid", "KID")
        said.append(f"step {found.kept.step} of {found.steps} ({criterion} on validation images)")
    else:
        said.append(f"{found.steps} steps")
    said.append(f"{in_words(found.seconds)} on {found.origin.device.partition(',')[0]}")
    return f"{', '.join(said)}. The first images of each class, not selected."


def _scored(study: StudyView, metric: str) -> str:
    """Return the scores by a metric of generated images alone, of real ones and of guessing."""
    rows = {arm.key.recipe: found for arm in alone(study) if (found := arm.score(metric)) is not None}
    if not rows:
        return ""
    real = next((arm.score(metric) for arm in study.arms if arm.key.arm == "real"), None)
    lowest, highest = (choose(rows, key=lambda recipe: rows[recipe].value) for choose in (min, max))
    said = {recipe: f"{interval(found)} (`{recipe}`)" for recipe, found in rows.items()}
    values = listed(list(said.values()))
    if len(rows) > _MOST_LISTED:
        values = f"from {said[lowest]} to {said[highest]}"
    rare = recalled_class(metric)
    if rare is not None:
        kind = "class made rare" if rare == study.results.config.reduced_class else "rarest class"
        sentence = f"Recall of {rare}, the {kind}: with generated images alone {values}"
    else:
        name = metric_name(metric)
        what = name if name.isupper() else name.lower()
        of = "" if len(rows) > _MOST_LISTED else "of "
        sentence = f"Trained on generated images alone, a ResNet-18 reaches a {what} {of}{values}"
    chance = guessing(metric, study.results.data.num_classes)
    sentence += f"; with real images {interval(real)}" if real else ""
    return sentence + (f"; guessing gives {number(chance)}." if chance is not None else ".")


def _matched(study: StudyView) -> str:
    """Return which images teach more, of recipes on the same networks."""
    rows = matched_pairs(study)
    if not rows:
        return ""
    said = [
        f"`{row.a.recipe}` minus `{row.b.recipe}` {interval(row.difference, signed)}, p {p_value(row.p_holm)}"
        for row in rows
    ]
    return (
        f"Recipe against recipe on the same networks, by {metric_name(rows[0].metric).lower()} of their images alone, "
        f"p after Holm's correction: {'; '.join(said)}."
    )


def _best(study: StudyView) -> str:
    """Return the arm with generated images that does best against the best control."""
    rows = [row for row in study.results.comparisons if row.primary]
    if not rows:
        return ""
    best = max(rows, key=lambda row: row.difference.value)
    arms = f"The best of {plural(len(rows), 'arm')}" if len(rows) > 1 else "The one arm"
    said = (
        f"{arms} with generated images is `{best.a.recipe}`, {arm_name(best.a.arm)}: by "
        f"{metric_name(best.metric).lower()} {interval(best.difference, signed)} against the best control, "
        f"{side_name(best.b)} (p {p_value(best.p_holm)} after Holm's correction)."
    )
    if all(ARMS[row.a.arm].synthetic_only for row in rows):
        said += " Whether adding generated images to real ones helps has not been tested."
    return said


def _judged(study: StudyView) -> str:
    """Return whether the generated images collapsed or repeat training images."""
    varied = [found for found in study.judged if found.record.diversity]
    asked = [found for found in study.judged if found.record.memorization]
    said = []
    if varied:
        collapsed = [found for found in varied if found.record.diversity and found.record.diversity.collapsed]
        said.append(f"collapsed onto few images of a class: {_of(collapsed, varied)}")
    if asked:
        found = {judged.who: _verdicts_of(judged) for judged in asked}
        bad = {MemorizationVerdict.COPIES, MemorizationVerdict.PATIENTS_RECOGNIZED}
        signs = [judged for judged in asked if found[judged.who] & bad]
        said.append(f"repeating training images or revealing training patients: {_of(signs, asked)}")
        if unsure := sum(MemorizationVerdict.CANNOT_TELL in verdicts for verdicts in found.values()):
            said[-1] += f" (too few images to tell for {unsure})"
    return capital("; ".join(said)) + "." if said else ""


def _verdicts_of(judged: JudgedView) -> set[MemorizationVerdict]:
    report = judged.record.memorization
    return set() if report is None else {found.verdict for found in report.per_class.values()}


def _of(found: Sequence[JudgedView], cells: Sequence[JudgedView]) -> str:
    trained = Counter(cell.record.recipe for cell in cells)
    counts = Counter(cell.record.recipe for cell in found)
    named = [f"`{recipe}` ({count} of {trained[recipe]})" for recipe, count in counts.items()]
    return listed(named) if named else f"none of {plural(len(cells), 'generator')}"


def _by_question(study: StudyView) -> dict[str, list[VerdictView]]:
    """Return the verdicts by their questions, with an ellipsis for the names of recipes."""
    found: dict[str, list[VerdictView]] = {}
    for verdict in study.verdicts:
        names = ["\N{HORIZONTAL ELLIPSIS}"] * len(verdict.record.recipes)
        found.setdefault(question_words(verdict.record, names), []).append(verdict)
    return found


def _said(verdict: VerdictView) -> str:
    answer = f"`{verdict.answer}`" if _names_recipe(verdict) else capital(verdict.answer)
    return " ".join([f"{answer}.", *verdict.findings])


def _names_recipe(verdict: VerdictView) -> bool:
    return verdict.record.answer in (Answer.FIRST, Answer.SECOND)


def _together(group: Sequence[VerdictView]) -> str:
    by_answer: dict[str, list[VerdictView]] = {}
    for verdict in group:
        by_answer.setdefault(verdict.answer, []).append(verdict)
    said = []
    for answer, found in by_answer.items():
        first = found[0].record
        names = [" or ".join(f"`{name}`" for name in verdict.record.recipes) for verdict in found]
        if not first.recipes:
            said.append(answer)
        elif _names_recipe(found[0]):
            others = [f"against `{name}`" for verdict in found for name in verdict.record.recipes if name != answer]
            said.append(f"`{answer}` ({', '.join(others)})")
        elif first.question is Question.BETTER_RECIPE and len(group) > _MOST_LISTED:
            said.append(f"{answer} for {len(found)} of {len(group)} pairs")
        else:
            said.append(f"{answer} ({', '.join(names)})")
    return capital("; ".join(said))


# What is chosen to be shown


def alone(study: StudyView) -> list[ArmView]:
    """Return for each recipe the first arm of its images alone."""
    found: dict[str, ArmView] = {}
    for arm in study.arms:
        if arm.key.recipe is not None and ARMS[arm.key.arm].synthetic_only:
            found.setdefault(arm.key.recipe, arm)
    return list(found.values())


def shown_arms(study: StudyView) -> list[ArmView]:
    """Return the arms of a short table: real images, the best control, and each recipe's images alone."""
    metric = study.results.config.primary_metric
    controls = {arm.key: found.value for arm in study.arms if not arm.key.recipe and (found := arm.score(metric))}
    best = max(controls, key=lambda key: controls[key], default=None)
    real = [arm for arm in study.arms if arm.key in controls and (arm.key.arm == "real" or arm.key == best)]
    return [*real, *alone(study)]


def recipe_pairs(study: StudyView) -> list[Comparison]:
    """Return the comparisons of recipes of the main study."""
    return [row for row in study.main_comparisons if row.family is Family.RECIPES]


def matched_pairs(study: StudyView) -> list[Comparison]:
    """Return the comparisons of different recipes on the same networks, with the same augmentation."""
    recipes = study.results.config.recipes
    kinds = {name: (recipe.networks, recipe.augment) for name, recipe in recipes.items()}
    return [row for row in recipe_pairs(study) if kinds[row.a.recipe or ""] == kinds[row.b.recipe or ""]]


# Published numbers


class Anchor(NamedTuple):
    """A published number."""

    source: str
    setting: str
    accuracy: str = DASH
    auroc: str = DASH


_MEDMNIST = "real images, ResNet-18 from ImageNet weights, same 624 test images, {size} px"

ANCHORS = (
    Anchor("MedMNIST+, Doerrich et al. 2025", _MEDMNIST.format(size=28), "0.831", "0.950"),
    Anchor("MedMNIST+, Doerrich et al. 2025", _MEDMNIST.format(size=64), "0.860", "0.943"),
    Anchor("MedMNIST+, Doerrich et al. 2025", _MEDMNIST.format(size=128), "0.899", "0.979"),
    Anchor("MedMNIST+, Doerrich et al. 2025", _MEDMNIST.format(size=224), "0.911", "0.980"),
    Anchor("Ayan et al. 2021", "real images, three classes, ensemble, 224 px; split not checked", "0.907"),
    Anchor("Manaf et al. 2025", "same split, real images", "0.853"),
    Anchor("Manaf et al. 2025", "same split, real images with classical augmentation", "0.861"),
    Anchor("Manaf et al. 2025", "same split, real and GAN images", "0.848"),
    Anchor("Manaf et al. 2025", "same split, real and GAN images with classical augmentation", "0.872"),
    Anchor("Peng et al. 2025", "same data, images of a general image model alone", auroc="0.824"),
    Anchor("public ACGAN notebooks", "other data (COVIDx), 112 px, real images", "0.87"),
    Anchor("public ACGAN notebooks", "other data (COVIDx), 112 px, generated images alone", "0.53 to 0.65"),
)


def published_table(studies: dict[str, Results | None]) -> str:
    """Return the published numbers, and those of our studies by a name for readers."""
    rows: list[list[str]] = []
    for name, results in studies.items():
        rows += _ours(name, make_view(results)) if results else [[f"**this study, {name}**", NOT_RUN, DASH, DASH]]
    return markdown_table(["source", "setting", "accuracy", "AUROC"], [*rows, *map(list, ANCHORS)])


def _ours(name: str, study: StudyView) -> list[list[str]]:
    size = "x".join(map(str, study.results.data.image_shape[1:]))
    shown = {"real images": next((arm for arm in study.arms if arm.key.arm == "real"), None)}
    shown |= {f"images of {arm.key.recipe} alone": arm for arm in alone(study)}
    return [
        [
            f"**this study, {name}**",
            f"{plain(what)}, ResNet-18 from scratch, {size} px",
            *(interval(arm.score(metric)) for metric in ("accuracy", "auroc")),
        ]
        for what, arm in shown.items()
        if arm is not None
    ]


# Templates


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


def share(found: Sequence[bool]) -> str:
    """Return the number of true values, of all.

    Examples:
        >>> share([True, False, True]), share([])
        ('2 of 3', '\u2013')
    """
    return f"{sum(found)} of {len(found)}" if found else DASH


def _filled(name: str, *, study: StudyView, **content: object) -> str:
    environment = _environment()
    template = environment.get_template(name)
    text = template.render(study=study, charts=_CHARTS, caption_of=lambda found: caption(study, found), **content)
    return _in_blocks(text)


def _in_blocks(text: str) -> str:
    """Return Markdown with one empty line between its blocks, none at its ends."""
    lines = text.strip().splitlines()
    return "\n".join(line for place, line in enumerate(lines) if line.strip() or lines[place - 1].strip())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(plain(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters() | {
        "curves_picture": curves_picture,
        "ends": ends,
        "listed": listed,
        "recall_of": recall_of,
        "samples_picture": samples_picture,
        "share": share,
        "side_name": side_name,
        "spread": spread,
        "unbroken": lambda value: value if isinstance(value, Markup) else unbroken(str(value)),
    }
    environment.tests["recall"] = lambda metric: recalled_class(metric) is not None
    environment.globals |= {
        "dash": DASH,
        "memorization_words": MEMORIZATION_WORDS,
        "signed": signed,
        "significant": significant,
    }
    return environment
