"""The rules that questions are answered by, on records that are made up."""

import pytest

from condgan.metrics.memorization import MemorizationVerdict
from condgan.study.results import Answer, Family, Question, Reason
from condgan.study.verdicts import verdicts
from study.builders import arm, comparison, config, failed, judge, summary

ALONE, MIXED, REAL = arm("synthetic_1x", "acgan"), arm("real_plus_synthetic_1to1", "acgan"), arm("real")
METRIC = "balanced_accuracy"


def answers(question, *, cells=(), summaries=(), comparisons=(), planned=None, **changes):
    given = config(**changes)
    planned = len(cells) if planned is None else planned
    found = verdicts(given, "viral", 3, cells, summaries, comparisons, planned=planned)
    return [verdict for verdict in found if verdict.question is question]


def against_control(difference, *, a=MIXED, **options):
    return comparison(Family.CONTROL, a, REAL, METRIC, difference, primary=True, **options)


@pytest.mark.parametrize(
    ("rows", "answer", "reason"),
    [
        ([against_control(0.1, p_holm=0.04)], Answer.YES, None),
        ([against_control(0.1, p_holm=0.051)], Answer.CANNOT_TELL, Reason.WITHIN_CHANCE),
        ([against_control(-0.1, p_holm=0.01, reach=0.05)], Answer.NO, None),
        ([against_control(-0.1, p_holm=0.01, reach=0.051)], Answer.CANNOT_TELL, Reason.WITHIN_CHANCE),
        ([against_control(-0.1, p_holm=0.01), against_control(0.1, a=ALONE, p_holm=0.01)], Answer.YES, None),
        ([against_control(0.1, p_holm=0.01, seeds=2)], Answer.CANNOT_TELL, Reason.FEW_SEEDS),
        ([against_control(0.1, seeds=1)], Answer.CANNOT_TELL, Reason.FEW_SEEDS),
        (
            [against_control(0.1, p_holm=0.01), against_control(0.1, a=ALONE, seeds=2)],
            Answer.CANNOT_TELL,
            Reason.FEW_SEEDS,
        ),
    ],
)
def test_whether_images_help(rows, answer, reason):
    (found,) = answers(Question.IMAGES_HELP, comparisons=rows, summaries=[summary(REAL, METRIC)])
    assert (found.answer, found.reason) == (answer, reason)
    assert (found.evidence.compared, found.evidence.controls) == (len(rows), ("real",))


def test_a_significant_difference_is_the_best_before_a_larger_one():
    rows = [against_control(0.2, p_holm=0.3), against_control(0.1, a=ALONE, p_holm=0.01)]
    (found,) = answers(Question.IMAGES_HELP, comparisons=rows)
    assert found.evidence.best is rows[1]


@pytest.mark.parametrize(
    ("value", "seeds", "answer", "reason"),
    [
        (0.5, 3, Answer.YES, None),
        (0.5, 2, Answer.YES, Reason.FEW_SEEDS),
        (0.5, 1, Answer.CANNOT_TELL, Reason.FEW_SEEDS),
        (0.35, 3, Answer.CANNOT_TELL, Reason.WITHIN_CHANCE),
        (0.2, 3, Answer.NO, Reason.BELOW_GUESSING),
    ],
)
def test_whether_images_teach_alone(value, seeds, answer, reason):
    rows = [summary(ALONE, METRIC, value, seeds=seeds), summary(REAL, METRIC, 0.8), summary(MIXED, METRIC, 0.9)]
    (found,) = answers(Question.TEACH_ALONE, summaries=rows)
    assert (found.answer, found.reason, found.recipes) == (answer, reason, ("acgan",))
    assert (found.evidence.score, found.evidence.real) == (rows[0], rows[1])
    assert found.evidence.guessing == pytest.approx(1 / 3)


def test_a_metric_without_a_score_of_guessing_says_nothing_of_images_alone():
    rows = [summary(ALONE, "accuracy", 0.9)]
    assert answers(Question.TEACH_ALONE, summaries=rows, primary_metric="accuracy") == []


@pytest.mark.parametrize(
    ("difference", "options", "answer", "reason"),
    [
        (0.1, {"p_holm": 0.01}, Answer.FIRST, None),
        (-0.1, {"p_holm": 0.01}, Answer.SECOND, None),
        (0.1, {"p_holm": 0.2}, Answer.CANNOT_TELL, Reason.WITHIN_CHANCE),
        (0.1, {"p_holm": 0.01, "seeds": 2}, Answer.CANNOT_TELL, Reason.FEW_SEEDS),
    ],
)
def test_which_recipe_is_better(difference, options, answer, reason):
    row = comparison(Family.RECIPES, ALONE, arm("synthetic_1x", "acwgan_gp"), METRIC, difference, **options)
    (found,) = answers(Question.BETTER_RECIPE, comparisons=[row])
    assert (found.recipes, found.answer, found.reason) == (("acgan", "acwgan_gp"), answer, reason)


def test_recall_is_asked_of_each_recipe_and_of_each_percentage():
    def row(recipe, percent):
        sides = arm("synthetic_1x", recipe, percent), arm("real", None, percent)
        return comparison(Family.RARE, *sides, "recall/viral", 0.1, p_holm=0.01)

    rows = [row(recipe, percent) for percent in (100.0, 10.0) for recipe in ("acgan", "acwgan_gp")]
    found = answers(Question.RECALL_RISES, comparisons=rows, percents=(100.0, 10.0))
    asked = [(one.recipes, one.percent, one.evidence.compared) for one in found]
    assert asked == [(("acgan",), 100.0, 1), (("acwgan_gp",), 100.0, 1), ((), 10.0, 2)]
    assert {(one.class_name, one.metric, one.answer) for one in found} == {("viral", "recall/viral", Answer.YES)}


@pytest.mark.parametrize(
    ("found", "answer", "reason"),
    [
        ((MemorizationVerdict.NO_SIGN, MemorizationVerdict.COPIES), Answer.YES, Reason.COPIES),
        (
            (MemorizationVerdict.PATIENTS_RECOGNIZED, MemorizationVerdict.CANNOT_TELL),
            Answer.YES,
            Reason.PATIENTS_RECOGNIZED,
        ),
        ((MemorizationVerdict.PATIENTS_RECOGNIZED, MemorizationVerdict.COPIES), Answer.YES, Reason.COPIES),
        ((MemorizationVerdict.NO_SIGN, MemorizationVerdict.CANNOT_TELL), Answer.CANNOT_TELL, Reason.TOO_FEW_IMAGES),
        ((MemorizationVerdict.NO_SIGN, MemorizationVerdict.NO_SIGN), Answer.NO_SIGN, None),
    ],
)
def test_the_gravest_finding_of_copies_counts(found, answer, reason):
    cells = [judge("acgan", seed, verdict=verdict) for seed, verdict in enumerate(found)]
    (verdict,) = answers(Question.COPIES, cells=cells)
    assert (verdict.answer, verdict.reason) == (answer, reason)
    assert len(verdict.evidence.copies) == 2 * 3
    if answer is Answer.YES:
        assert verdict.evidence.copies[0].verdict.value == reason.value


def test_one_collapsed_class_is_a_collapse():
    (found,) = answers(Question.COLLAPSED, cells=[judge("acgan", 0), judge("acgan", 1, collapsed=True)])
    assert found.answer is Answer.YES
    assert [one.seed for one in found.evidence.classes] == [1] * 3 + [0] * 3
    (found,) = answers(Question.COLLAPSED, cells=[judge("acgan", 0)])
    assert found.answer is Answer.NO


def test_what_was_not_measured_is_not_known():
    refusals = {"memorization": "too few patients", "diversity": "too few images"}
    cells = [judge("acgan", seed, memorization=None, diversity=None, refusals=refusals) for seed in range(2)]
    for question, why in ((Question.COPIES, "too few patients"), (Question.COLLAPSED, "too few images")):
        (found,) = answers(question, cells=cells)
        assert (found.answer, found.reason) == (Answer.CANNOT_TELL, Reason.NOT_MEASURED)
        assert found.evidence.not_measured == (why,)


def test_failures_and_missing_cells_are_reported():
    (found,) = answers(Question.ALL_TRAINED, cells=[failed("acgan")])
    assert (found.answer, found.evidence.failed) == (Answer.NO, (failed("acgan"),))
    assert answers(Question.ALL_TRAINED, cells=[judge("acgan")]) == []
    (found,) = answers(Question.COMPLETE, cells=[failed("acgan")], planned=3)
    assert (found.evidence.finished, found.evidence.planned) == (1, 3)
    assert answers(Question.COMPLETE, cells=[failed("acgan")]) == []
