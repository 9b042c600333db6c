"""The rules that answer the questions of a study. They claim no more than the intervals support.

- Generated images *help* (`IMAGES_HELP`), or raise the recall of a class (`RECALL_RISES`), where the difference of an
  arm is above 0 with a p value, corrected for its family (Holm), below 1 - level. They do not where the simultaneous
  intervals of all arms end at or below 0. Otherwise, and with fewer than three seeds, the study cannot tell.
- The images of a recipe *teach alone* (`TEACH_ALONE`) where the interval of the score lies above guessing; they do not
  where it lies below. With a single generator there is no interval.
- One of two recipes is *better* (`BETTER_RECIPE`) where the corrected p value of their difference is below 1 - level.
- A recipe copies, or has collapsed, if one class of one generator has: the most serious finding counts.

A verdict on recipes, rather than on single networks, needs at least three generator seeds, and at least three
classifiers of each control. With several generators, the variance of classifier seeds is part of that between
generators.
"""

from __future__ import annotations

from collections.abc import Sequence

from condgan.metrics.memorization import MemorizationVerdict
from condgan.stats import SeedCounts, recall_of
from condgan.study.arms import ARMS, CONTROLS
from condgan.study.config import StudyConfig
from condgan.study.results import (
    AloneEvidence,
    Answer,
    ArmKey,
    ClassCollapse,
    ClassCopies,
    CollapseEvidence,
    Comparison,
    CopiesEvidence,
    DifferencesEvidence,
    FailedOutcome,
    FailuresEvidence,
    Family,
    JudgeOutcome,
    Outcome,
    ProgressEvidence,
    Question,
    Reason,
    Summary,
    Verdict,
    guessing,
)

LEAST_SEEDS = 3
"""The fewest generators of an arm, or classifiers of a control, that decide a comparison."""


def verdicts(
    config: StudyConfig,
    rare: str,
    num_classes: int,
    cells: Sequence[Outcome],
    summaries: Sequence[Summary],
    comparisons: Sequence[Comparison],
    *,
    planned: int,
) -> tuple[Verdict, ...]:
    """Answer the questions of a study, the most important first.

    Args:
        config: The configuration.
        rare: The class whose recall is compared.
        num_classes: Number of classes.
        cells: All finished cells.
        summaries: Scores of the arms.
        comparisons: Differences between them.
        planned: Number of all cells.
    """
    full = config.full_percent
    recall = recall_of(rare)
    of_rare = [row for row in comparisons if row.family is Family.RARE]
    run = {summary.arm.arm for summary in summaries if summary.arm.percent == full}
    found = [
        *_differences(
            Question.IMAGES_HELP,
            [row for row in comparisons if row.primary],
            metric=config.primary_metric,
            percent=full,
            controls=tuple(arm for arm in CONTROLS if arm in run),
        ),
        *(found for recipe in config.recipes for found in _alone(config, recipe, num_classes, summaries)),
    ]
    for recipe in config.recipes:
        rows = [row for row in of_rare if row.a.recipe == recipe and row.a.percent == full]
        found += _differences(
            Question.RECALL_RISES, rows, recipes=(recipe,), metric=recall, class_name=rare, percent=full
        )
    for percent in dict.fromkeys(row.a.percent for row in of_rare if row.a.percent != full):
        rows = [row for row in of_rare if row.a.percent == percent]
        found += _differences(Question.RECALL_RISES, rows, metric=recall, class_name=rare, percent=percent)
    found += [_better(row) for row in comparisons if row.family is Family.RECIPES and row.a.percent == full]
    for recipe in config.recipes:
        judged = [cell for cell in cells if isinstance(cell, JudgeOutcome) and cell.recipe == recipe]
        if judged:
            found += [_copies(recipe, judged), _collapse(recipe, judged)]
    failed = tuple(cell for cell in cells if isinstance(cell, FailedOutcome))
    if failed:
        found.append(Verdict(question=Question.ALL_TRAINED, answer=Answer.NO, evidence=FailuresEvidence(failed=failed)))
    if len(cells) < planned:
        progress = ProgressEvidence(finished=len(cells), planned=planned)
        found.append(Verdict(question=Question.COMPLETE, answer=Answer.NO, evidence=progress))
    return tuple(found)


def _differences(
    question: Question,
    rows: Sequence[Comparison],
    *,
    metric: str,
    percent: float,
    recipes: tuple[str, ...] = (),
    class_name: str | None = None,
    controls: tuple[str, ...] = (),
) -> list[Verdict]:
    """Answer with a family of comparisons: yes, no, or cannot tell."""
    if not rows:
        return []
    best = max(rows, key=lambda row: (_is_above(row), row.difference.value))
    reason: Reason | None = None
    if not all(map(_has_seeds, rows)):
        answer, reason = Answer.CANNOT_TELL, Reason.FEW_SEEDS
    elif _is_above(best):
        answer = Answer.YES
    elif all(row.simultaneous is not None and row.simultaneous.high <= 0 for row in rows):
        answer = Answer.NO
    else:
        answer, reason = Answer.CANNOT_TELL, Reason.WITHIN_CHANCE
    return [
        Verdict(
            question=question,
            answer=answer,
            reason=reason,
            recipes=recipes,
            class_name=class_name,
            metric=metric,
            percent=percent,
            evidence=DifferencesEvidence(best=best, compared=len(rows), controls=controls),
        )
    ]


def _alone(config: StudyConfig, recipe: str, num_classes: int, summaries: Sequence[Summary]) -> list[Verdict]:
    """Answer whether the images of a recipe alone teach the classes."""
    metric, full = config.primary_metric, config.full_percent
    chance = guessing(metric, num_classes)
    here = [summary for summary in summaries if summary.metric == metric and summary.arm.percent == full]
    own = [summary for summary in here if summary.arm.recipe == recipe and ARMS[summary.arm.arm].synthetic_only]
    if not own or chance is None:
        return []
    score = own[0]
    interval, few = score.estimate.interval, not _enough(score.estimate.counts)
    reason = Reason.FEW_SEEDS if few else None
    if interval is None:
        answer = Answer.CANNOT_TELL
    elif interval.low > chance:
        answer = Answer.YES
    elif interval.high < chance:
        answer, reason = Answer.NO, reason or Reason.BELOW_GUESSING
    else:
        answer, reason = Answer.CANNOT_TELL, Reason.WITHIN_CHANCE
    real = next((s for s in here if s.arm == ArmKey(recipe=None, arm="real", percent=full)), None)
    return [
        Verdict(
            question=Question.TEACH_ALONE,
            answer=answer,
            reason=reason,
            recipes=(recipe,),
            metric=metric,
            percent=full,
            evidence=AloneEvidence(score=score, guessing=chance, real=real),
        )
    ]


def _better(row: Comparison) -> Verdict:
    first, second = row.a.recipe, row.b.recipe
    reason: Reason | None = None
    if not _has_seeds(row):
        answer, reason = Answer.CANNOT_TELL, Reason.FEW_SEEDS
    elif not _is_significant(row):
        answer, reason = Answer.CANNOT_TELL, Reason.WITHIN_CHANCE
    else:
        answer = Answer.FIRST if row.difference.value > 0 else Answer.SECOND
    return Verdict(
        question=Question.BETTER_RECIPE,
        answer=answer,
        reason=reason,
        recipes=tuple(name for name in (first, second) if name is not None),
        metric=row.metric,
        percent=row.a.percent,
        evidence=DifferencesEvidence(best=row, compared=1),
    )


def _copies(recipe: str, judged: Sequence[JudgeOutcome]) -> Verdict:
    found = [
        ClassCopies(seed=cell.seed, class_name=name, verdict=entry.verdict)
        for cell in judged
        if cell.memorization is not None
        for name, entry in cell.memorization.per_class.items()
    ]
    found.sort(key=lambda one: _MOST_SERIOUS_FIRST.index(one.verdict))
    answer, reason = _ANSWERS_ON_COPIES[found[0].verdict if found else None]
    return Verdict(
        question=Question.COPIES,
        answer=answer,
        reason=reason,
        recipes=(recipe,),
        percent=judged[0].percent,
        evidence=CopiesEvidence(copies=tuple(found), not_measured=_refusals(judged, "memorization")),
    )


_MOST_SERIOUS_FIRST = (
    MemorizationVerdict.COPIES,
    MemorizationVerdict.PATIENTS_RECOGNIZED,
    MemorizationVerdict.CANNOT_TELL,
    MemorizationVerdict.NO_SIGN,
)
_ANSWERS_ON_COPIES: dict[MemorizationVerdict | None, tuple[Answer, Reason | None]] = {
    MemorizationVerdict.COPIES: (Answer.YES, Reason.COPIES),
    MemorizationVerdict.PATIENTS_RECOGNIZED: (Answer.YES, Reason.PATIENTS_RECOGNIZED),
    MemorizationVerdict.CANNOT_TELL: (Answer.CANNOT_TELL, Reason.TOO_FEW_IMAGES),
    MemorizationVerdict.NO_SIGN: (Answer.NO_SIGN, None),
    None: (Answer.CANNOT_TELL, Reason.NOT_MEASURED),
}


def _collapse(recipe: str, judged: Sequence[JudgeOutcome]) -> Verdict:
    found = [
        ClassCollapse(seed=cell.seed, class_name=name, collapsed=entry.collapsed, explanation=entry.explanation)
        for cell in judged
        if cell.diversity is not None
        for name, entry in cell.diversity.per_class.items()
    ]
    found.sort(key=lambda one: not one.collapsed)
    answer, reason = (
        (Answer.YES if found[0].collapsed else Answer.NO, None) if found else (Answer.CANNOT_TELL, Reason.NOT_MEASURED)
    )
    return Verdict(
        question=Question.COLLAPSED,
        answer=answer,
        reason=reason,
        recipes=(recipe,),
        percent=judged[0].percent,
        evidence=CollapseEvidence(classes=tuple(found), not_measured=_refusals(judged, "diversity")),
    )


def _refusals(judged: Sequence[JudgeOutcome], report: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.refusals[report] for cell in judged if report in cell.refusals))


def _has_seeds(row: Comparison) -> bool:
    """Return whether both arms have enough generators, or classifiers where there are no generators, for a verdict."""
    return _enough(row.difference.a.counts) and _enough(row.difference.b.counts)


def _enough(counts: SeedCounts) -> bool:
    return (counts.classifiers if counts.generators is None else counts.generators) >= LEAST_SEEDS


def _is_significant(row: Comparison) -> bool:
    return row.p_holm is not None and row.p_holm < 1 - row.level


def _is_above(row: Comparison) -> bool:
    return _is_significant(row) and row.difference.value > 0
