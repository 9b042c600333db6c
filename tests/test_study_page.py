"""Pages that show a study: what they say is in its results, and what is missing is said or left out."""

import doctest
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from condgan.images import save_sheet
from condgan.runs import RecipeConfig
from condgan.study import StudyConfig
from condgan.study.cells import make_cells
from condgan.study.report_html import DASH, significant

ROOT = Path(__file__).parents[1]
MODULES = ("page_parts", "study_tables", "study_words", "study_pictures", "study_page", "published_numbers")


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made_up = load(ROOT / "tests/study/test_report.py", "made_up_studies")


@pytest.fixture
def docs(monkeypatch):
    """The modules behind the pages, by name."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    update = load(ROOT / "docs/update.py", "update")
    return SimpleNamespace(update=update, **{name: sys.modules.get(name) or __import__(name) for name in MODULES})


@pytest.fixture
def site(docs, tmp_path, monkeypatch):
    """A README and a page with marks, in a folder of their own."""
    pages = tmp_path / "docs/pages"
    pages.mkdir(parents=True)
    monkeypatch.setattr(docs.update, "ROOT", tmp_path)
    monkeypatch.setattr(docs.update, "PAGES", pages)
    sections = ("cpu-two-classes", "cpu-two-classes-picture", "two-classes", "published")
    for path in (tmp_path / "README.md", pages / "study.md"):
        path.write_text("\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in sections), encoding="utf-8")
    return SimpleNamespace(root=tmp_path, readme=tmp_path / "README.md", page=pages / "study.md", pages=pages)


def write_study(folder, results, *, published=False):
    """Write results and pictures as a study leaves them, or as its published part has them."""
    folder.mkdir(parents=True)
    made_up.write_pictures(folder)
    rows = [{"step": step, "critic/adversarial": 1 / step} for step in (1, 2, 3)]
    for gan in list((folder / "gans").iterdir()):
        (gan / "curve.json").write_text(json.dumps(rows), encoding="utf-8")
        if published:
            for kind, file in (("samples", "samples.png"), ("curves", "curve.json")):
                target = folder / kind / f"{gan.name}{Path(file).suffix}"
                target.parent.mkdir(exist_ok=True)
                (gan / file).rename(target)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def whole():
    """A made-up study with everything that a page can show."""
    results = made_up.full()
    for cell in results["cells"]:
        if cell["kind"] == "gan":
            looks = [{"step": 500, "value": 0.5}, {"step": 1000, "value": 0.25}]
            kept = {"step": 1000, "criterion": "best_kid", "evaluations": looks}
            cell |= {"steps": 2500, "seconds": 150.0, "device": "cpu, 1 threads", "kept": kept}
        if cell["kind"] == "classifier":
            one = {"value": 0.625}
            cell["at_threshold"] = {"threshold": 0.75, "accuracy": one, "balanced_accuracy": one}
            cell["at_threshold"]["recall"] = dict.fromkeys(made_up.CLASSES, one)
    a, b = ({"recipe": recipe, "arm": "synthetic_1x", "p": 100.0} for recipe in made_up.RECIPES)
    between = {**results["comparisons"][0], "family": "recipes", "primary": False, "a": a, "b": b}
    between |= {"p_holm": 0.0004, "simultaneous": {"low": -0.125, "high": 0.25, "level": 0.99}}
    results["comparisons"].append(between)
    return results


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name, docs):
    assert doctest.testmod(getattr(docs, name)).failed == 0


def test_tables_hold_figures_of_the_results_only(docs):
    results = whole()
    known = made_up.numbers(results) + [sum(found) for found in results["data"]["counts"].values()]
    known += [sum(cell["train_counts"]) for cell in results["cells"] if cell["kind"] == "classifier"]
    forms = {form for x in known for form in (f"{x:g}", f"{x:+.3f}", significant(x), *(f"{x:.{d}f}" for d in range(4)))}
    page = docs.study_page.page_body(results, "assets", set(), "results.json")
    tables = [line for line in page.splitlines() if line.startswith("|")]
    ratios = (
        r"\d+ of \d+|\d+ x \d+|\(\d+\)|\d to \d|\d times"  # counts of generators, seeds and verdicts, names of arms
    )
    shown = [x for line in tables for x in re.findall(r"(?<![\w.])[-+]?\d+\.?\d*", re.sub(ratios, "", line))]
    means = {f"{np.mean([0.01 * i + 0.02] * 3):.3g}" for i in range(3)}
    assert len(shown) > 500
    assert sorted(set(shown) - forms - means - {"0.001"}) == []


def test_page_says_everything(docs):
    results = whole()
    page = docs.study_page.page_body(results, "assets", set(), "results.json")
    for verdict in results["verdicts"]:
        assert f"**{verdict['question']}** {verdict['answer']}" in page
        assert verdict["evidence"] in page
    assert "624 test images of 428 patients" in page
    assert "71 parts of the study are done" in page
    assert results["command"] in page
    assert results["commit"] in page
    assert made_up.CREDIT in page
    assert "The test set was looked at 12 times: 12 for the score of a classifier, 0 to compare" in page
    assert "| acgan: normal | 1 |" in page
    assert "copies training images (1)" in page
    assert "cannot tell: too few images (1)" in page
    assert "&lt; 0.001" in page


def test_which_data_they_are_is_said_first_where_it_matters(docs):
    results = whole()
    results["data"]["notice"] = "These are drawn <phantoms>."
    page = docs.study_page.page_body(results, "assets", set(), "results.json")
    short = docs.study_page.readme_body(results, "assets", set(), "more")
    assert all(text.startswith("**These are drawn &lt;phantoms&gt;.**\n\n") for text in (page, short))


def test_threshold_rows_are_those_of_all_patients(docs):
    tuned = docs.study_tables.table_at_threshold(whole())
    assert "| real images | 1 | 0.750 | 0.625 |" in tuned
    assert docs.study_tables.table_at_threshold(made_up.full()) == ""


def test_readme_is_short(docs):
    results = whole()
    short = docs.study_page.readme_body(results, "assets", {"comparison.png"}, "[more](page)")
    lines = short.splitlines()
    assert len(short) < len(docs.study_page.page_body(results, "assets", set(), "results.json")) / 4
    assert 3 <= sum(line.startswith("- ") for line in lines) <= 6
    assert short.count("![") == 1
    assert sum(line.startswith("|") for line in lines) <= 2 + 2 + len(made_up.RECIPES)
    assert results["command"] in short
    assert "Recall of viral, the class made rare: with generated images alone" in short
    assert "`acgan` less `acwgan_gp` +0.012 [-0.021, +0.045], p &lt; 0.001" in short
    assert "Collapsed onto few images of a class: `acgan` (1 of 1)" in short
    assert "Repeating" not in short.partition("Collapsed")[0]


@pytest.mark.parametrize("make", [made_up.base, made_up.minimal, made_up.full, whole])
@pytest.mark.parametrize("part", ["cells", "summaries", "comparisons", "verdicts", "config", "command", None])
def test_nothing_that_is_missing_stops_a_page(make, part, docs, site):
    results = make()
    if part is not None and part in results:
        results[part] = type(results[part])()
    page = docs.study_page.page_body(results, "assets", set(), "results.json")
    short = docs.study_page.readme_body(results, "assets", set(), "more")
    table = docs.published_numbers.published_table({"two classes": results, "three classes": None})
    assert "None" not in page + short + table
    assert "#### How it was computed" in page
    assert "Not run yet." in table


def test_figures_that_are_null_are_dashes(docs, tmp_path):
    results = whole()
    for row in results["comparisons"]:
        row |= {"difference": None, "low": None, "high": None, "p_holm": None}
    for row in results["summaries"][:3]:
        row |= {"value": None, "low": None, "high": None}
    page = docs.study_page.page_body(results, "assets", set(), "results.json")
    docs.study_page.readme_body(results, "assets", set(), "more")
    assert f"| {DASH} [{DASH},\N{NO-BREAK SPACE}{DASH}] |" in page
    docs.study_pictures.draw_pictures(results, tmp_path, tmp_path / "assets")
    assert (tmp_path / "assets/comparison.png").is_file()


def test_a_study_of_one_seed_says_so(docs):
    said = docs.study_words.tested_on(made_up.minimal())
    assert "the generators were trained once only, and another seed can change the order" in said
    assert "one classifier only" in said
    assert "once" not in docs.study_words.tested_on(made_up.full())


def test_what_is_unfinished_is_listed(docs):
    config = StudyConfig(
        image_shape=(1, 64, 64),
        recipes={"acgan": RecipeConfig(recipe="acgan")},
        arms=("real", "synthetic_1x"),
        seeds=2,
        classifier_seeds=2,
    )
    done = [{"name": cell.name, "kind": cell.kind, "recipe": cell.entry} for cell in make_cells(config)]
    done[2]["error"] = "the loss was not finite"
    results = made_up.base(config=config.as_dict(), cells=done[:6], cells_planned=len(done))
    assert docs.study_words.unfinished(results) == [
        "**Unfinished**: 6 of 10 parts of the study are done; all figures may change. Missing: "
        "1 of the generators, 2 of the classifiers, 1 of the judgements of images.",
        "**Failed**: 1 training diverged and are in no score (gan-acgan-s0-p100: the loss was not finite).",
    ]
    assert docs.study_words.unfinished({**results, "cells": done[:2] + done[3:], "cells_planned": 9}) == []
    begun = docs.study_words.unfinished({**results, "cells": done[:2]})
    assert begun[0].endswith("Not begun: `acgan`; generated only, as many as real.")


def test_answers_to_one_question_stand_together(docs):
    names = ("a", "b", "a_c")
    pairs = [("a", "b", "cannot tell"), ("a", "a_c", "a_c"), ("b", "a_c", "cannot tell")]
    asked = [("Do images help?", "no"), *((f"Do the images of {n} help?", "yes" if n == "b" else "no") for n in names)]
    asked += [(f"Which teach more: {one} or {other}?", answer) for one, other, answer in pairs]
    asked += [("Is the study finished?", "no")]
    results = made_up.base(
        config={"recipes": dict.fromkeys(names)},
        verdicts=[{"question": q, "answer": a, "evidence": "."} for q, a in asked],
    )
    assert docs.study_words.answers(results) == [
        "**Do images help?** No.",
        "**Do the images of … help?** No (`a`, `a_c`); yes (`b`).",
        "**Which teach more: … or …?** Cannot tell for 2 of 3 pairs; `a_c` (against `a`).",
    ]


def test_recipes_are_matched_on_the_same_networks(docs):
    plans = {f"{r}_{n}": {"recipe": r, "networks": n, "augment": None} for r in ("x", "y") for n in ("dcgan", "resnet")}
    sides = [{"recipe": name, "arm": "synthetic_1x", "p": 100.0} for name in plans]
    rows = [{"family": "recipes", "a": a, "b": b} for i, a in enumerate(sides) for b in sides[i + 1 :]]
    results = {"config": {"recipes": plans}, "comparisons": rows, "summaries": [{"p": 100.0}]}
    found = [(row["a"]["recipe"], row["b"]["recipe"]) for row in docs.study_words.matched_pairs(results)]
    assert found == [("x_dcgan", "y_dcgan"), ("x_resnet", "y_resnet")]


def test_sheets_are_cut_into_their_images(docs, tmp_path):
    images = torch.randint(0, 256, (3, 4, 1, 12, 10), dtype=torch.uint8)
    save_sheet(images.flatten(0, 1), tmp_path / "sheet.png", columns=4)
    assert torch.equal(docs.study_pictures.tiles(tmp_path / "sheet.png", 3, (1, 12, 10)), images)
    with pytest.raises(ValueError, match="must be a sheet of 2 rows"):
        docs.study_pictures.tiles(tmp_path / "sheet.png", 2, (1, 12, 10))


def test_a_run_is_shown_with_its_pictures(docs, site):
    folder = write_study(site.root / "run", whole())
    docs.update.update_study(folder, "two-classes")
    assets = site.pages / "assets/two-classes"
    page, readme = (path.read_text(encoding="utf-8") for path in (site.page, site.readme))
    shown = re.findall(r"\]\(assets/two-classes/(\S+?\.png)\)", page)
    assert sorted(shown) == sorted(path.name for path in assets.glob("*.png"))
    assert len(shown) == 2 + 4 + 2  # charts, samples of every generator, curves of the first of each recipe
    for name in shown:
        with Image.open(assets / name) as picture:
            assert min(picture.size) > 100
    assert "step 1000 of 2500 (best KID on validation images), 2 min on cpu" in page
    assert "[results.json](assets/two-classes/results.json)" in page
    assert json.loads((assets / "results.json").read_text(encoding="utf-8")) == whole()
    assert "docs/pages/assets/two-classes/comparison.png" in readme
    docs.update.update_study(assets, "two-classes")  # the text anew, from what is kept
    assert site.page.read_text(encoding="utf-8") == page


def test_a_published_study_is_shown_from_where_it_is(docs, site):
    folder = site.root / "benchmarks/study/results/cpu/two-classes"
    with pytest.raises(SystemExit, match="publish the results there"):
        docs.update.update_study(write_study(site.root / "elsewhere", whole()), "cpu-two-classes")
    docs.update.update_study(write_study(folder, whole(), published=True), "cpu-two-classes")
    page, readme = (path.read_text(encoding="utf-8") for path in (site.page, site.readme))
    assert "`benchmarks/study/results/cpu/two-classes/results.json`" in page
    assert not (site.pages / "assets/cpu-two-classes/results.json").exists()
    assert "| **this study, two classes** | real images, ResNet-18 from scratch, 64x64 px |" in page
    assert "| **this study, three classes** | Not run yet. |" in page
    picture = re.search(r"<!-- cpu-two-classes-picture -->\n!\[.*?\]\((\S+)\)\n\n\*(.*)\*", readme)
    assert (site.root / picture[1]).is_file()
    assert made_up.CREDIT in picture[2]


def test_results_of_another_schema_and_unknown_sections_are_refused(docs, site):
    with pytest.raises(SystemExit, match="schema 1, got 2"):
        docs.update.update_study(write_study(site.root / "run", made_up.base(schema=2)), "two-classes")
    with pytest.raises(SystemExit, match="no page has the marks"):
        docs.update.update_study(write_study(site.root / "other", made_up.base()), "four-classes")
