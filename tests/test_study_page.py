"""Pages that show a study: what they say is in its results, and what is missing is said or left out."""

import doctest
import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from condgan.files import to_json
from condgan.images import save_sheet
from condgan.metrics.memorization import MemorizationVerdict
from condgan.runs import RecipeConfig
from condgan.stats import ThresholdReport
from condgan.study import StudyConfig
from condgan.study.cells import make_cells
from condgan.study.report.view import make_view
from condgan.study.report.words import DASH, significant
from condgan.study.results import Answer, Family, ProgressEvidence, Question, Reason, Results, Verdict
from study import builders
from study.builders import (
    CREDIT,
    RECIPES,
    arm,
    around,
    better,
    collapse,
    comparison,
    copies,
    full_results,
    numbers,
    recall,
    small_results,
    write_pictures,
)

ROOT = Path(__file__).parents[1]
MODULES = ("page_parts", "figures", "study_page")


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def docs(monkeypatch):
    """The modules of the pages, by name."""
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
    write_pictures(folder)
    rows = [{"step": step, "critic/adversarial": 1 / step} for step in (1, 2, 3)]
    for gan in list((folder / "gans").iterdir()):
        (gan / "curve.json").write_text(json.dumps(rows), encoding="utf-8")
        if published:
            for kind, file in (("samples", "samples.png"), ("curves", "curve.json")):
                target = folder / kind / f"{gan.name}{Path(file).suffix}"
                target.parent.mkdir(exist_ok=True)
                (gan / file).rename(target)
    results.write(folder / "results.json")
    return folder


def whole():
    """An invented study with everything that a page can show."""
    results = full_results()
    at = ThresholdReport(0.75, around(0.625), around(0.625), (around(0.625),) * 3)
    cells = (
        replace(c, report=replace(c.report, at_threshold=at)) if c in results.classifiers else c for c in results.cells
    )
    between = [row for row in results.comparisons if row.family is Family.RECIPES]
    clear = replace(between[0], p_holm=0.0004)
    return replace(
        results,
        command="condgan study chest_xray --out study",
        cells=tuple(cells),
        comparisons=tuple(clear if row in between else row for row in results.comparisons),
        verdicts=(*results.verdicts, recall("acgan", Answer.NO), recall("acwgan_gp", Answer.YES)),
    )


def page_of(docs, results):
    return docs.study_page.page_body(results, "assets", set(), "results.json").replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name, docs):
    assert doctest.testmod(getattr(docs, name)).failed == 0


def test_tables_hold_figures_of_the_results_only(docs):
    results = whole()
    known = numbers(to_json(results)) + [sum(part.counts) for part in results.data.parts.values()]
    known += [sum(cell.train_counts) for cell in results.classifiers]
    forms = {form for x in known for form in (f"{x:g}", f"{x:+.3f}", significant(x), *(f"{x:.{d}f}" for d in range(4)))}
    tables = [line for line in page_of(docs, results).splitlines() if line.startswith("|")]
    ratios = r"\d+ of \d+|\d+ x \d+|\(\d+\)|\d to \d|\d times"  # counts of generators and seeds, names of arms
    shown = [x for line in tables for x in re.findall(r"(?<![\w.])[-+]?\d+\.?\d*", re.sub(ratios, "", line))]
    means = {f"{np.mean([0.01 * i + 0.02] * 3):.3g}" for i in range(3)}
    assert len(shown) > 500
    assert sorted(set(shown) - forms - means - {"0.001"}) == []


def test_page_says_everything(docs):
    results = whole()
    page = page_of(docs, results)
    for verdict in make_view(results).verdicts:
        assert all(sentence in page for sentence in (*verdict.findings, *verdict.rule))
    assert "**Do generated images help, by balanced accuracy?** Cannot tell." in page
    assert "**Do the images of … raise the recall of viral?** No (`acgan`); yes (`acwgan_gp`)." in page
    for found in results.summaries:
        ends = found.estimate.interval
        shown = f"{found.estimate.value:.3f} [{ends.low:.3f}, {ends.high:.3f}]" in page
        assert shown or found.metric == "macro_f1"
    assert "624 test images of 428 patients" in page
    assert f"{len(results.cells)} of 100 parts of the study are done" in page
    assert results.command in page
    assert results.commit in page
    assert CREDIT in page
    assert "The test set was used 8 times: 6 for the score of a classifier, 2 for a comparison" in page
    assert "| acgan: normal | 1 |" in page
    assert "copies training images (1)" in page
    assert "cannot tell: too few images (1)" in page
    assert "&lt; 0.001" in page


def test_rules_that_answers_share_are_said_once(docs):
    page = page_of(docs, whole())
    assert page.count("Recall alone can rise at the cost of errors on other classes.") == 1


def test_texts_from_elsewhere_are_escaped(docs):
    results = whole()
    results = replace(results, data=builders.data(notes=("a <b> | c",), source="<script>"), device="<x86>")
    page = page_of(docs, results)
    assert "a &lt;b&gt; &#124; c" in page
    assert "<script" not in page
    assert "&lt;x86&gt;" in page


def test_which_data_they_are_is_said_first_where_it_matters(docs):
    results = replace(whole(), data=builders.data(notice="These are drawn <phantoms>."))
    short = docs.study_page.readme_body(results, "assets", set(), "more")
    for text in (page_of(docs, results), short):
        assert text.startswith("**These are drawn &lt;phantoms&gt;.**\n\n")


def test_threshold_rows_are_those_of_all_patients(docs):
    title = "At the threshold chosen on the validation images"
    tuned = page_of(docs, whole()).partition(title)[2]
    assert "| real images | 1 | 0.750 | 0.625 |" in tuned
    assert title not in page_of(docs, full_results())


def test_readme_is_short(docs):
    results = whole()
    short = docs.study_page.readme_body(results, "assets", {"comparison.png"}, "[more](page)")
    lines = short.splitlines()
    assert len(short) < len(page_of(docs, results)) / 3
    assert 3 <= sum(line.startswith("- ") for line in lines) <= 6
    assert short.count("![") == 1
    assert sum(line.startswith("|") for line in lines) <= 2 + 2 + len(RECIPES)
    assert results.command in short
    assert "Recall of viral, the class made rare: with generated images alone" in short
    assert "`acgan` minus `acwgan_gp` +0.012 [-0.021, +0.045], p &lt; 0.001" in short
    assert "Collapsed onto few images of a class: `acgan` (1 of 1)" in short
    assert (
        "repeating training images or revealing training patients: `acgan` (1 of 1) (too few images to tell for 1)"
        in short
    )


@pytest.mark.parametrize("make", [builders.results, small_results, full_results, whole])
@pytest.mark.parametrize("part", ["cells", "summaries", "comparisons", "verdicts", "command", None])
def test_nothing_that_is_missing_stops_a_page(make, part, docs, site):
    results = make()
    if part is not None:
        results = replace(results, **{part: None if part == "command" else ()})
    page = page_of(docs, results)
    short = docs.study_page.readme_body(results, "assets", set(), "more")
    table = docs.study_page.published_table({"two classes": results, "three classes": None})
    assert "None" not in page + short + table
    assert "#### How it was computed" in page
    assert "Not run yet." in table


def test_scores_of_one_generator_have_no_interval(docs, tmp_path):
    results = small_results()
    row = comparison(Family.CONTROL, arm("synthetic_1x", "acgan"), arm("real"), "auroc", seeds=1, primary=True)
    page = page_of(docs, replace(results, comparisons=(row,)))
    assert "| acgan: generated only, as many as real | 4433 | 1 x 1 | 0.750 | 0.750 |" in page
    assert f"| +0.012 | {DASH} | {DASH} |" in page
    assert "Trained once only: acgan. Their scores have no interval" in page
    assert "once" not in docs.study_page.tested_on(make_view(full_results()))
    docs.figures.draw_pictures(results, tmp_path, tmp_path / "assets")
    assert (tmp_path / "assets/comparison.png").is_file()


def test_what_is_unfinished_is_listed(docs):
    config = StudyConfig(
        image_shape=(1, 64, 64),
        recipes={"acgan": RecipeConfig(recipe="acgan")},
        arms=("real", "synthetic_1x"),
        seeds=2,
        classifier_seeds=2,
    )
    make = {
        "classifier": lambda c: builders.classifier(c.arm, recipe=c.recipe, seed=c.seed, number=c.classifier_seed),
        "gan": lambda c: builders.generator(c.recipe, c.seed),
        "judge": lambda c: builders.judge(c.recipe, c.seed),
    }
    done = [make[cell.kind](cell) for cell in make_cells(config)]
    lost = builders.failed("acgan")

    def unfinished(cells, planned=10):
        results = builders.results(config=config, cells=tuple(cells), cells_planned=planned)
        return docs.study_page.unfinished(make_view(results))

    assert unfinished([lost if cell.name == lost.name else cell for cell in done[:6]]) == [
        "**Unfinished**: 6 of 10 parts of the study are done; all figures may change. Missing: "
        "1 of the generators, 2 of the classifiers, 1 of the evaluations of images.",
        f"**Failed**: 1 training diverged, which no score includes ({lost.name}: {lost.error}).",
    ]
    assert unfinished(done) == []
    assert unfinished(done[:2])[0].endswith("Not started: `acgan`; generated only, as many as real.")


def test_answers_to_one_question_stand_together(docs):
    pairs = [("a", "b", Answer.CANNOT_TELL), ("a", "a_c", Answer.SECOND), ("b", "a_c", Answer.CANNOT_TELL)]
    verdicts = [recall(name, Answer.YES if name == "b" else Answer.NO) for name in ("a", "b", "a_c")]
    verdicts += [
        replace(better(answer, Reason.WITHIN_CHANCE if answer is Answer.CANNOT_TELL else None), recipes=(a, b))
        for a, b, answer in pairs
    ]
    verdicts += [copies(Answer.NO_SIGN, None, MemorizationVerdict.NO_SIGN), collapse(Answer.YES, True)]
    progress = ProgressEvidence(finished=1, planned=2)
    verdicts += [Verdict(question=Question.COMPLETE, answer=Answer.NO, evidence=progress)]
    assert docs.study_page.answers(make_view(builders.results(verdicts=tuple(verdicts)))) == [
        "**Do the images of … raise the recall of viral?** No (`a`, `a_c`); yes (`b`).",
        "**Which images teach more, alone and by AUROC: … or …?** Cannot tell for 2 of 3 pairs; `a_c` (against `a`).",
        "**Do the images of … repeat training images or reveal training patients?** No sign of it (`acgan`).",
        "**Has … collapsed onto few images of a class?** Yes: seed 0 (class 0) (`acgan`).",
    ]


def test_recipes_are_matched_on_the_same_networks(docs):
    recipes = {f"{name}_{n}": RecipeConfig(recipe=name, networks=n) for name in RECIPES for n in ("dcgan", "resnet")}
    sides = [arm("synthetic_1x", name) for name in recipes]
    rows = [comparison(Family.RECIPES, a, b, "balanced_accuracy") for i, a in enumerate(sides) for b in sides[i + 1 :]]
    study = make_view(builders.results(config=builders.config(recipes=recipes), comparisons=tuple(rows)))
    found = [(row.a.recipe, row.b.recipe) for row in docs.study_page.matched_pairs(study)]
    assert found == [("acgan_dcgan", "acwgan_gp_dcgan"), ("acgan_resnet", "acwgan_gp_resnet")]


def test_sheets_are_cut_into_their_images(docs, tmp_path):
    images = torch.randint(0, 256, (3, 4, 1, 12, 10), dtype=torch.uint8)
    save_sheet(images.flatten(0, 1), tmp_path / "sheet.png", columns=4)
    assert torch.equal(docs.figures.tiles(tmp_path / "sheet.png", 3, (1, 12, 10)), images)
    with pytest.raises(ValueError, match="must be a sheet of 2 rows"):
        docs.figures.tiles(tmp_path / "sheet.png", 2, (1, 12, 10))


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
    assert "step 10000 of 20000 (best KID on validation images), 9 min on cpu" in page
    assert "[results.json](assets/two-classes/results.json)" in page
    assert Results.read(assets / "results.json") == whole()
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
    assert CREDIT in picture[2]


def test_results_of_another_schema_and_unknown_sections_are_refused(docs, site):
    folder = write_study(site.root / "run", builders.results())
    (folder / "results.json").write_text(json.dumps({"schema": 1}), encoding="utf-8")
    with pytest.raises(SystemExit, match="must have schema 2, got 1"):
        docs.update.update_study(folder, "two-classes")
    with pytest.raises(SystemExit, match="no page has the marks"):
        docs.update.update_study(write_study(site.root / "other", builders.results()), "four-classes")
