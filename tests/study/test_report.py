import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from condgan.files import to_json
from condgan.metrics.memorization import MemorizationVerdict
from condgan.stats import OVERALL_METRICS, recall_of
from condgan.study.arms import ARMS
from condgan.study.report import RESEARCH_ONLY, write_report
from condgan.study.report.charts import Mark, dot_chart, line_panel, nice_ticks
from condgan.study.report.view import make_view
from condgan.study.report.words import (
    ARM_NAMES,
    answer_words,
    finding_words,
    p_value,
    question_words,
    rule_words,
    significant,
)
from condgan.study.results import (
    AloneEvidence,
    Answer,
    ClassCollapse,
    ClassCopies,
    CollapseEvidence,
    CopiesEvidence,
    DifferencesEvidence,
    FailuresEvidence,
    Family,
    ProgressEvidence,
    Question,
    Reason,
    Verdict,
)
from study import builders
from study.builders import CREDIT, RECIPES, arm, classifier, comparison, failed, full_results, generator, judge, summary


def small_results():
    """One classifier of real images and one of the images of one generator."""
    keys = [arm("real"), arm("synthetic_1x", "acgan")]
    scores = [summary(key, metric, seeds=1) for key in keys for metric in (*OVERALL_METRICS, recall_of("viral"))]
    return builders.results(
        cells=tuple(classifier(key.arm, recipe=key.recipe) for key in keys),
        summaries=tuple(
            replace(s, estimate=replace(s.estimate, counts=replace(s.estimate.counts, classifiers=1))) for s in scores
        ),
    )


def write_pictures(folder):
    """Write a sheet for each generator and of real images, and return the real ones as they stand in a page."""
    names = [f"gans/gan-{recipe}-s{seed}-p100/" for recipe in RECIPES for seed in range(2)]
    rng = np.random.default_rng(2)
    secret = []
    for name in ["real.png", *(name + file for name in names for file in ("samples.png", "neighbors.png"))]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (3 * 66 + 2, 8 * 66 + 2), dtype=np.uint8)).save(path)
        if not name.endswith("samples.png"):
            secret.append(base64.b64encode(path.read_bytes()).decode())
    return secret


class Page(HTMLParser):
    """Text of a page, its elements, and whether they are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.shown, self.figures = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "path", "circle", "polyline"):
            self.open.append((tag, dict(attributes)))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag != "style":
            self.shown.append(data)
        inside = [attributes.get("class", "") for _, attributes in self.open]
        if (tag == "td" and attributes.get("class") == "n") or "value" in inside:
            self.figures.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.shown).split())


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    secret = write_pictures(folder)
    return folder, secret, write_report(full_results(), folder).read_text(encoding="utf-8")


def numbers(content):
    if isinstance(content, dict):
        return [found for value in content.values() for found in numbers(value)]
    if isinstance(content, list):
        return [found for value in content for found in numbers(value)]
    if isinstance(content, (int, float)) and not isinstance(content, bool):
        return [content]
    return [float(found) for found in re.findall(r"-?\d+\.?\d*", content)] if isinstance(content, str) else []


def test_page_is_whole_and_loads_nothing(report):
    _, _, text = report
    page = Page(text)
    assert RESEARCH_ONLY in page.text
    loaded = [value for _, attributes in page.elements for name, value in attributes.items() if name == "src"]
    assert len(loaded) == 8  # real ones, four samples, three neighbors
    assert all(value.startswith("data:image/png;base64,") for value in loaded)
    assert {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements} == set()
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policies = [attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_page_is_accessible(report):
    page = Page(report[2])
    assert ("html", {"lang": "en"}) in page.elements
    assert any(attributes.get("name") == "viewport" for _, attributes in page.elements)
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg")
    assert all(attributes.get("scope") for tag, attributes in page.elements if tag == "th")
    scrolled = [attributes for _, attributes in page.elements if attributes.get("class") == "scroll"]
    assert scrolled
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scrolled)
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    targets = [attributes["href"][1:] for tag, attributes in page.elements if tag == "a"]
    assert len(set(names)) == len(names)
    assert set(targets) <= set(names)
    assert len(targets) == 9


def test_every_figure_shown_is_in_the_results(report):
    results = full_results()
    known = numbers(to_json(results)) + [sum(part.counts) for part in results.data.parts.values()]
    forms = {
        form
        for value in known
        for form in (f"{value:g}", significant(value), *(f"{value:.{digits}f}" for digits in range(4)))
    }
    shown = [found for data in Page(report[2]).figures for found in re.findall(r"(?<![\w.])-?\d+\.?\d*", data)]
    assert len(shown) > 1000
    assert sorted(set(shown) - forms - {"0.001"}) == []  # p < 0.001


def test_every_score_is_shown(report):
    text = Page(report[2]).text
    for found in full_results().summaries:
        if found.arm.percent == 100 or found.metric == recall_of("viral"):
            ends = found.estimate.interval
            assert f"{found.estimate.value:.3f} [{ends.low:.3f}, {ends.high:.3f}]" in text


def test_verdicts_come_first_and_figures_say_what_they_rest_on(report):
    text = Page(report[2]).text
    question = text.index("Do generated images help, by balanced accuracy?")
    assert text.index(RESEARCH_ONLY) < question < text.index("624 test images of 428 patients")
    assert text.index("cannot tell") > question
    assert text.index("3 generator seeds x 3 classifier seeds") > question
    assert "1002 generated and 1002 training against 234 test images" in text
    assert "ResNet-18, in domain, weights 0123456789abcdef, resize: none, cross-fitted in 2 folds" in text
    assert "best control" in text
    assert "copies training images" in text
    assert "30 exact and 4 near duplicates" in text
    assert "acgan/synthetic_1x" in text
    assert CREDIT in text


def test_the_main_verdict_is_never_folded_away_and_other_open_ones_are(tmp_path):
    results = full_results()
    (main,) = results.verdicts
    rows = (main, recall("acgan", Answer.CANNOT_TELL, Reason.WITHIN_CHANCE), recall("acwgan_gp", Answer.NO))
    text = read(write_report(replace(results, verdicts=rows), tmp_path)).text
    assert "What cannot be told (1 question)" in text
    said = [text.index(question_words(verdict)) for verdict in rows]
    assert said[0] < said[2] < text.index("What cannot be told") < said[1]


def test_report_without_real_images(report, tmp_path):
    _, secret, text = report
    assert all(picture in text for picture in secret[:2])
    write_pictures(tmp_path)
    shared = write_report(full_results(), tmp_path, real_images=False).read_text(encoding="utf-8")
    assert not any(picture in shared for picture in secret)
    page = Page(shared)
    assert "Real images are left out of this report." in page.text
    assert "acgan, seed 0: left out, because images of normal, bacterial, viral were found to be copies" in page.text
    assert sum(tag == "img" for tag, _ in page.elements) == 3  # the generators that were not found to copy


def test_small_study_without_pictures(tmp_path):
    page = read(write_report(small_results(), tmp_path))
    assert "No verdict yet" in page.text
    assert "Trained once only: acgan." in page.text
    assert "one classifier seed only" in page.text
    assert page.text.count("Not measured") == 4  # the sweep and three judgements
    assert "real.png is missing" in page.text
    assert "No two arms have been compared." in page.text


def test_a_score_of_one_generator_has_no_bar(tmp_path):
    results = small_results()
    bars = {mark.mark.label: mark.bar for _, marks in make_view(results).charts[0].groups for mark in marks}
    assert bars["real images"] is not None
    assert bars["generated only, as many as real"] is None
    assert "0.750 no interval" in read(write_report(results, tmp_path)).text


def test_study_that_has_just_begun(tmp_path):
    page = read(write_report(builders.results(), tmp_path, real_images=False))
    assert "Finished: 0 generators, 0 judged generators, 0 classifiers, 0 of 100 parts of the study." in page.text
    assert "No classifier has been tested." in page.text
    assert "No generator has been trained." in page.text


def test_what_could_not_be_judged_is_said(tmp_path):
    cell = judge("acgan", 0, memorization=None, refused={"memorization": "too few held-out patients"})
    results = builders.results(cells=(cell, failed("acgan", 1), generator("acgan")))
    page = read(write_report(results, tmp_path))
    assert "acgan, seed 0: not measured. too few held-out patients" in page.text
    assert "Nobody has tested whether these are copies" not in page.text  # the picture is missing
    assert "Finished: 1 generator, 1 judged generator, 0 classifiers" in page.text


def test_missing_pictures_are_said(tmp_path):
    page = read(write_report(full_results(), tmp_path))
    assert page.text.count("samples.png is missing") == 4
    assert "gan-acgan-s0-p100/neighbors.png is missing" in page.text


def test_text_is_escaped(tmp_path):
    bad = '<script>alert("x")</script>{0}{{ 1 }}'
    best = comparison(Family.CONTROL, arm("synthetic_1x", "acgan"), arm("real"), "auroc", primary=True)
    verdict = Verdict(
        question=Question.RECALL_RISES,
        answer=Answer.NO,
        class_name=bad,
        recipes=("acgan",),
        evidence=DifferencesEvidence(best=best, compared=1),
    )
    refused = {"fidelity": bad, "memorization": bad}
    unjudged = judge("acgan", fidelity=None, memorization=None, diversity=None, gan_test=None, refused=refused)
    results = small_results()
    results = replace(
        results,
        what=bad,
        command=bad,
        commit=bad,
        cells=(*results.cells, unjudged),
        verdicts=(verdict,),
        test_evaluations={bad: 1},
        data=builders.data(source=bad, attribution=bad, notice=bad, notes=(bad,), class_names=(bad, "b", "viral")),
    )
    text = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in text
    assert Page(text).text.count(bad) > 8


def test_the_sweep_is_drawn_over_the_patients_kept():
    sweep = make_view(full_results()).sweep
    assert sweep.rare == "viral"
    assert [share.percent for share in sweep.panels[0].shares] == [10, 50, 100]
    assert [share.images for share in sweep.panels[0].shares] == [114, 572, 1143]
    assert sweep.has_reference
    assert all(panel.lines[0].style == "ref" for panel in sweep.panels)
    assert make_view(small_results()).sweep is None


# Words of verdicts


def recall(recipe, answer, reason=None, percent=100.0):
    best = comparison(Family.RARE, arm("pretrained", recipe or "acgan", percent), arm("real"), recall_of("viral"))
    return Verdict(
        question=Question.RECALL_RISES,
        answer=answer,
        reason=reason,
        recipes=(recipe,) if recipe else (),
        class_name="viral",
        metric=recall_of("viral"),
        percent=percent,
        evidence=DifferencesEvidence(best=best, compared=4),
    )


def alone(answer, reason=None, seeds=3):
    score = summary(arm("synthetic_1x", "acgan"), "balanced_accuracy", seeds=seeds)
    evidence = AloneEvidence(score=score, guessing=1 / 3, real=summary(arm("real"), "balanced_accuracy", 0.875))
    return Verdict(
        question=Question.TEACH_ALONE,
        answer=answer,
        reason=reason,
        recipes=("acgan",),
        metric="balanced_accuracy",
        evidence=evidence,
    )


def better(answer, reason=None):
    row = comparison(Family.RECIPES, arm("synthetic_1x", "acgan"), arm("synthetic_1x", "acwgan_gp"), "auroc")
    evidence = DifferencesEvidence(best=row, compared=1)
    return Verdict(
        question=Question.BETTER_RECIPE,
        answer=answer,
        reason=reason,
        recipes=RECIPES,
        metric="auroc",
        evidence=evidence,
    )


def copies(answer, reason, *verdicts, why=()):
    found = tuple(ClassCopies(seed=0, class_name=f"class {i}", verdict=v) for i, v in enumerate(verdicts))
    evidence = CopiesEvidence(copies=found, not_measured=why)
    return Verdict(question=Question.COPIES, answer=answer, reason=reason, recipes=("acgan",), evidence=evidence)


def collapse(answer, *collapsed):
    classes = tuple(
        ClassCollapse(seed=i // 2, class_name=f"class {i % 2}", collapsed=found, explanation=f"Explained {i}.")
        for i, found in enumerate(collapsed)
    )
    evidence = CollapseEvidence(classes=classes)
    return Verdict(question=Question.COLLAPSED, answer=answer, recipes=("acgan",), evidence=evidence)


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
        (FAILED, "no: 1 diverged"),
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
    assert (
        "no where all simultaneous intervals of 4 arms end at or below 0" in rule_words(recall("acgan", Answer.NO))[-1]
    )
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


# Charts and numbers


def test_arms_have_names_for_readers():
    assert set(ARM_NAMES) == set(ARMS)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (-3e-5, 2e-4), (0, 1), (17, 1234), (-0.02, -0.01)])
def test_ticks_span_the_range(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low < high <= ticks[-1]
    assert 2 <= len(ticks) <= 8


def test_dots_lie_in_the_order_of_their_values_within_the_chart():
    marks = [Mark("a", 0.2, (0.1, 0.3)), Mark("b", 0.5, None), Mark("c", 0.9, (0.8, 1.2))]
    chart = dot_chart("x", {"": marks}, caption="", reference=(0.5, "guessing"), limits=(0.0, 1.0))
    ((_, placed),) = chart.groups
    places = [place for mark in placed for place in (mark.x, *(mark.bar or ()))]
    assert all(0 < place < 100 for place in places)
    assert placed[0].bar[0] < placed[0].x < placed[0].bar[1] < placed[1].x < placed[2].x
    assert chart.reference.at == placed[1].x
    assert placed[2].bar[1] == chart.ticks[-1].at  # cut at the limit


def test_a_line_panel_says_its_numbers():
    points = [(100.0, Mark("x", 0.75, (0.5, 1.0))), (10.0, Mark("x", 0.25, None))]
    panel = line_panel("recall", {"acgan": points}, {10.0: 3, 100.0: 30})
    assert panel.said == "recall. acgan: 0.750 at 100 %, 0.250 at 10 %"
    (line,) = panel.lines
    first, last = line.points
    assert first.x < last.x
    assert first.y > last.y  # down is less
    assert first.bar is None


def test_small_p_values_are_not_shown_as_zero():
    assert p_value(1e-9) == "< 0.001"
    assert p_value(0.2) == "0.200"
