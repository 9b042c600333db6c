"""Typed records of invented studies, for tests of what is made of them."""

import base64
import re
from dataclasses import replace

import numpy as np
from PIL import Image

from condgan.metrics.copying import CopyTest, DataCopying
from condgan.metrics.diversity import ClassDiversity, Diversity, DiversityReport, DiversitySettings, MeanWithError
from condgan.metrics.extractors import ExtractorInfo, ImagesInfo
from condgan.metrics.fidelity import Score
from condgan.metrics.fidelity_report import FidelityComparison, FidelityReport, FidelitySettings
from condgan.metrics.membership import MembershipInference
from condgan.metrics.memorization import (
    ClassMemorization,
    MemorizationReport,
    MemorizationSettings,
    MemorizationVerdict,
    RemovedDuplicates,
)
from condgan.runs import CriterionValue, KeptStep, RecipeConfig, TrainingImages
from condgan.stats import (
    OVERALL_METRICS,
    ClassificationReport,
    Estimate,
    Interval,
    SeedCounts,
    SeedDifference,
    SeedEstimate,
    ThresholdReport,
    VarianceComponents,
    recall_of,
)
from condgan.study.arms import ARMS, CONTROLS
from condgan.study.cells import Cell
from condgan.study.config import StudyConfig
from condgan.study.provenance import Provenance
from condgan.study.results import (
    AloneEvidence,
    Answer,
    ArmKey,
    ClassCollapse,
    ClassCopies,
    ClassifierOutcome,
    CollapseEvidence,
    Comparison,
    CopiesEvidence,
    DataDescription,
    DifferencesEvidence,
    FailedOutcome,
    Family,
    GeneratorOutcome,
    JudgeOutcome,
    PartDescription,
    Question,
    Reason,
    Recognition,
    Results,
    Summary,
    Verdict,
)

CLASSES = ("normal", "bacterial", "viral")
RECIPES = ("acgan", "acwgan_gp")
EXTRACTOR = ExtractorInfo(name="ResNet-18, in domain", weights_hash="0123456789abcdef", resize="none")
CREDIT = "Kermany et al. 2018, CC BY 4.0, https://data.mendeley.com/datasets/rscbjbr9sj"
ORIGIN = Provenance(device="cpu, 2 threads", commit="3323f0e97fae", versions={"condgan": "0.1.0", "torch": "2.15.0"})
IMAGES = ImagesInfo(fingerprint="aa11", images=512)


def config(**changes) -> StudyConfig:
    """A study of two recipes and all arms."""
    given = {
        "image_shape": (1, 64, 64),
        "recipes": {recipe: RecipeConfig(recipe=recipe) for recipe in RECIPES},
        "arms": tuple(ARMS),
        "reduced_class": "viral",
    }
    return StudyConfig(**{**given, **changes})


def data(**changes) -> DataDescription:
    """Three classes of X-rays."""
    counts = {"train": (1140, 2150, 1143), "validation": (201, 380, 202), "test": (234, 242, 148)}
    patients = {"train": 2450, "validation": 430, "test": 428}
    parts = {
        name: PartDescription(counts=own, patients=patients[name], fingerprint=f"{name}-0123")
        for name, own in counts.items()
    }
    given = {
        "source": "Kermany chest X-rays",
        "class_names": CLASSES,
        "image_shape": (1, 64, 64),
        "duplicates_removed": 34,
        "repeats_of_other_sets_removed": 2,
        "attribution": CREDIT,
    }
    return DataDescription(**{**parts, **given, **changes})


def around(value: float, reach: float = 0.04) -> Estimate:
    """An estimate with an interval that reaches so far to both sides."""
    return Estimate(value, value - reach, value + reach)


def report(value: float = 0.8, class_names: tuple[str, ...] = CLASSES, **changes) -> ClassificationReport:
    """Scores that are all the same."""
    estimate, count = around(value), len(class_names)
    given = {
        "class_names": class_names,
        "samples": 624,
        "groups": 428,
        **dict.fromkeys(OVERALL_METRICS, estimate),
        "recall": (estimate,) * count,
        "precision": (estimate,) * count,
        "confusion": tuple(tuple(200 if i == j else 4 for j in range(count)) for i in range(count)),
        "at_threshold": ThresholdReport(0.4, estimate, estimate, (estimate,) * 2) if count == 2 else None,
        "resamples": 2000,
        "seed": 0,
    }
    return ClassificationReport(**{**given, **changes})


def classifier(
    arm: str, *, percent: float = 100.0, recipe: str | None = None, seed: int = 0, number: int = 0, **changes
) -> ClassifierOutcome:
    """A tested classifier of an arm."""
    own = seed if recipe else None
    cell = Cell(kind="classifier", percent=percent, recipe=recipe, seed=own, arm=arm, classifier_seed=number)
    counts = (1140, 2150, round(1143 * percent / 100))
    given = {
        "name": cell.name,
        "percent": percent,
        "seconds": 31.25,
        "origin": ORIGIN,
        "arm": arm,
        "recipe": recipe,
        "seed": own,
        "classifier_seed": number,
        "train_counts": counts,
        "real_counts": counts,
        "report": report(),
        "settings": {"network": "ResNet-18 from scratch", "seed": 1000},
        "history": ({"epoch": 1, "step": 25, "loss": 0.5, "validation/auroc": 0.75},),
    }
    return ClassifierOutcome(**{**given, **changes})


def generator(recipe: str, seed: int = 0, *, percent: float = 100.0, **changes) -> GeneratorOutcome:
    """A trained generator, of which the best of two evaluated steps was kept."""
    given = {
        "name": Cell(kind="gan", percent=percent, recipe=recipe, seed=seed).name,
        "percent": percent,
        "seconds": 518.1,
        "origin": ORIGIN,
        "recipe": recipe,
        "seed": seed,
        "steps": 20_000,
        "images_seen": 1_280_000,
        "kept": KeptStep(
            step=10_000,
            criterion="best_kid",
            evaluations=(CriterionValue(step=10_000, value=12.5), CriterionValue(step=20_000, value=13.75)),
        ),
        "settings": {"generator": "DCGANGenerator", "seed": seed},
        "generator_parameters": 422_689,
        "critic_parameters": 170_915,
        "last_metrics": {"critic/adversarial": 0.125},
        "train": TrainingImages(source="Kermany chest X-rays", fingerprint="aa11", class_counts=(1140, 2150, 1143)),
    }
    return GeneratorOutcome(**{**given, **changes})


def failed(recipe: str, seed: int = 0, *, error: str = "critic/adversarial is not finite in step 3") -> FailedOutcome:
    """A generator whose training diverged."""
    name = Cell(kind="gan", percent=100.0, recipe=recipe, seed=seed).name
    return FailedOutcome(name=name, percent=100.0, seconds=2.5, origin=ORIGIN, of="gan", error=error)


def compared(metric: str, difference: float, samples: int) -> FidelityComparison:
    """A score of generated images, so much above that of real ones."""
    scores = [
        Score(metric, value, samples, 234, EXTRACTOR, {"subset_size": 234, "seed": 0}, ("subset size lowered",))
        for value in (0.02 + difference, 0.02)
    ]
    return FidelityComparison(*scores, Estimate(difference, difference - 0.004, difference + 0.0045))


def fidelity() -> FidelityReport:
    """KIDs that rise from class to class."""
    return FidelityReport(
        extractor=EXTRACTOR,
        overall={"kid": compared("kid", 0.031, 4000), "coverage": compared("coverage", -0.25, 4000)},
        per_class={name: {"kid": compared("kid", 0.01 * i, 1000 + i)} for i, name in enumerate(CLASSES)},
        settings=FidelitySettings(
            metrics=("kid", "coverage"),
            kid_subset_size=1000,
            kid_subsets=100,
            folds=2,
            jackknife_blocks=10,
            level=0.95,
            seed=17,
            generated=IMAGES,
            train=IMAGES,
            test=IMAGES,
        ),
    )


def diversity(*, collapsed: bool = False) -> DiversityReport:
    """All classes collapsed, or none."""
    one = Diversity(512, 300, 999, MeanWithError(0.31, 0.004), MeanWithError(9.1, 0.2), MeanWithError(4.4, 0.1), 300)
    words = f"{'C' if collapsed else 'Not c'}ollapsed: half."
    return DiversityReport(
        extractor=EXTRACTOR,
        per_class={name: ClassDiversity(one, one, collapsed, words) for name in CLASSES},
        settings=DiversitySettings(pairs=1000, margin=0.5, ms_ssim_scales=2, seed=18, generated=IMAGES, real=IMAGES),
    )


def memorization(verdict: MemorizationVerdict = MemorizationVerdict.NO_SIGN) -> MemorizationReport:
    """The same finding in all classes."""
    copies, guess = CopyTest(7, 3.25, 512, 301, 0.6, 0.0066, 0.042, 0.031), around(0.51)
    found = ClassMemorization(
        verdict=verdict,
        explanation="7 of 512 generated images stand out as near one training image.",
        images=(512, 1140, 310),
        patients=(900, 301),
        copies=copies,
        close=copies,
        c_t=DataCopying(-1.25, 0.105),
        authenticity=guess,
        authenticity_held_out=guess,
        membership=MembershipInference(guess, guess),
        shift=guess,
        distances=(1.0, 2.0, 3.0, 4.0, 5.0),
        distances_held_out=(1.0, 2.0, 3.0, 4.0, 5.0),
    )
    return MemorizationReport(
        extractor=EXTRACTOR,
        per_class=dict.fromkeys(CLASSES, found),
        duplicates=RemovedDuplicates(exact=30, near=4, held_out=1),
        settings=MemorizationSettings(
            rate=0.01,
            alpha=0.01,
            share=0.1,
            resamples=2000,
            seed=19,
            tolerance=2.0,
            neighbors=10,
            generated=IMAGES,
            train=IMAGES,
            held_out=IMAGES,
        ),
    )


def judge(
    recipe: str,
    seed: int = 0,
    *,
    verdict: MemorizationVerdict = MemorizationVerdict.NO_SIGN,
    collapsed: bool = False,
    **changes,
) -> JudgeOutcome:
    """What was found in the images of a generator."""
    given = {
        "name": Cell(kind="judge", percent=100.0, recipe=recipe, seed=seed).name,
        "percent": 100.0,
        "seconds": 76.5,
        "origin": ORIGIN,
        "recipe": recipe,
        "seed": seed,
        "images": 4433,
        "fidelity": fidelity(),
        "diversity": diversity(collapsed=collapsed),
        "memorization": memorization(verdict),
        "refusals": {},
        "gan_test": Recognition(classifier="classifier-real-c0-p100", report=report(0.51, samples=4433)),
    }
    return JudgeOutcome(**{**given, **changes})


def seed_estimate(
    value: float, *, reach: float = 0.05, generators: int | None = 3, classifiers: int = 3, patients: int = 428
) -> SeedEstimate:
    """A score over seeds; of a single generator it has no interval."""
    known = generators != 1
    return SeedEstimate(
        value=value,
        interval=Interval(value - reach, value + reach, 0.95) if known else None,
        standard_error=reach / 2 if known else None,
        degrees_of_freedom=5.5 if known else None,
        entered=value,
        components=VarianceComponents(generators=0.0001, classifiers=0.0001, interactions=0.0, patients=0.0004),
        counts=SeedCounts(generators=generators, classifiers=classifiers, patients=patients),
    )


def arm(name: str, recipe: str | None = None, percent: float = 100.0) -> ArmKey:
    """An arm at a percentage."""
    return ArmKey(recipe=recipe, arm=name, percent=percent)


def summary(key: ArmKey, metric: str, value: float = 0.75, *, seeds: int = 3, reach: float = 0.05) -> Summary:
    """The score of an arm."""
    return Summary(
        arm=key,
        metric=metric,
        estimate=seed_estimate(value, reach=reach, generators=seeds if key.recipe else None),
        images=624,
        relative_usefulness=0.875 if key.recipe and metric == "balanced_accuracy" else None,
    )


def comparison(
    family: Family,
    a: ArmKey,
    b: ArmKey,
    metric: str,
    difference: float = 0.012,
    *,
    reach: float = 0.033,
    p_value: float = 0.44,
    p_holm: float = 0.88,
    seeds: int = 3,
    primary: bool = False,
) -> Comparison:
    """The difference of two arms; of a single generator it has neither interval nor p value."""
    known = seeds != 1
    sides = [
        seed_estimate(value, generators=seeds if key.recipe else None)
        for key, value in ((a, 0.75 + difference), (b, 0.75))
    ]
    return Comparison(
        family=family,
        a=a,
        b=b,
        metric=metric,
        level=0.95,
        difference=SeedDifference(
            value=difference,
            interval=Interval(difference - reach, difference + reach, 0.95) if known else None,
            p_value=p_value if known else None,
            standard_error=reach / 2 if known else None,
            correlation=0.25 if known else None,
            shared_seeds=False,
            a=sides[0],
            b=sides[1],
        ),
        simultaneous=Interval(difference - 2 * reach, difference + 2 * reach, 0.9875) if known else None,
        p_holm=p_holm if known else None,
        primary=primary,
    )


def helps(
    best: Comparison, answer: Answer = Answer.CANNOT_TELL, reason: Reason | None = Reason.WITHIN_CHANCE
) -> Verdict:
    """The answer to the main question."""
    return Verdict(
        question=Question.IMAGES_HELP,
        answer=answer,
        reason=reason,
        metric=best.metric,
        evidence=DifferencesEvidence(best=best, compared=4, controls=("real", "real_weighted")),
    )


def results(**changes) -> Results:
    """The results of a study in which nothing is finished."""
    given = {
        "what": "Chest X-rays: are generated images good for anything?",
        "config": config(),
        "data": data(),
        "commit": ORIGIN.commit,
        "device": ORIGIN.device,
        "versions": ORIGIN.versions,
        "cells_planned": 100,
        "cells": (),
        "summaries": (),
        "comparisons": (),
        "verdicts": (),
        "test_evaluations": {},
    }
    return Results(**{**given, **changes})


def full_results() -> Results:
    """The results of a study with two recipes, all arms, a sweep, and generators that were judged."""
    rng = np.random.default_rng(0)
    arms = [(None, name) for name in CONTROLS]
    arms += [(recipe, name) for recipe in RECIPES for name in ARMS if name not in CONTROLS]
    keys = [arm(name, recipe, percent) for recipe, name in arms for percent in (100.0, 50.0, 10.0)]
    metrics = [*OVERALL_METRICS, *map(recall_of, CLASSES)]
    best = comparison(
        Family.CONTROL, arm("pretrained", "acgan"), arm("real_weighted"), "balanced_accuracy", primary=True
    )
    rare = comparison(Family.RARE, arm("pretrained", "acgan"), arm("real"), recall_of("viral"))
    between = comparison(
        Family.RECIPES, arm("synthetic_1x", "acgan"), arm("synthetic_1x", "acwgan_gp"), "balanced_accuracy"
    )
    return results(
        config=config(percents=(100.0, 50.0, 10.0)),
        cells=(
            *(classifier(key.arm, percent=key.percent, recipe=key.recipe) for key in keys),
            *(generator(recipe, seed) for recipe in RECIPES for seed in range(2)),
            judge("acgan", 0, verdict=MemorizationVerdict.COPIES, collapsed=True),
            judge("acwgan_gp", 0),
            judge("acwgan_gp", 1, verdict=MemorizationVerdict.CANNOT_TELL),
        ),
        summaries=tuple(
            summary(key, metric, float(rng.uniform(0.55, 0.93)), reach=float(rng.uniform(0.02, 0.09)))
            for key in keys
            for metric in metrics
        ),
        comparisons=(best, replace(best, metric="auroc", primary=False), rare, between),
        verdicts=(helps(best),),
        test_evaluations={"acgan/fidelity": 2, "acgan/synthetic_1x": 3, "real": 3},
    )


def small_results():
    """One classifier of real images and one of the images of one generator."""
    keys = [arm("real"), arm("synthetic_1x", "acgan")]
    scores = [summary(key, metric, seeds=1) for key in keys for metric in (*OVERALL_METRICS, recall_of("viral"))]
    return results(
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


def numbers(content):
    """Return all numbers in plain values, those in text too."""
    if isinstance(content, dict):
        return [found for value in content.values() for found in numbers(value)]
    if isinstance(content, list):
        return [found for value in content for found in numbers(value)]
    if isinstance(content, (int, float)) and not isinstance(content, bool):
        return [content]
    return [float(found) for found in re.findall(r"-?\d+\.?\d*", content)] if isinstance(content, str) else []


def recall(recipe, answer, reason=None, percent=100.0):
    """Whether the images of a recipe, or of any at a percentage, raise the recall of the rare class."""
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
    """Whether a classifier learns from generated images alone."""
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
    """Which of two recipes is better."""
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
    """Whether a recipe copies, with one finding for each class."""
    found = tuple(ClassCopies(seed=0, class_name=f"class {i}", verdict=v) for i, v in enumerate(verdicts))
    evidence = CopiesEvidence(copies=found, not_measured=why)
    return Verdict(question=Question.COPIES, answer=answer, reason=reason, recipes=("acgan",), evidence=evidence)


def collapse(answer, *collapsed):
    """Whether a recipe has collapsed, with one finding for each class of two."""
    classes = tuple(
        ClassCollapse(seed=i // 2, class_name=f"class {i % 2}", collapsed=found, explanation=f"Explained {i}.")
        for i, found in enumerate(collapsed)
    )
    evidence = CollapseEvidence(classes=classes)
    return Verdict(question=Question.COLLAPSED, answer=answer, recipes=("acgan",), evidence=evidence)
