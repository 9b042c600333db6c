"""The view of a study: what the templates of its report and of the documentation show of its results.

It has no HTML or Markdown, and numbers stay numbers: templates turn them into text by the functions of `words`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from condgan.metrics.diversity import DiversityReport
from condgan.metrics.fidelity_report import FidelityComparison, FidelityReport
from condgan.metrics.memorization import MemorizationReport, MemorizationVerdict
from condgan.stats import SeedCounts, ThresholdReport
from condgan.study.cells import Cell, Kind, make_cells
from condgan.study.report.charts import REFERENCE, DotChart, LinePanel, Mark, dot_chart, line_panel
from condgan.study.report.words import (
    METRIC_NAMES,
    SCORE_NAMES,
    Found,
    answer_words,
    arm_name,
    capital,
    ends_of,
    finding_words,
    metric_name,
    number,
    p_value,
    percent_intervals,
    plural,
    question_words,
    rule_words,
    side_name,
)
from condgan.study.results import (
    Answer,
    ArmKey,
    Comparison,
    Family,
    GeneratorOutcome,
    JudgeOutcome,
    Results,
    Summary,
    Verdict,
    guessing,
    recalled_class,
)

KINDS: dict[Kind, str] = {"gan": "generators", "classifier": "classifiers", "judge": "evaluations of images"}
"""Plural names of the kinds of cells."""

_CONTROLS = "Without generated images (controls)"
_FAMILIES = {
    Family.CONTROL: "{metric}: difference from the best control, {other}",
    Family.RARE: "{metric}: difference from {other}",
    Family.RECIPES: "{metric}: recipes against each other",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a study.

    Args:
        done: Number of finished cells, failed ones included.
        planned: Number of all cells.
        missing: Number of missing cells by kind.
        recipes_missing: Recipes without a finished cell.
        arms_missing: Arms without a finished cell.
    """

    done: int
    planned: int
    missing: dict[Kind, int]
    recipes_missing: tuple[str, ...]
    arms_missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerdictView:
    """A verdict in words: a question, its answer, the findings that it rests on, and the rule.

    Args:
        record: The verdict.
        question: The question.
        answer: The answer, with its reason.
        findings: What the answer rests on, a sentence each.
        rule: The rule of the answer, a sentence each.
    """

    record: Verdict
    question: str
    answer: str
    findings: tuple[str, ...]
    rule: tuple[str, ...]

    @property
    def is_open(self) -> bool:
        """Whether the question could not be answered."""
        return self.record.answer is Answer.CANNOT_TELL

    @property
    def evidence(self) -> tuple[str, ...]:
        """All sentences of findings and rule."""
        return self.findings + self.rule


@dataclass(frozen=True, slots=True)
class ArmView:
    """An arm at a percentage.

    Args:
        key: The arm.
        scores: Its scores by metric.
        images: Numbers of training images of its classifiers; more than one where these differ.
    """

    key: ArmKey
    scores: dict[str, Summary]
    images: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name for readers, without the recipe."""
        return arm_name(self.key.arm)

    @property
    def counts(self) -> SeedCounts:
        """Numbers of generators, classifiers and patients."""
        return next(iter(self.scores.values())).estimate.counts

    @property
    def relative_usefulness(self) -> float | None:
        """Relative usefulness by balanced accuracy, see `condgan.study.relative_usefulness`."""
        summary = self.scores.get("balanced_accuracy")
        return None if summary is None else summary.relative_usefulness

    def score(self, metric: str) -> Found | None:
        """Return the score by a metric, or None where it is not known."""
        return self.scores[metric].estimate if metric in self.scores else None


@dataclass(frozen=True, slots=True)
class ThresholdView:
    """Scores of an arm at the threshold chosen on validation images, one entry per classifier."""

    key: ArmKey
    thresholds: tuple[float, ...]
    balanced_accuracies: tuple[float, ...]
    accuracies: tuple[float, ...]
    recalls: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class SweepRow:
    """The recall of the class made rare at one percentage."""

    summary: Summary
    images: int | None


@dataclass(frozen=True, slots=True)
class SweepView:
    """The imbalance sweep: recall of the class that was made rare over the share of its patients."""

    rare: str
    panels: tuple[LinePanel, ...]
    rows: tuple[SweepRow, ...]
    size_of_test: str
    has_reference: bool


@dataclass(frozen=True, slots=True)
class GeneratorView:
    """A generator.

    Args:
        record: Its outcome.
        copied: Its classes whose images are copies; None where this was not measured.
        is_first: Whether it is the first seed of its recipe, with all patients.
    """

    record: GeneratorOutcome
    copied: tuple[str, ...] | None
    is_first: bool

    @property
    def who(self) -> str:
        """The name for readers."""
        return f"{self.record.recipe}, seed {self.record.seed}"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A score of the images of a class, or of all classes together."""

    scope: str
    name: str
    found: FidelityComparison


@dataclass(frozen=True, slots=True)
class JudgedView:
    """The evaluation of the images of a generator.

    Args:
        record: The outcome.
        farther: The classes whose KID is above that of real training images by more than chance.
        near: The other classes with a KID.
        scores: All scores of fidelity.
        notes: Remarks on scores, and the scores that they concern.
    """

    record: JudgeOutcome
    farther: tuple[str, ...]
    near: tuple[str, ...]
    scores: tuple[ScoreRow, ...]
    notes: dict[str, tuple[str, ...]]

    @property
    def who(self) -> str:
        """The name of the generator for readers."""
        return f"{self.record.recipe}, seed {self.record.seed}"

    @property
    def generator(self) -> str:
        """The name of the generator's cell."""
        found = self.record
        return Cell(kind="gan", recipe=found.recipe, seed=found.seed, percent=found.percent).name


@dataclass(frozen=True, slots=True)
class JudgedClass:
    """The evaluation of the images of a class, one entry per generator of the recipe with such a measurement."""

    recipe: str
    class_name: str
    generators: int
    kid: tuple[float, ...]
    kid_real: tuple[float, ...]
    farther: tuple[bool, ...]
    coverage: tuple[float, ...]
    coverage_real: tuple[float, ...]
    recognized: tuple[float, ...]
    collapsed: tuple[bool, ...]
    copies: dict[MemorizationVerdict, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """Everything that is shown of a study.

    Args:
        results: The records.
        progress: Its progress.
        verdicts: Answers in words, the most important first.
        recipes: All recipes in the order of the configuration; the first has series 1 of the charts.
        metrics: Metrics that were measured, in the order of tables.
        arms: Arms with all patients.
        swept_arms: Arms at each smaller percentage.
        thresholds: Scores of arms with all patients at chosen thresholds.
        charts: Overall scores of the arms.
        recall_charts: Recalls of each class.
        size_of_test: Number of test images and patients.
        cautions: Limits that the number of seeds sets.
        comparison_chart: Differences that answer the questions, if there are any.
        sweep: The imbalance sweep, if there is one.
        generators: All generators.
        judged: The evaluations of their images.
        judged_classes: The same by recipe and class.
        kid_chart: Distance to real images, if it was measured.
    """

    results: Results
    progress: Progress
    verdicts: tuple[VerdictView, ...]
    recipes: tuple[str, ...]
    metrics: tuple[str, ...]
    arms: tuple[ArmView, ...]
    swept_arms: dict[float, tuple[ArmView, ...]]
    thresholds: tuple[ThresholdView, ...]
    charts: tuple[DotChart, ...]
    recall_charts: tuple[DotChart, ...]
    size_of_test: str
    cautions: tuple[str, ...]
    comparison_chart: DotChart | None
    sweep: SweepView | None
    generators: tuple[GeneratorView, ...]
    judged: tuple[JudgedView, ...]
    judged_classes: tuple[JudgedClass, ...]
    kid_chart: DotChart | None

    @property
    def intervals(self) -> str:
        """Name of the study's intervals."""
        return percent_intervals(self.results.config.level)

    @property
    def chance(self) -> float:
        """The balanced accuracy of guessing."""
        return 1 / self.results.data.num_classes

    @property
    def main_comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons with all patients."""
        full = self.results.config.full_percent
        return tuple(row for row in self.results.comparisons if row.a.percent == full)

    @property
    def shown_generators(self) -> tuple[GeneratorView, ...]:
        """The generators that were trained with all patients."""
        full = max((generator.record.percent for generator in self.generators), default=None)
        return tuple(generator for generator in self.generators if generator.record.percent == full)


def make_view(results: Results) -> StudyView:
    """Return the view of a study."""
    full = max((summary.arm.percent for summary in results.summaries), default=results.config.full_percent)
    shown = [summary for summary in results.summaries if summary.arm.percent == full]
    smaller = sorted({summary.arm.percent for summary in results.summaries} - {full}, reverse=True)
    measured = dict.fromkeys(summary.metric for summary in shown)
    metrics = [*(name for name in METRIC_NAMES if name in measured), *filter(recalled_class, measured)]
    judged = tuple(map(_judged, results.judged))
    return StudyView(
        results=results,
        progress=_progress(results),
        verdicts=tuple(
            VerdictView(v, question_words(v), answer_words(v), tuple(finding_words(v)), tuple(rule_words(v)))
            for v in results.verdicts
        ),
        recipes=tuple(results.config.recipes),
        metrics=tuple(metrics),
        arms=_arms(results, full),
        swept_arms={percent: _arms(results, percent) for percent in smaller},
        thresholds=_thresholds(results, full),
        charts=tuple(_chart(results, shown, m) for m in ("balanced_accuracy", "auroc") if m in measured),
        recall_charts=tuple(_chart(results, shown, metric) for metric in filter(recalled_class, measured)),
        size_of_test=size_of_test(shown),
        cautions=tuple(_cautions(shown)),
        comparison_chart=_comparison_chart(results),
        sweep=_sweep(results),
        generators=_generators(results),
        judged=judged,
        judged_classes=_judged_classes(results),
        kid_chart=_kid_chart(results, judged),
    )


def size_of_test(summaries: Iterable[Summary]) -> str:
    """Return the size of the test set; where there are only recalls, that of the part that they rest on."""
    every = list(summaries)
    whole = [summary for summary in every if recalled_class(summary.metric) is None]
    sizes = dict.fromkeys((summary.images, summary.estimate.counts.patients) for summary in whole or every)
    return " or ".join(f"{images} test images of {patients} patients" for images, patients in sizes)


def seeds_of(counts: SeedCounts) -> str:
    """Return the numbers of seeds of a score in words."""
    generators = [] if counts.generators is None else [plural(counts.generators, "generator seed")]
    return " x ".join([*generators, plural(counts.classifiers, "classifier seed")])


def grounds(cells: Iterable[JudgedView], part: Literal["fidelity", "diversity", "memorization"]) -> str:
    """Return the features and seeds that the numbers of a part were measured with, in words."""
    said: dict[str, None] = {}
    for cell in cells:
        record = cell.record
        report = {"fidelity": record.fidelity, "diversity": record.diversity, "memorization": record.memorization}[part]
        if report is not None:
            said[_ground(report)] = None
    return " ".join(said)


def _ground(report: FidelityReport | DiversityReport | MemorizationReport) -> str:
    found = report.extractor
    said = f"Features: {found.name}, weights {found.weights_hash}, resize: {found.resize}"
    if isinstance(report, FidelityReport) and report.settings.folds > 1:
        said += f", cross-fitted in {report.settings.folds} folds of patients"
    return f"{said}; seed of the measurement {report.settings.seed}."


def _progress(results: Results) -> Progress:
    planned = make_cells(results.config)
    names = {cell.name for cell in results.cells}
    done = [cell for cell in planned if cell.name in names]
    return Progress(
        done=len(results.cells),
        planned=results.cells_planned,
        missing=dict(Counter(cell.kind for cell in planned if cell.name not in names)),
        recipes_missing=_first_seen(c.recipe for c in planned if c.recipe not in {d.recipe for d in done}),
        arms_missing=_first_seen(c.arm for c in planned if c.arm not in {d.arm for d in done}),
    )


def _first_seen(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if name is not None)


def _arms(results: Results, percent: float) -> tuple[ArmView, ...]:
    images: dict[ArmKey, dict[int, None]] = {}
    for cell in results.classifiers:
        images.setdefault(cell.key, {})[sum(cell.train_counts)] = None
    found = results.by_arm(percent)
    return tuple(ArmView(key, scores, tuple(images.get(key, ()))) for key, scores in found.items())


def _thresholds(results: Results, percent: float) -> tuple[ThresholdView, ...]:
    by_arm: dict[ArmKey, list[ThresholdReport]] = {}
    for cell in results.classifiers:
        if cell.report.at_threshold is not None and cell.percent == percent:
            by_arm.setdefault(cell.key, []).append(cell.report.at_threshold)
    return tuple(
        ThresholdView(
            key,
            tuple(found.threshold for found in reports),
            tuple(found.balanced_accuracy.value for found in reports),
            tuple(found.accuracy.value for found in reports),
            tuple(zip(*([recall.value for recall in found.recall] for found in reports), strict=True)),
        )
        for key, reports in by_arm.items()
    )


def _mark(label: str, found: Found, series: int, note: str = "") -> Mark:
    return Mark(label, found.value, ends_of(found), series, note)


def _series(results: Results, recipe: str | None) -> int:
    """Return the number of the color and shape of a recipe; 0 for controls."""
    return 0 if recipe is None else list(results.config.recipes).index(recipe) + 1


def _chart(results: Results, summaries: Sequence[Summary], metric: str) -> DotChart:
    shown = [summary for summary in summaries if summary.metric == metric]
    controls = [summary for summary in shown if summary.arm.recipe is None]
    best = max(controls, key=lambda summary: summary.estimate.value) if len(controls) > 1 else None
    groups: dict[str, list[Mark]] = {}
    for recipe in dict.fromkeys([None] * bool(controls) + [summary.arm.recipe for summary in shown]):
        own = [summary for summary in shown if summary.arm.recipe == recipe]
        seeds = [seeds_of(summary.estimate.counts) for summary in own]
        same = len(set(seeds)) == 1
        heading = ", ".join([recipe or _CONTROLS, *(seeds[:1] if same else [])])
        groups[heading] = [
            _mark(
                arm_name(summary.arm.arm),
                summary.estimate,
                _series(results, recipe),
                ", ".join([seed] * (not same) + ["best control"] * (summary is best)),
            )
            for summary, seed in zip(own, seeds, strict=True)
        ]
    chance = guessing("balanced_accuracy" if recalled_class(metric) else metric, results.data.num_classes)
    return dot_chart(
        metric_name(metric),
        groups,
        caption=f"{size_of_test(shown)}. Marks: means over all seeds. Bars: {percent_intervals(results.config.level)} "
        "over seeds and patients.",
        reference=None if chance is None else (chance, f"guessing, {number(chance)}"),
        limits=(0.0, 1.0),
    )


def _cautions(summaries: Sequence[Summary]) -> Iterable[str]:
    once = [s.arm.recipe for s in summaries if s.arm.recipe is not None and s.estimate.counts.generators == 1]
    if once:
        yield (
            f"Trained once only: {', '.join(dict.fromkeys(once))}. Their scores have no interval, because a single "
            "training does not show how another training of the same recipe would end."
        )
    if any(s.arm.recipe is None and s.estimate.counts.classifiers == 1 for s in summaries):
        yield (
            "Some controls have one classifier seed only: their intervals are over patients alone and leave out the "
            "chance of its training."
        )


def _comparison_chart(results: Results) -> DotChart | None:
    full = max((row.a.percent for row in results.comparisons), default=None)
    asked = [r for r in results.comparisons if r.a.percent == full and (r.primary or r.family is not Family.CONTROL)]
    if not asked:
        return None
    groups: dict[str, list[Mark]] = {}
    for family in dict.fromkeys(row.family for row in asked):
        own = [row for row in asked if row.family is family]
        heading = _FAMILIES[family].format(metric=metric_name(own[0].metric), other=side_name(own[0].b))
        groups[heading] = [
            _mark(
                side_name(row.a) + (f" minus {side_name(row.b)}" if family is Family.RECIPES else ""),
                row.difference,
                _series(results, row.a.recipe),
                f"p {p_value(row.difference.p_value)}, after Holm {p_value(row.p_holm)}",
            )
            for row in own
        ]
    return dot_chart(
        "More than chance?",
        groups,
        caption="Right of the dashed line the first of the two is better. Bars: "
        f"{percent_intervals(results.config.level)} of each difference alone, paired by patient, over seeds and "
        "patients. Whether a difference counts is decided by p after Holm's correction for the number of comparisons "
        "under one heading.",
        reference=(0.0, "no difference"),
    )


def _sweep(results: Results) -> SweepView | None:
    percents = sorted({summary.arm.percent for summary in results.summaries})
    if len(percents) < 2:
        return None
    rare = results.rare_class
    label = results.data.class_names.index(rare)
    images = {cell.percent: cell.real_counts[label] for cell in results.classifiers}
    counts = {percent: images.get(percent) for percent in percents}
    shown = [summary for summary in results.summaries if recalled_class(summary.metric) == rare]

    def lines(summaries: Sequence[Summary]) -> dict[str, list[tuple[float, Mark]]]:
        found: dict[str, list[tuple[float, Mark]]] = {}
        for summary in summaries:
            recipe, name = summary.arm.recipe, arm_name(summary.arm.arm)
            mark = _mark(name, summary.estimate, _series(results, recipe))
            found.setdefault(recipe or name, []).append((summary.arm.percent, mark))
        return found

    real = lines([summary for summary in shown if summary.arm.arm == "real"])
    baseline = {name: [(p, replace(mark, series=REFERENCE)) for p, mark in points] for name, points in real.items()}
    others = dict.fromkeys(summary.arm.arm for summary in shown if summary.arm.arm != "real")
    panels = [
        line_panel(arm_name(arm), {**baseline, **lines([s for s in shown if s.arm.arm == arm])}, counts)
        for arm in others
    ]
    ordered = sorted(shown, key=lambda s: (s.arm.recipe or "", s.arm.arm, -s.arm.percent))
    return SweepView(
        rare=rare,
        panels=tuple(panels or [line_panel(arm_name("real"), real, counts)]),
        rows=tuple(SweepRow(summary, counts[summary.arm.percent]) for summary in ordered),
        size_of_test=size_of_test(shown),
        has_reference=bool(real and panels),
    )


def _generators(results: Results) -> tuple[GeneratorView, ...]:
    first: dict[str, GeneratorOutcome] = {}
    for cell in sorted(results.generators, key=lambda cell: (-cell.percent, cell.seed)):
        first.setdefault(cell.recipe, cell)
    return tuple(
        GeneratorView(cell, results.copied(cell.recipe, cell.seed), cell is first[cell.recipe])
        for cell in results.generators
    )


def _judged(cell: JudgeOutcome) -> JudgedView:
    if cell.fidelity is None:
        return JudgedView(cell, (), (), (), {})
    kids = {name: scores["kid"] for name, scores in cell.fidelity.per_class.items() if "kid" in scores}
    rows = tuple(
        ScoreRow(scope, SCORE_NAMES.get(name, name), found)
        for scope, scores in [*cell.fidelity.per_class.items(), ("All classes together", cell.fidelity.overall)]
        for name, found in scores.items()
    )
    notes: dict[str, tuple[str, ...]] = {}
    for row in rows:
        for note in row.found.generated.notes:
            notes[capital(note)] = (*notes.get(capital(note), ()), f"{row.scope}: {row.name}")
    return JudgedView(
        cell,
        farther=tuple(name for name, kid in kids.items() if kid.difference.low > 0),
        near=tuple(name for name, kid in kids.items() if not kid.difference.low > 0),
        scores=rows,
        notes=notes,
    )


def _kid_chart(results: Results, judged: Sequence[JudgedView]) -> DotChart | None:
    groups: dict[str, list[Mark]] = {}
    kids = [(view, row) for view in judged for row in view.scores if row.found.generated.metric == "kid"]
    for view, row in kids:
        fake, real = row.found.generated, row.found.floor
        note = f"{fake.samples} generated and {real.samples} training against {fake.reference_samples} test images"
        mark = _mark(view.who, row.found.difference, _series(results, view.record.recipe), note)
        groups.setdefault(row.scope, []).append(mark)
    if not groups:
        return None
    sizes = {
        view.who: [str(r.found.generated.settings["subset_size"]) for v, r in kids if v is view] for view in judged
    }
    subsets = dict.fromkeys(
        f"KID subsets, in the order of the classes: {', '.join(found)} images." for found in sizes.values() if found
    )
    return dot_chart(
        "KID of generated images minus that of real training images",
        groups,
        caption=f"Left is better. Bars: {percent_intervals(kids[0][1].found.difference.level)} over images and "
        f"patients, for these generators. {grounds(judged, 'fidelity')} {' '.join(subsets)}",
        reference=(0.0, "as near to the test images as real training images are"),
    )


def _judged_classes(results: Results) -> tuple[JudgedClass, ...]:
    found = []
    for recipe in dict.fromkeys(cell.recipe for cell in results.judged):
        own = [cell for cell in results.judged if cell.recipe == recipe]
        for name in results.data.class_names:
            scores = [cell.fidelity.per_class.get(name, {}) for cell in own if cell.fidelity]
            kids = [entry["kid"] for entry in scores if "kid" in entry]
            covered = [entry["coverage"] for entry in scores if "coverage" in entry]
            tests = [cell.gan_test.report for cell in own if cell.gan_test]
            verdicts = [cell.memorization.per_class[name].verdict for cell in own if cell.memorization]
            found.append(
                JudgedClass(
                    recipe,
                    name,
                    len(own),
                    kid=tuple(kid.generated.value for kid in kids),
                    kid_real=tuple(kid.floor.value for kid in kids),
                    farther=tuple(kid.difference.low > 0 for kid in kids),
                    coverage=tuple(entry.generated.value for entry in covered),
                    coverage_real=tuple(entry.floor.value for entry in covered),
                    recognized=tuple(test.recall[test.class_names.index(name)].value for test in tests),
                    collapsed=tuple(cell.diversity.per_class[name].collapsed for cell in own if cell.diversity),
                    copies=dict(Counter(verdicts)),
                )
            )
    return tuple(found)
