"""Numbers, names and sentences for readers of a study: for its report, and for the documentation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from condgan.metrics.memorization import MemorizationVerdict
from condgan.stats import Estimate, Interval, SeedDifference, SeedEstimate
from condgan.study.results import (
    AloneEvidence,
    Answer,
    ArmKey,
    CollapseEvidence,
    Comparison,
    CopiesEvidence,
    DifferencesEvidence,
    FailuresEvidence,
    ProgressEvidence,
    Question,
    Reason,
    Verdict,
    recalled_class,
)

Found = Estimate | SeedEstimate | SeedDifference
"""A number that may have an interval."""

DASH = "\N{EN DASH}"
"""Shown where there is no number."""

ARM_NAMES = {
    "real": "real images",
    "real_augmented": "real, augmented",
    "real_weighted": "real, class weights",
    "real_augmented_weighted": "real, augmented, class weights",
    "real_oversampled": "real, rare classes repeated",
    "synthetic_1x": "generated only, as many as real",
    "synthetic_2x": "generated only, 2 times as many",
    "synthetic_5x": "generated only, 5 times as many",
    "real_plus_synthetic_2to1": "real + generated, 2 to 1",
    "real_plus_synthetic_1to1": "real + generated, 1 to 1",
    "real_plus_synthetic_1to2": "real + generated, 1 to 2",
    "pretrained": "generated first, then real",
}
"""Names of arms for readers; other arms keep their own name."""

METRIC_NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "auroc": "AUROC",
    "macro_f1": "Macro-F1",
    "accuracy": "Accuracy",
}
"""Names of metrics for readers, in the order of the report."""

METRIC_WORDS = {
    **METRIC_NAMES,
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
}
"""Names of metrics within a sentence."""

SCORE_NAMES = {
    "kid": "KID",
    "fid": "FID",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "inception_score": "Inception Score",
}
"""Names of the scores of images."""

_FIGURE = re.compile(r"[<+-]?\s?\d[-+±\d.,;/()\[\]\s]*")


def arm_name(arm: str) -> str:
    """Return the name of an arm for readers."""
    return ARM_NAMES.get(arm, arm.replace("_", " "))


def side_name(arm: ArmKey) -> str:
    """Return the name of an arm for readers, with the recipe of its generated images.

    Examples:
        >>> side_name(ArmKey(recipe="acgan", arm="synthetic_2x", percent=100.0))
        'acgan: generated only, 2 times as many'
    """
    return arm_name(arm.arm) if arm.recipe is None else f"{arm.recipe}: {arm_name(arm.arm)}"


def metric_name(metric: str) -> str:
    """Return the name of a metric for readers."""
    name = recalled_class(metric)
    return f"Recall, {name}" if name else METRIC_NAMES.get(metric, metric.replace("_", " "))


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text, a dash for None or NaN.

    Examples:
        >>> number(0.73449), number(None), number(624)
        ('0.734', '\u2013', '624')
    """
    if value is None or math.isnan(value):
        return DASH
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def significant(value: float | None) -> str:
    """Return a number as text with three significant digits.

    Examples:
        >>> significant(0.000123456), significant(18.4449), significant(18444.9)
        ('0.000123', '18.4', '18445')
    """
    if value is None or math.isnan(value):
        return DASH
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def signed(value: float | None) -> str:
    """Return a difference as text with its sign, a dash for None or NaN.

    Examples:
        >>> signed(0.0123), signed(None)
        ('+0.012', '\u2013')
    """
    return DASH if value is None or math.isnan(value) else f"{value:+.3f}"


def p_value(value: float | None) -> str:
    """Return a p value as text.

    Examples:
        >>> p_value(0.00004), p_value(0.2), p_value(None)
        ('< 0.001', '0.200', '\u2013')
    """
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def ends_of(found: Found) -> tuple[float, float] | None:
    """Return the ends of the interval of a number, or None without interval."""
    ends = found.interval if isinstance(found, SeedEstimate | SeedDifference) else found
    return None if ends is None or math.isnan(ends.low) or math.isnan(ends.high) else (ends.low, ends.high)


def interval(found: Found | None, show: Callable[[float | None], str] = number) -> str:
    """Return a number with its interval as text, a dash for None.

    Examples:
        >>> interval(Estimate(0.838, 0.8044, 0.8712)), interval(None)
        ('0.838 [0.804, 0.871]', '\u2013')
    """
    if found is None:
        return DASH
    ends = ends_of(found)
    return show(found.value) + (f" [{show(ends[0])}, {show(ends[1])}]" if ends else "")


def ends(found: Interval | None, show: Callable[[float | None], str] = number) -> str:
    """Return an interval as text, a dash for None.

    Examples:
        >>> ends(Interval(low=-0.02, high=0.1, level=0.99), signed)
        '[-0.020, +0.100]'
    """
    return DASH if found is None else f"[{show(found.low)}, {show(found.high)}]"


def percent_intervals(level: float | None) -> str:
    """Return the name of intervals with a nominal coverage.

    Examples:
        >>> percent_intervals(0.95), percent_intervals(None)
        ('95 % intervals', 'intervals')
    """
    return "intervals" if level is None else f"{100 * level:g} % intervals"


def plural(count: int, what: str) -> str:
    """Return a count and its noun.

    Examples:
        >>> plural(1, "patient"), plural(428, "patient"), plural(2, "class")
        ('1 patient', '428 patients', '2 classes')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('s') else 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names as an enumeration.

    Examples:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def capital(text: str) -> str:
    """Return a text with a capital at its beginning.

    Examples:
        >>> capital("cannot tell"), capital("AUROC")
        ('Cannot tell', 'AUROC')
    """
    return text[:1].upper() + text[1:]


def is_figure(text: object) -> bool:
    """Return whether the text of a table's cell is a number, with or without interval, and not a fingerprint.

    Examples:
        >>> is_figure("0.838 [0.804, 0.871]"), is_figure("< 0.001"), is_figure("aa11")
        (True, True, False)
    """
    return _FIGURE.fullmatch(str(text)) is not None


# Verdicts

MEMORIZATION_WORDS = {
    MemorizationVerdict.COPIES: "copies training images",
    MemorizationVerdict.PATIENTS_RECOGNIZED: "training patients can be recognized",
    MemorizationVerdict.CANNOT_TELL: "cannot tell: too few images",
    MemorizationVerdict.NO_SIGN: "no sign of copying",
}
"""Verdicts on the images of a class in words, the most serious first."""

_ANSWERS = {
    Answer.YES: "yes",
    Answer.NO: "no",
    Answer.NO_SIGN: "no sign of it",
    Answer.CANNOT_TELL: "cannot tell",
}
_REASONS = {
    Reason.FEW_SEEDS: "fewer than three seeds",
    Reason.BELOW_GUESSING: "it does worse than guessing",
    Reason.NOT_MEASURED: "it was not measured",
    Reason.TOO_FEW_IMAGES: "too few images",
    Reason.COPIES: "it copies training images",
    Reason.PATIENTS_RECOGNIZED: "training patients can be recognized",
}


def question_words(verdict: Verdict, recipes: Sequence[str] | None = None) -> str:
    """Return the question of a verdict.

    Args:
        verdict: The verdict.
        recipes: Names in place of those of its recipes.
    """
    names = list(verdict.recipes if recipes is None else recipes)
    metric = METRIC_WORDS.get(verdict.metric or "", verdict.metric)
    match verdict.question:
        case Question.IMAGES_HELP:
            return f"Do generated images help, by {metric}?"
        case Question.TEACH_ALONE:
            return f"Does a classifier learn the classes from images of {names[0]} alone?"
        case Question.RECALL_RISES if names:
            return f"Do the images of {names[0]} raise the recall of {verdict.class_name}?"
        case Question.RECALL_RISES:
            return (
                f"With {verdict.percent:g} % of the patients of {verdict.class_name}: do generated images raise its "
                "recall?"
            )
        case Question.BETTER_RECIPE:
            return f"Which images teach more, alone and by {metric}: {names[0]} or {names[1]}?"
        case Question.COPIES:
            return f"Do the images of {names[0]} repeat training images or reveal training patients?"
        case Question.COLLAPSED:
            return f"Has {names[0]} collapsed onto few images of a class?"
        case Question.ALL_TRAINED:
            return "Did every training end well?"
        case Question.COMPLETE:
            return "Is the study finished?"


def answer_words(verdict: Verdict) -> str:
    """Return the answer of a verdict, with its reason."""
    if verdict.answer in (Answer.FIRST, Answer.SECOND):
        return verdict.recipes[0 if verdict.answer is Answer.FIRST else 1]
    if verdict.question is Question.TEACH_ALONE:
        return _alone_words(verdict)
    said, evidence = _ANSWERS[verdict.answer], verdict.evidence
    why = None if verdict.reason in (None, Reason.WITHIN_CHANCE) else _REASONS[verdict.reason]
    if isinstance(evidence, CollapseEvidence) and verdict.answer is Answer.YES:
        why = _by_seed((one.seed, one.class_name) for one in evidence.classes if one.collapsed)
    if isinstance(evidence, FailuresEvidence):
        why = f"{len(evidence.failed)} failed"
    return f"{said}: {why}" if why else said


def _alone_words(verdict: Verdict) -> str:
    """Return the answer to whether the images of a recipe alone teach the classes."""
    if verdict.reason is Reason.WITHIN_CHANCE:
        return "not distinguishable from guessing"
    if (
        verdict.reason is Reason.FEW_SEEDS
        and verdict.answer is not Answer.CANNOT_TELL
        and isinstance(verdict.evidence, AloneEvidence)
    ):
        said = "it does worse than guessing" if verdict.answer is Answer.NO else ""
        seeds = plural(verdict.evidence.score.estimate.counts.generators or 0, "generator seed")
        return ", ".join(filter(None, [_ANSWERS[verdict.answer] + (f": {said}" if said else ""), f"for {seeds} only"]))
    return _ANSWERS[verdict.answer] + (f": {_REASONS[verdict.reason]}" if verdict.reason else "")


def finding_words(verdict: Verdict) -> list[str]:
    """Return what an answer rests on, a sentence each. Arms have the names of `results.json`."""
    match verdict.evidence:
        case DifferencesEvidence(best=best, compared=compared):
            return [f"{'Best arm: ' if compared > 1 else ''}{_difference(best)}."]
        case AloneEvidence(score=score, guessing=guess, real=real):
            said = [f"{METRIC_NAMES.get(score.metric, score.metric)} of {score.arm.arm}: {interval(score.estimate)}"]
            said.append(f"guessing: {number(guess)}")
            if real is not None:
                said.append(f"real images: {interval(real.estimate)}")
            if score.relative_usefulness is not None:
                said.append(f"relative usefulness: {number(score.relative_usefulness, 2)}")
            return [f"{'; '.join(said)}."]
        case CopiesEvidence(copies=copies, not_measured=why):
            found = [
                f"{capital(said)}: {_by_seed((one.seed, one.class_name) for one in copies if one.verdict is kind)}."
                for kind, said in MEMORIZATION_WORDS.items()
                if any(one.verdict is kind for one in copies)
            ]
            return found or list(why)
        case CollapseEvidence(classes=classes, not_measured=why):
            return [f"Seed {one.seed}, {one.class_name}: {one.explanation}" for one in classes] or list(why)
        case FailuresEvidence(failed=failed):
            return [f"{'; '.join(f'{cell.name}: {cell.error}' for cell in failed)}."]
        case ProgressEvidence(finished=finished, planned=planned):
            return [f"{finished} of {planned} cells are finished; everything above may change."]


def rule_words(verdict: Verdict) -> list[str]:
    """Return the rule that an answer follows, a sentence each."""
    match verdict.question, verdict.evidence:
        case Question.BETTER_RECIPE, DifferencesEvidence(best=best):
            return [f"A recipe is named where the Holm-corrected p, over seeds and patients, is below {_alpha(best)}."]
        case _, DifferencesEvidence(best=best, compared=compared, controls=controls) as evidence:
            said = ["The difference is to the arm named last."]
            if controls:
                said = [f"The controls are {', '.join(controls)}; the best of them by the same score counts."]
            if missing := evidence.controls_missing:
                said.append(f"Not run: {', '.join(missing)}.")
            if verdict.question is Question.RECALL_RISES and verdict.recipes:
                said.append("Recall alone can rise at the cost of errors on other classes.")
            every = f"all simultaneous intervals of {compared} arms end" if compared > 1 else "its interval ends"
            return [
                *said,
                f"The answer is yes if a difference is above 0 with a Holm-corrected p below {_alpha(best)}, and no if "
                f"{every} at or below 0; with fewer than three seeds it is neither.",
            ]
        case Question.TEACH_ALONE, _:
            return ["The answer is yes if the interval lies above guessing."]
        case Question.COPIES, CopiesEvidence(copies=copies) if copies:
            return ["The most serious finding counts. No sign of copying is no proof of privacy."]
        case Question.ALL_TRAINED, _:
            return ["No score includes them."]
        case _:
            return []


def _difference(row: Comparison) -> str:
    a, b = (f"{arm.recipe}: {arm.arm}" if arm.recipe else arm.arm for arm in (row.a, row.b))
    corrected = "" if row.p_holm is None else f", Holm-corrected p {row.p_holm:.2g}"
    return f"{a} minus {b}: {interval(row.difference, signed)}{corrected}"


def _by_seed(found: Iterable[tuple[int, str]]) -> str:
    """Return classes of generators in words, grouped by seed."""
    classes: dict[int, list[str]] = {}
    for seed, name in found:
        classes.setdefault(seed, []).append(name)
    return "; ".join(f"seed {seed} ({', '.join(names)})" for seed, names in classes.items())


def _alpha(row: Comparison) -> str:
    return f"{1 - row.level:.2g}"
