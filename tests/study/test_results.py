"""Records of results: there and back through JSON, and errors about other files."""

import json
from dataclasses import fields, replace

import pytest

from condgan.files import from_json, to_json
from condgan.metrics.memorization import MemorizationVerdict
from condgan.study.results import (
    AloneEvidence,
    Answer,
    ClassCollapse,
    ClassCopies,
    CollapseEvidence,
    CopiesEvidence,
    Evidence,
    FailuresEvidence,
    ProgressEvidence,
    Question,
    Results,
    Verdict,
    guessing,
    rare_class,
    read_outcome,
    recalled_class,
)
from study.builders import (
    CLASSES,
    RECIPES,
    arm,
    classifier,
    config,
    data,
    failed,
    full_results,
    generator,
    judge,
    results,
    summary,
)

EVIDENCE = [
    AloneEvidence(score=summary(arm("synthetic_1x", "acgan"), "auroc", seeds=1), guessing=0.5, real=None),
    CopiesEvidence(copies=(ClassCopies(seed=0, class_name="viral", verdict=MemorizationVerdict.COPIES),)),
    CopiesEvidence(copies=(), not_measured=("too few images",)),
    CollapseEvidence(classes=(ClassCollapse(seed=0, class_name="viral", collapsed=True, explanation="Collapsed."),)),
    CollapseEvidence(classes=(), not_measured=("too few images",)),
    FailuresEvidence(failed=(failed("acgan"),)),
    ProgressEvidence(finished=3, planned=5),
]


def there_and_back(cls, record):
    return from_json(cls, json.loads(json.dumps(to_json(record), allow_nan=False)))


def test_results_are_read_as_they_were_written(tmp_path):
    given = full_results()
    given.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == given


@pytest.mark.parametrize(
    "outcome",
    [
        classifier("real"),
        classifier("synthetic_1x", recipe="acgan", seed=2, percent=10.0),
        generator("acgan"),
        judge("acgan", verdict=MemorizationVerdict.PATIENTS_RECOGNIZED),
        judge("acgan", fidelity=None, memorization=None, refusals={"fidelity": "too few images"}, gan_test=None),
        failed("acgan"),
    ],
    ids=lambda outcome: outcome.name,
)
def test_outcomes_are_read_as_what_they_are(outcome):
    assert read_outcome(json.loads(json.dumps(to_json(outcome)))) == outcome


@pytest.mark.parametrize("evidence", EVIDENCE, ids=lambda evidence: type(evidence).__name__)
def test_verdicts_are_read_with_their_evidence(evidence):
    verdict = Verdict(question=Question.COPIES, answer=Answer.CANNOT_TELL, evidence=evidence)
    assert there_and_back(Verdict, verdict) == verdict


def test_every_kind_of_evidence_is_recognized_by_its_fields():
    """Which record an evidence is shows in its keys alone."""
    kinds = Evidence.__args__
    for kind in kinds:
        own = {field.name for field in fields(kind)}
        others = [{field.name for field in fields(other)} for other in kinds if other is not kind]
        assert all(own - other for other in others), kind


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, "must have schema 2, got 1"),
        ({"cels": []}, "unknown key 'cels', did you mean 'cells'"),
        ({"cells_planned": "many"}, "cells_planned: invalid literal"),
        (
            {"verdicts": [{"question": "why", "answer": "no", "evidence": {"finished": 1, "planned": 2}}]},
            "'why' is not",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_said(change, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({**to_json(results()), **change}))
    with pytest.raises(ValueError, match=message):
        Results.read(path)


def test_a_wrong_value_deep_inside_is_found():
    content = to_json(full_results())
    content["cells"][0]["report"]["auroc"]["value"] = "high"
    content["config"]["level"] = 95
    with pytest.raises(ValueError, match=r"config: level must lie between 0 and 1, got 95") as raised:
        from_json(Results, content)
    assert "cells[0].report.auroc.value: could not convert string to float: 'high'" in str(raised.value)


def test_cells_are_sorted_by_kind():
    given = results(cells=(classifier("real"), generator("acgan"), judge("acgan"), failed("acwgan_gp")))
    assert [cell.name for cell in given.classifiers] == ["classifier-real-c0-p100"]
    assert [cell.name for cell in given.generators] == ["gan-acgan-s0-p100"]
    assert [cell.name for cell in given.judged] == ["judge-acgan-s0-p100"]
    assert [cell.error for cell in given.failed] == ["critic/adversarial is not finite in step 3"]


def test_copied_classes_are_those_of_the_generator():
    cells = (
        judge("acgan", 0, verdict=MemorizationVerdict.COPIES),
        judge("acgan", 1),
        judge("acwgan_gp", memorization=None),
    )
    given = results(cells=cells)
    assert given.copied("acgan", 0) == CLASSES
    assert given.copied("acgan", 1) == ()
    assert given.copied("acwgan_gp", 0) is None
    assert given.copied("acgan", 7) is None


def test_the_rare_class_is_the_one_made_rare_or_the_rarest():
    assert rare_class(config(reduced_class="bacterial"), data()) == "bacterial"
    assert rare_class(config(reduced_class=None), data()) == "normal"
    fewer = replace(data().train, counts=(3, 1, 2))
    assert results(config=config(reduced_class=None), data=data(train=fewer)).rare_class == "bacterial"


def test_summaries_by_arm_are_those_of_a_percentage():
    given = full_results()
    main = given.by_arm()
    assert {key.percent for key in main} == {100.0}
    assert {key.recipe for key in main} == {None, *RECIPES}
    assert {key.percent for key in given.by_arm(10.0)} == {10.0}
    assert all(found[metric].metric == metric for found in main.values() for metric in found)


def test_names_of_metrics():
    assert recalled_class("recall/normal") == "normal"
    assert recalled_class("macro_f1") is None
    assert [guessing(metric, 3) for metric in ("balanced_accuracy", "auroc", "accuracy")] == [1 / 3, 0.5, None]
