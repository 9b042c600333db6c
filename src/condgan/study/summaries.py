"""Scores of arms over seeds and patients, their comparisons, and the results of a study's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

from torch import Tensor

from condgan.stats import (
    OVERALL_METRICS,
    Estimate,
    SeedDifference,
    SeedEstimate,
    holm,
    paired_difference,
    recall_of,
    score_functions,
    seed_interval,
)
from condgan.stats.seeds import Runs, ScoreFunction
from condgan.study.arms import ARMS
from condgan.study.cells import make_cells
from condgan.study.config import StudyConfig
from condgan.study.folder import StudyFolder
from condgan.study.provenance import Provenance
from condgan.study.results import (
    ArmKey,
    ClassifierOutcome,
    Comparison,
    Family,
    Outcome,
    Results,
    Summary,
    guessing,
    rare_class,
    recalled_class,
)
from condgan.study.verdicts import verdicts

ByGenerator = Mapping[int | None, Mapping[int, Tensor]]
"""Test probabilities `(N, K)` by generator seed (None without generated images) and classifier seed."""


def summarize(folder: str | Path) -> Results:
    """Return the results of a study so far.

    They depend only on the files of the folder: merged folders of several machines give the same results as one.

    Args:
        folder: Folder of a study.

    Raises:
        FileNotFoundError: If the folder holds no study.
        ValueError: If it has another schema.
    """
    files = StudyFolder(folder)
    study = files.study()
    config, data = study.config, study.data
    planned = make_cells(config)
    cells = tuple(files.read(cell.name) for cell in planned if files.is_finished(cell.name))
    labels, groups = files.test()
    rare = rare_class(config, data)
    tested = TestedArms(config, data.class_names, labels, groups, _probabilities(files, cells))
    summaries = summarize_arms(tested)
    comparisons = compare_arms(tested, summaries, rare)
    origins = [cell.origin for cell in cells]
    return Results(
        command=study.command,
        config=config,
        data=data,
        commit=_together([origin.commit for origin in origins]),
        device=_together([origin.device for origin in origins]),
        versions=_versions(origins),
        cells_planned=len(planned),
        cells=cells,
        summaries=summaries,
        comparisons=comparisons,
        verdicts=verdicts(config, rare, data.num_classes, cells, summaries, comparisons, planned=len(planned)),
        test_evaluations=files.test_evaluations(),
    )


@dataclass(frozen=True)
class TestedArms:
    """The test probabilities of all tested classifiers.

    Args:
        config: The configuration of the study.
        class_names: Names of the classes.
        labels: Labels of the test images.
        groups: Their groups (patients).
        by_arm: Probabilities of each arm.

    Shape:
        - `labels`, `groups`: `(N,)`, int64.
    """

    __test__ = False  # pytest takes the name for a test case

    config: StudyConfig
    class_names: tuple[str, ...]
    labels: Tensor
    groups: Tensor
    by_arm: Mapping[ArmKey, ByGenerator]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that arms are scored by."""
        return (*OVERALL_METRICS, *map(recall_of, self.class_names))

    @cached_property
    def scores(self) -> dict[str, ScoreFunction]:
        """The metrics as functions of probabilities and weights."""
        return score_functions(self.labels, self.class_names)

    def on_images_of(self, metric: str) -> TestedArms:
        """Return the part on the images that a metric depends on: those of the class, for its recall."""
        name = recalled_class(metric)
        if name is None:
            return self
        kept = self.labels == self.class_names.index(name)
        return replace(
            self,
            labels=self.labels[kept],
            groups=self.groups[kept],
            by_arm={
                key: {seed: {number: p[kept] for number, p in found.items()} for seed, found in by_seed.items()}
                for key, by_seed in self.by_arm.items()
            },
        )

    def estimate(self, metric: str, key: ArmKey) -> SeedEstimate:
        """Return the score of an arm, with an interval over seeds and patients."""
        runs = _runs(key, self.by_arm[key], self._complete(key))
        return seed_interval(self.scores[metric], runs, self.groups, level=self.config.level)

    def difference(self, metric: str, a: ArmKey, b: ArmKey, *, level: float) -> SeedDifference:
        """Return the difference of two arms, a minus b.

        Two arms of one recipe are trained on images of the same generators and are compared on those that both have.
        Arms of different recipes share no seeds, even if these have the same numbers.
        """
        shared = a.recipe is not None and (a.recipe, a.percent) == (b.recipe, b.percent)
        seeds_a, seeds_b = self._complete(a), self._complete(b)
        if shared:
            seeds_a = seeds_b = [seed for seed in seeds_a if seed in seeds_b]
        return paired_difference(
            self.scores[metric],
            _runs(a, self.by_arm[a], seeds_a),
            _runs(b, self.by_arm[b], seeds_b),
            self.groups,
            shared_seeds=shared,
            level=level,
        )

    def _complete(self, key: ArmKey) -> list[int | None]:
        """Return the seeds of the generators with the most classifiers, those without missing ones."""
        by_seed = self.by_arm[key]
        most = max(map(len, by_seed.values()))
        return [seed for seed, found in by_seed.items() if len(found) == most]


def _runs(key: ArmKey, by_seed: ByGenerator, seeds: Sequence[int | None]) -> Runs:
    nested = [[p for _, p in sorted(by_seed[seed].items())] for seed in seeds]
    return nested[0] if key.recipe is None else nested


def summarize_arms(tested: TestedArms) -> tuple[Summary, ...]:
    """Return the score of each arm by each metric, with an interval over seeds and patients."""
    on_images = {metric: tested.on_images_of(metric) for metric in tested.metrics}
    found = {(key, metric): on.estimate(metric, key) for key in tested.by_arm for metric, on in on_images.items()}
    return tuple(
        Summary(
            arm=key,
            metric=metric,
            estimate=estimate,
            images=len(on_images[metric].labels),
            relative_usefulness=_relative(
                estimate,
                found.get((ArmKey(recipe=None, arm="real", percent=key.percent), metric)),
                guessing(metric, len(tested.class_names)),
            )
            if key.recipe is not None
            else None,
        )
        for (key, metric), estimate in found.items()
    )


def compare_arms(tested: TestedArms, summaries: Sequence[Summary], rare: str) -> tuple[Comparison, ...]:
    """Compare arms with generated images with those without, and recipes with each other, see `Family`.

    Controls are chosen by the test score that they are compared by, which favors them.

    Args:
        tested: All probabilities.
        summaries: What `summarize_arms` returned.
        rare: The class whose recall is compared.
    """
    config = tested.config
    value = {(summary.arm, summary.metric): summary.estimate.value for summary in summaries}
    rows: list[Comparison] = []
    for percent in dict.fromkeys(key.percent for key in tested.by_arm):
        here = [key for key in tested.by_arm if key.percent == percent]
        controls, treated = [k for k in here if k.recipe is None], [k for k in here if k.recipe is not None]
        if controls:
            for metric in dict.fromkeys([config.primary_metric, "balanced_accuracy", "auroc"]):
                best = max(controls, key=lambda key: value[key, metric])
                rows += _family(Family.CONTROL, metric, [(key, best) for key in treated], tested)
            plain = ArmKey(recipe=None, arm="real", percent=percent)
            recall = recall_of(rare)
            other = plain if plain in controls else max(controls, key=lambda key: value[key, recall])
            rows += _family(Family.RARE, recall, [(key, other) for key in treated], tested)
        alone = next((arm for arm in config.arms if ARMS[arm].synthetic_only), None)
        pairs = list(combinations([key for key in treated if key.arm == alone], 2))
        rows += _family(Family.RECIPES, config.primary_metric, pairs, tested)
    return tuple(rows)


def _family(
    family: Family, metric: str, pairs: Sequence[tuple[ArmKey, ArmKey]], tested: TestedArms
) -> list[Comparison]:
    config, on = tested.config, tested.on_images_of(metric)

    def differences(level: float) -> list[SeedDifference]:
        return [on.difference(metric, a, b, level=level) for a, b in pairs]

    found = differences(config.level)
    # Bonferroni: intervals that cover all differences together
    together = differences(1 - (1 - config.level) / len(pairs)) if len(pairs) > 1 else found
    # a comparison without p value counts in the correction of the others
    adjusted = holm([1.0 if one.p_value is None else one.p_value for one in found])
    return [
        Comparison(
            family=family,
            a=a,
            b=b,
            metric=metric,
            level=config.level,
            difference=difference,
            simultaneous=wide.interval,
            p_holm=None if difference.p_value is None else corrected,
            primary=family is Family.CONTROL and metric == config.primary_metric and a.percent == config.full_percent,
        )
        for (a, b), difference, wide, corrected in zip(pairs, found, together, adjusted, strict=True)
    ]


def _relative(synthetic: SeedEstimate, real: SeedEstimate | None, chance: float | None) -> float | None:
    if real is None or real.interval is None or chance is None:
        return None
    try:
        return relative_usefulness(
            synthetic.value, Estimate(real.value, real.interval.low, real.interval.high), chance=chance
        )
    except ValueError:  # real images are not distinguishable from chance
        return None


def relative_usefulness(synthetic: float, real: Estimate, *, chance: float) -> float:
    r"""Return the share of what real images teach that generated ones teach too.

    $$\frac{s_\text{synthetic} - s_\text{chance}}{s_\text{real} - s_\text{chance}}$$

    It is 1 if generated images are as good as real ones, 0 if they teach nothing, and may lie outside.

    Args:
        synthetic: Score of the arm in question.
        real: The same score of the arm with real images only.
        chance: The score of guessing: 1/K for balanced accuracy, 1/2 for AUROC.

    Raises:
        ValueError: If the interval of the real score reaches down to chance: the ratio could then be anything.

    Examples:
        >>> relative_usefulness(0.8, Estimate(0.9, 0.87, 0.93), chance=0.5)
        0.75...
    """
    if not real.low > chance:
        raise ValueError(
            f"the interval of the real score must lie above chance, {chance:g}, got {real}. The classifier of real "
            "images is not distinguishable from chance: train it for longer or on more images."
        )
    return (synthetic - chance) / (real.value - chance)


def _probabilities(files: StudyFolder, cells: Sequence[Outcome]) -> dict[ArmKey, dict[int | None, dict[int, Tensor]]]:
    found: dict[ArmKey, dict[int | None, dict[int, Tensor]]] = {}
    for cell in cells:
        if isinstance(cell, ClassifierOutcome):
            by_seed = found.setdefault(cell.key, {})
            by_seed.setdefault(cell.seed, {})[cell.classifier_seed] = files.probabilities(cell.name)
    return found


def _together(values: Sequence[str | None]) -> str | None:
    return ", ".join(dict.fromkeys(value for value in values if value is not None)) or None


def _versions(origins: Sequence[Provenance]) -> dict[str, str]:
    names = dict.fromkeys(name for origin in origins for name in origin.versions)
    found = {name: [origin.versions[name] for origin in origins if name in origin.versions] for name in names}
    return {name: ", ".join(dict.fromkeys(versions)) for name, versions in found.items()}
