import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from condgan.metrics.copying import CopyTest, DataCopying
from condgan.metrics.diversity import ClassDiversity, Diversity, DiversityReport, MeanWithError
from condgan.metrics.extractors import ExtractorInfo
from condgan.metrics.fidelity import Score
from condgan.metrics.fidelity_report import FidelityComparison, FidelityReport
from condgan.metrics.membership import MembershipInference
from condgan.metrics.memorization import ClassMemorization, MemorizationReport
from condgan.metrics.neighbors import Neighbors
from condgan.stats import Estimate
from condgan.study.arms import ARMS, CONTROLS
from condgan.study.report import RESEARCH_ONLY, write_report
from condgan.study.report_figures import nice_ticks
from condgan.study.report_html import p_value, render, significant
from condgan.study.report_words import ARM_NAMES

CLASSES = ["normal", "bacterial", "viral"]
RECIPES = ["acgan", "acwgan_gp"]
METRICS = ["accuracy", "balanced_accuracy", "auroc", "macro_f1"]
EXTRACTOR = ExtractorInfo(name="ResNet-18, in domain", weights_hash="0123456789abcdef", resize="none")
CREDIT = "Kermany et al. 2018, CC BY 4.0, https://data.mendeley.com/datasets/rscbjbr9sj"


def classifier(arm, percent=100.0, seed=0, recipe=None, rng=None):
    recalls = rng.uniform(0.5, 0.95, 3)
    value = float(recalls.mean())
    scores = dict.fromkeys(METRICS, value)
    return {
        "name": "-".join(["classifier", *([recipe, f"s{seed}"] if recipe else []), arm, "c0", f"p{percent:g}"]),
        "kind": "classifier",
        "recipe": recipe,
        "classes": 3,
        "seed": seed if recipe else None,
        "classifier_seed": 0,
        "arm": arm,
        "p": percent,
        "train_counts": [1140, 2150, round(1143 * percent / 100)],
        "real_counts": [1140, 2150, round(1143 * percent / 100)],
        "confusion": [[201, 20, 13], [8, 222, 12], [9, 30, 109]],
        "metrics": {**scores, "recall": recalls.tolist()},
        "interval": {name: Estimate(value, value - 0.03, value + 0.03).as_dict() for name in scores},
        "seconds": 31.25,
        "device": "cpu",
        "commit": "3323f0e97fae",
    }


def summary(recipe, arm, percent, metric, rng, *, seeds=3):
    value, half = rng.uniform(0.55, 0.93), rng.uniform(0.02, 0.09)
    return {
        "recipe": recipe,
        "arm": arm,
        "p": percent,
        "metric": metric,
        "value": value,
        "low": value - half,
        "high": value + half,
        "components": {"patients": 0.0004},
        "degrees_of_freedom": 5.5,
        "generator_seeds": seeds if recipe else 0,
        "classifier_seeds": 3,
        "patients": 428,
        "images": 624,
        "relative_usefulness": 0.875 if recipe and metric == "balanced_accuracy" else None,
    }


def compared(metric, difference, size):
    scores = [
        Score(metric, value, size, 234, EXTRACTOR, {"subset_size": 234, "seed": 0}, ("subset size lowered",))
        for value in (0.02 + difference, 0.02)
    ]
    return FidelityComparison(*scores, Estimate(difference, difference - 0.004, difference + 0.0045))


def judge(recipe, seed, *, verdict="no sign of copying", collapsed=False):
    fidelity = FidelityReport(
        extractor=EXTRACTOR,
        overall={"kid": compared("kid", 0.031, 4000), "coverage": compared("coverage", -0.25, 4000)},
        per_class={name: {"kid": compared("kid", 0.01 * i, 1000 + i)} for i, name in enumerate(CLASSES)},
        settings={"seed": 17, "folds": 2},
    )
    one = Diversity(512, 300, 999, MeanWithError(0.31, 0.004), MeanWithError(9.1, 0.2), MeanWithError(4.4, 0.1), 300)
    diversity = DiversityReport(
        EXTRACTOR,
        {n: ClassDiversity(one, one, collapsed, f"{'C' if collapsed else 'Not c'}ollapsed: half.") for n in CLASSES},
        {"seed": 18},
    )
    copies = CopyTest(7, 3.25, 512, 301, 0.6, 0.0066, 0.042, 0.031)
    around = Estimate(0.51, 0.47, 0.55)
    found = ClassMemorization(
        verdict=verdict,
        explanation="7 of 512 generated images stand out as near one training image.",
        images=(512, 1140, 310),
        patients=(900, 301),
        copies=copies,
        close=copies,
        c_t=DataCopying(-1.25, 0.105, 1, 1.0),
        authenticity=around,
        authenticity_held_out=around,
        membership=MembershipInference(around, around),
        shift=around,
        distances=(1.0, 2.0, 3.0, 4.0, 5.0),
        distances_held_out=(1.0, 2.0, 3.0, 4.0, 5.0),
    )
    memorization = MemorizationReport(
        EXTRACTOR,
        dict.fromkeys(CLASSES, found),
        {"exact": 30, "near": 4, "held_out": 1},
        {"seed": 19},
        Neighbors(None, None),
    )
    parts = {"fidelity": fidelity, "diversity": diversity, "memorization": memorization}
    return {
        "name": f"judge-{recipe}-s{seed}-p100",
        "kind": "judge",
        "recipe": recipe,
        "seed": seed,
        "p": 100.0,
        **{name: part.as_dict() for name, part in parts.items()},
        "refused": {},
        "gan_test": {"samples": 4433, "recall": {name: around.as_dict() for name in CLASSES}},
    }


def gan(recipe, seed):
    return {"name": f"gan-{recipe}-s{seed}-p100", "kind": "gan", "recipe": recipe, "seed": seed, "p": 100.0}


def base(**entries):
    counts = {"train": [1140, 2150, 1143], "validation": [201, 380, 202], "test": [234, 242, 148]}
    content = {
        "schema": 1,
        "what": "Chest X-rays: are generated images good for anything?",
        "config": {
            "reduced_class": "viral",
            "level": 0.95,
            "recipes": {recipe: {"steps": 20000} for recipe in RECIPES},
        },
        "data": {
            "source": "Kermany chest X-rays",
            "attribution": CREDIT,
            "fingerprints": {"train": "aa11", "validation": "bb22", "test": "cc33"},
            "class_names": CLASSES,
            "counts": counts,
            "patients": {"train": 2450, "validation": 430, "test": 428},
            "duplicates_removed": 34,
            "repeats_of_other_sets_removed": 2,
            "notes": [],
            "image_shape": [1, 64, 64],
        },
        "commit": "3323f0e97fae",
        "device": "cpu, 2 threads",
        "versions": {"condgan": "0.1.0", "torch": "2.15.0"},
        "cells": [],
        "summaries": [],
        "comparisons": [],
        "verdicts": [],
        "test_evaluations": {},
    }
    return json.loads(json.dumps({**content, **entries}))


def full():
    rng = np.random.default_rng(0)
    metrics = [*METRICS, *(f"recall/{name}" for name in CLASSES)]
    arms = [(None, arm) for arm in CONTROLS]
    arms += [(recipe, arm) for recipe in RECIPES for arm in ARMS if arm not in CONTROLS]
    swept = [(recipe, arm, p) for recipe, arm in arms for p in (100.0, 50.0, 10.0)]
    sides = ({"recipe": r, "arm": arm, "p": 100.0} for r, arm in (("acgan", "pretrained"), (None, "real_weighted")))
    difference = {"difference": 0.012, "low": -0.021, "high": 0.045, "p_value": 0.44, "p_holm": 0.88}
    a, b = sides
    secondary = {"of": "the first classifier of either arm", "mcnemar": {"p_value": 0.00002}, "delong": None}
    common = {**difference, "a": a, "b": b, "secondary": secondary}
    return base(
        cells=[
            *(classifier(arm, p, 0, recipe, rng) for recipe, arm, p in swept),
            *(gan(recipe, seed) for recipe in RECIPES for seed in range(2)),
            judge("acgan", 0, verdict="copies training images", collapsed=True),
            judge("acwgan_gp", 0),
            judge("acwgan_gp", 1, verdict="cannot tell: too few images"),
        ],
        summaries=[summary(recipe, arm, p, metric, rng) for recipe, arm, p in swept for metric in metrics],
        comparisons=[
            {**common, "family": "control", "metric": "balanced_accuracy", "primary": True},
            {**common, "family": "control", "metric": "auroc", "primary": False},
            {**common, "family": "rare", "metric": "recall/viral", "primary": False},
        ],
        verdicts=[
            {
                "question": "Do generated images help?",
                "answer": "Cannot tell.",
                "evidence": "The best is 0.012 [-0.021, 0.045] above the best control. There are five of them.",
            },
            {
                "question": "Is the rarest class served better?",
                "answer": "It does not help the rarest class, viral, in this study.",
                "evidence": "Recall of viral: acgan 0.700, real images 0.720.",
            },
        ],
        command="condgan study chest_xray --recipes acgan,acwgan_gp --seeds 3 --out study",
        cells_planned=71,
        test_evaluations={"acgan/pretrained": 9, "real": 3},
    )


def minimal():
    rng = np.random.default_rng(1)
    sides = [(None, "real"), ("acgan", "synthetic_1x")]
    return base(
        cells=[classifier(arm, recipe=recipe, rng=rng) for recipe, arm in sides],
        summaries=[
            {**summary(recipe, arm, 100.0, m, rng, seeds=1), "classifier_seeds": 1}
            for recipe, arm in sides
            for m in METRICS
        ],
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


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    secret = write_pictures(folder)
    return folder, secret, write_report(full(), folder).read_text(encoding="utf-8")


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
    assert "default-src 'none'" in text


def test_page_is_accessible(report):
    _, _, text = report
    page = Page(text)
    assert ("html", {"lang": "en"}) in page.elements
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg")
    assert all(attributes.get("scope") for tag, attributes in page.elements if tag == "th")
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    targets = [attributes["href"][1:] for tag, attributes in page.elements if tag == "a"]
    assert len(set(names)) == len(names)
    assert set(targets) <= set(names)


def test_every_figure_shown_is_in_the_results(report):
    _, _, text = report
    results = full()
    known = numbers(results) + [sum(found) for found in results["data"]["counts"].values()]
    forms = {
        form
        for value in known
        for form in (f"{value:g}", significant(value), *(f"{value:.{digits}f}" for digits in range(4)))
    }
    shown = [found for data in Page(text).figures for found in re.findall(r"(?<![\w.])-?\d+\.?\d*", data)]
    assert len(shown) > 1000
    assert sorted(set(shown) - forms - {"0.001"}) == []  # p < 0.001


def test_verdicts_come_first_and_figures_say_what_they_rest_on(report):
    text = Page(report[2]).text
    answer = text.index("Cannot tell.")
    assert text.index(RESEARCH_ONLY) < answer < text.index("624 test images of 428 patients")
    assert text.index("3 generator seeds x 3 classifier seeds") > answer
    assert "1002 generated and 1002 training against 234 test images" in text
    assert "ResNet-18, in domain, weights 0123456789abcdef, resize: none, cross-fitted in 2 folds" in text
    assert "best control" in text
    assert "chance" in text
    assert "copies training images" in text
    assert "acgan/pretrained" in text
    assert CREDIT in text


def test_report_without_real_images(report, tmp_path):
    _, secret, text = report
    assert all(picture in text for picture in secret[:2])
    write_pictures(tmp_path)
    shared = write_report(full(), tmp_path, real_images=False).read_text(encoding="utf-8")
    assert not any(picture in shared for picture in secret)
    page = Page(shared)
    assert "Real images are left out of this report." in page.text
    assert "acgan, seed 0: left out, because images of normal, bacterial, viral were found to be copies" in page.text
    assert sum(tag == "img" for tag, _ in page.elements) == 3  # the generators that were not found to copy


def test_small_study_without_pictures(tmp_path):
    page = Page(write_report(minimal(), tmp_path).read_text(encoding="utf-8"))
    assert "No verdict yet" in page.text
    assert "Trained once only: acgan." in page.text
    assert "one classifier seed only" in page.text
    assert page.text.count("Not measured") == 4  # the sweep and three judgements
    assert "real.png is missing" in page.text
    assert "No two arms have been compared." in page.text


def test_study_that_has_just_begun(tmp_path):
    page = Page(write_report(base(), tmp_path, real_images=False).read_text(encoding="utf-8"))
    assert "Finished: 0 generators, 0 judged generators, 0 classifiers." in page.text
    assert "No classifier has been tested." in page.text


def test_what_could_not_be_judged_is_said(tmp_path):
    cell = {**judge("acgan", 0), "memorization": None, "refused": {"memorization": "too few held-out patients"}}
    failed = {**gan("acgan", 1), "error": "the loss was not finite"}
    page = Page(write_report(base(cells=[cell, failed, gan("acgan", 0)]), tmp_path).read_text(encoding="utf-8"))
    assert "acgan, seed 0: not measured. too few held-out patients" in page.text
    assert "Nobody has tested whether these are copies" not in page.text  # the picture is missing
    assert "Finished: 1 generator, 1 judged generator, 0 classifiers" in page.text


def test_missing_pictures_are_said(tmp_path):
    page = Page(write_report(full(), tmp_path).read_text(encoding="utf-8"))
    assert page.text.count("samples.png is missing") == 4
    assert "gan-acgan-s0-p100/neighbors.png is missing" in page.text


def test_text_is_escaped(tmp_path):
    bad = '<script>alert("x")</script>{0}'
    results = minimal()
    for cell in [*results["cells"], *results["summaries"]]:
        cell["recipe"] = cell["recipe"] and bad
    results |= {"what": bad, "verdicts": [{"question": bad, "answer": bad, "evidence": bad}], "commit": bad}
    results["data"] |= {"class_names": [bad, "b", "c"], "source": bad, "attribution": bad}
    text = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in text
    assert Page(text).text.count(bad) > 8
    assert render("<p>{x}</p>", x="a & b") == "<p>a &amp; b</p>"


def test_other_schemas_are_refused(tmp_path):
    with pytest.raises(ValueError, match="results must be of schema 1, got 2"):
        write_report(base(schema=2), tmp_path)


def test_arms_have_names_for_readers():
    assert set(ARM_NAMES) == set(ARMS)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (-3e-5, 2e-4), (0, 1), (17, 1234), (-0.02, -0.01)])
def test_ticks_span_the_range(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low < high <= ticks[-1]
    assert 2 <= len(ticks) <= 8


def test_small_p_values_are_no_zeros():
    assert p_value(1e-9) == "< 0.001"
    assert p_value(0.2) == "0.200"
