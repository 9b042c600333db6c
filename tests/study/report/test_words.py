import pytest

from condgan.metrics.memorization import MemorizationVerdict
from condgan.study.arms import ARMS
from condgan.study.report.words import ARM_NAMES, answer_words, finding_words, p_value, question_words, rule_words
from condgan.study.results import Answer, FailuresEvidence, Family, ProgressEvidence, Question, Reason, Verdict
from study import builders
from study.builders import alone, arm, better, collapse, comparison, copies, failed, recall

FAILED = Verdict(question=Question.ALL_TRAINED, answer=Answer.NO, evidence=FailuresEvidence(failed=(failed("acgan"),)))
PROGRESS = Verdict(question=Question.COMPLETE, answer=Answer.NO, evidence=ProgressEvidence(finished=6, planned=9))
COPIED, NO_SIGN = MemorizationVerdict.COPIES, MemorizationVerdict.NO_SIGN


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (recall("acgan", Answer.YES), "yes"),
        (recall("acgan", Answer.CANNOT_TELL, Reason.WITHIN_CHANCE), "cannot tell"),
        (recall("acgan", Answer.CANNOT_TELL, Reason.FEW_SEEDS), "cannot tell: fewer than three seeds"),
        (alone(Answer.YES), "yes"),
        (alone(Answer.YES, Reason.FEW_SEEDS, seeds=2), "yes, for 2 generator seeds only"),
        (alone(Answer.NO, Reason.BELOW_GUESSING), "no: it does worse than guessing"),
        (alone(Answer.CANNOT_TELL, Reason.WITHIN_CHANCE), "not distinguishable from guessing"),
        (alone(Answer.CANNOT_TELL, Reason.FEW_SEEDS, seeds=1), "cannot tell: fewer than three seeds"),
        (better(Answer.FIRST), "acgan"),
        (better(Answer.SECOND), "acwgan_gp"),
        (better(Answer.CANNOT_TELL, Reason.WITHIN_CHANCE), "cannot tell"),
        (copies(Answer.YES, Reason.COPIES, COPIED, NO_SIGN), "yes: it copies training images"),
        (copies(Answer.YES, Reason.PATIENTS_RECOGNIZED), "yes: training patients can be recognized"),
        (copies(Answer.CANNOT_TELL, Reason.TOO_FEW_IMAGES), "cannot tell: too few images"),
        (copies(Answer.CANNOT_TELL, Reason.NOT_MEASURED, why=("Too few.",)), "cannot tell: it was not measured"),
        (copies(Answer.NO_SIGN, None, NO_SIGN), "no sign of it"),
        (collapse(Answer.YES, True, True, True, False), "yes: seed 0 (class 0, class 1); seed 1 (class 0)"),
        (collapse(Answer.NO, False), "no"),
        (FAILED, "no: 1 failed"),
        (PROGRESS, "no"),
    ],
)
def test_answers_in_words(verdict, answer):
    assert answer_words(verdict) == answer


def test_questions_in_words():
    asked = [recall("acgan", Answer.YES), recall(None, Answer.YES, percent=10.0), alone(Answer.YES)]
    asked += [better(Answer.FIRST), copies(Answer.NO_SIGN, None), collapse(Answer.NO), FAILED, PROGRESS]
    words = [question_words(verdict) for verdict in asked]
    assert len(set(words)) == len(asked)
    assert all(word.endswith("?") for word in words)
    assert "With 10 % of the patients of viral" in words[1]
    assert question_words(better(Answer.FIRST), ("x", "y")).endswith("by AUROC: x or y?")


def test_evidence_in_words():
    said = finding_words(recall("acgan", Answer.YES))
    assert said == ["Best arm: acgan: pretrained minus real: +0.012 [-0.021, +0.045], Holm-corrected p 0.88."]
    assert "no if all simultaneous intervals of 4 arms end at or below 0" in rule_words(recall("acgan", Answer.NO))[-1]
    (said,) = finding_words(alone(Answer.YES))
    assert said.startswith(
        "Balanced accuracy of synthetic_1x: 0.750 [0.700, 0.800]; guessing: 0.333; real images: 0.875"
    )
    assert finding_words(copies(Answer.YES, Reason.COPIES, COPIED, NO_SIGN, NO_SIGN)) == [
        "Copies training images: seed 0 (class 0).",
        "No sign of copying: seed 0 (class 1, class 2).",
    ]
    assert finding_words(copies(Answer.CANNOT_TELL, Reason.NOT_MEASURED, why=("Too few.",))) == ["Too few."]
    assert finding_words(collapse(Answer.YES, True))[0] == "Seed 0, class 0: Explained 0."
    assert failed("acgan").error in finding_words(FAILED)[0]
    assert finding_words(PROGRESS)[0].startswith("6 of 9 cells")
    controls = builders.helps(comparison(Family.CONTROL, arm("pretrained", "acgan"), arm("real"), "auroc"))
    rule = " ".join(rule_words(controls))
    assert "The controls are real, real_weighted" in rule
    assert "Not run: real_augmented" in rule


def test_arms_have_names_for_readers():
    assert set(ARM_NAMES) == set(ARMS)


def test_small_p_values_are_not_shown_as_zero():
    assert p_value(1e-9) == "< 0.001"
    assert p_value(0.2) == "0.200"
