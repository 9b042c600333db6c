import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from condgan.files import to_json
from condgan.stats import recall_of
from condgan.study.report import RESEARCH_ONLY, write_report
from condgan.study.report.words import question_words, significant
from condgan.study.results import Answer, DifferencesEvidence, Family, Question, Reason, Verdict
from study import builders
from study.builders import (
    CREDIT,
    arm,
    comparison,
    failed,
    full_results,
    generator,
    judge,
    numbers,
    recall,
    small_results,
    write_pictures,
)


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
    assert "Questions without an answer yet (1 question)" in text
    said = [text.index(question_words(verdict)) for verdict in rows]
    assert said[0] < said[2] < text.index("Questions without an answer yet") < said[1]


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


def test_a_score_of_one_generator_has_no_interval(tmp_path):
    assert "0.750 no interval" in read(write_report(small_results(), tmp_path)).text


def test_study_that_has_just_begun(tmp_path):
    page = read(write_report(builders.results(), tmp_path, real_images=False))
    assert "Finished: 0 generators, 0 judged generators, 0 classifiers, 0 of 100 parts of the study." in page.text
    assert "No classifier has been tested." in page.text
    assert "No generator has been trained." in page.text


def test_what_could_not_be_judged_is_said(tmp_path):
    cell = judge("acgan", 0, memorization=None, refusals={"memorization": "too few held-out patients"})
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
    refusals = {"fidelity": bad, "memorization": bad}
    unjudged = judge("acgan", fidelity=None, memorization=None, diversity=None, gan_test=None, refusals=refusals)
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
