"""Scores of arms over seeds and patients, and their comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from condgan.metrics.classification import decision_scores
from condgan.metrics.comparison import delong, holm, mcnemar
from condgan.metrics.scores import auroc
from condgan.metrics.seeds import Score, SeedDifference, SeedEstimate, paired_difference, seed_interval
from condgan.metrics.statistics import Estimate
from condgan.study.arms import ARMS
from condgan.study.config import StudyConfig


class ArmKey(NamedTuple):
    """An arm at a percentage, of a recipe's entry if it has generated images."""

    recipe: str | None
    arm: str
    p: float


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The test probabilities of all finished classifiers.

    Args:
        config: The configuration of the study.
        class_names: Names of the classes.
        labels: Labels of the test images.
        groups: Their groups (patients).
        by_arm: For each arm the probabilities `(N, K)` by generator seed and classifier seed; arms without generated
            images have the one generator seed None.

    Shape:
        - `labels`, `groups`: `(N,)`, int64.
    """

    config: StudyConfig
    class_names: tuple[str, ...]
    labels: Tensor
    groups: Tensor
    by_arm: Mapping[ArmKey, Mapping[int | None, Mapping[int, Tensor]]]

    def runs(self, key: ArmKey) -> list[Any]:
        """Return the runs of an arm as `seed_interval` takes them.

        Where classifiers are missing, only the generators that have the most are taken.
        """
        by_seed = self.by_arm[key]
        most = max(map(len, by_seed.values()))
        complete = [dict(sorted(found.items())) for found in by_seed.values() if len(found) == most]
        nested = [list(found.values()) for found in complete]
        return nested[0] if key.recipe is None else nested

    def for_metric(self, metric: str) -> Outcomes:
        """Return the outcomes on the images that a metric depends on: for a class's recall, those of the class."""
        if metric not in self._recalls:
            return self
        kept = self.labels == self._recalls[metric]
        return replace(
            self,
            labels=self.labels[kept],
            groups=self.groups[kept],
            by_arm={
                key: {seed: {classifier: p[kept] for classifier, p in found.items()} for seed, found in by_seed.items()}
                for key, by_seed in self.by_arm.items()
            },
        )

    @property
    def _recalls(self) -> dict[str, int]:
        return {f"recall/{name}": label for label, name in enumerate(self.class_names)}

    @property
    def scores(self) -> dict[str, Score]:
        """The metrics by name, as functions of probabilities and weights."""

        def of_decisions(name: str) -> Score:
            return lambda p, w: decision_scores(p.argmax(1), self.labels, p.shape[1], w)[name]

        return {
            "accuracy": of_decisions("accuracy"),
            "balanced_accuracy": of_decisions("balanced accuracy"),
            "auroc": lambda p, w: auroc(p, self.labels, weights=w),
            "macro_f1": of_decisions("macro F1"),
            **{name: of_decisions(f"recall {label}") for name, label in self._recalls.items()},
        }


def summarize_arms(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Return one row for each arm and metric, with an interval over seeds and patients."""
    judged = {metric: outcomes.for_metric(metric) for metric in outcomes.scores}
    found = {
        (key, metric): seed_interval(on.scores[metric], on.runs(key), on.groups, level=on.config.level)
        for key in outcomes.by_arm
        for metric, on in judged.items()
    }
    return [
        {
            **key._asdict(),
            "metric": metric,
            **_interval(estimate),
            "standard_error": estimate.standard_error,
            "components": estimate.components,
            "degrees_of_freedom": estimate.degrees_of_freedom,
            "generator_seeds": 0 if key.recipe is None else estimate.counts["generator seeds"],
            "classifier_seeds": estimate.counts["classifier seeds"],
            "patients": estimate.counts["patients"],
            "images": len(judged[metric].labels),
            "relative_usefulness": _relative(
                estimate, found.get((ArmKey(None, "real", key.p), metric)), outcomes, metric
            )
            if key.recipe is not None
            else None,
        }
        for (key, metric), estimate in found.items()
    ]


def compare_arms(
    outcomes: Outcomes, summaries: Sequence[Mapping[str, Any]], counts: Sequence[int]
) -> list[dict[str, Any]]:
    """Compare arms with generated images with those without, and recipes with each other.

    There are three families of comparisons, each corrected by itself (Holm) for each metric and percentage:

    - `"control"`: every arm with generated images against the best of the controls, by the same metric.
    - `"rare"`: the recall of the rarest class, of every such arm against real images alone (the best control where
      these were not run).
    - `"recipes"`: the recipes among each other, on the first arm of generated images alone.

    Controls are chosen by the test score that they are compared by, which favors them.

    Args:
        outcomes: All probabilities.
        summaries: What `summarize_arms` returned.
        counts: Numbers of the real training images of each class.
    """
    config = outcomes.config
    value = {(ArmKey(row["recipe"], row["arm"], row["p"]), row["metric"]): row["value"] for row in summaries}
    rare = f"recall/{focus_class(config, outcomes.class_names, counts)}"
    rows: list[dict[str, Any]] = []
    for p in dict.fromkeys(key.p for key in outcomes.by_arm):
        here = [key for key in outcomes.by_arm if key.p == p]
        controls, treated = [k for k in here if k.recipe is None], [k for k in here if k.recipe is not None]
        if controls:
            for metric in dict.fromkeys([config.primary_metric, "balanced_accuracy", "auroc"]):
                best = max(controls, key=lambda key: value[key, metric])
                rows += _family("control", metric, [(key, best) for key in treated], outcomes)
            plain = ArmKey(None, "real", p)
            other = plain if plain in controls else max(controls, key=lambda key: value[key, rare])
            rows += _family("rare", rare, [(key, other) for key in treated], outcomes)
        alone = next((arm for arm in config.arms if is_synthetic_only(arm)), None)
        pairs = combinations([key for key in treated if key.arm == alone], 2)
        rows += _family("recipes", config.primary_metric, list(pairs), outcomes)
    return rows


def is_synthetic_only(arm: str) -> bool:
    """Return whether an arm trains on generated images alone."""
    return not any(phase.real or phase.duplicates for phase in ARMS[arm].phases)


def focus_class(config: StudyConfig, class_names: Sequence[str], counts: Sequence[int]) -> str:
    """Return the class whose recall is looked at: the one made rare, or else the rarest."""
    if config.reduced_class is not None:
        return config.reduced_class
    return class_names[min(range(len(class_names)), key=lambda label: counts[label])]


def _family(
    family: str, metric: str, pairs: Sequence[tuple[ArmKey, ArmKey]], outcomes: Outcomes
) -> list[dict[str, Any]]:
    config, on = outcomes.config, outcomes.for_metric(metric)
    score = on.scores[metric]

    def differences(level: float) -> list[SeedDifference]:
        return [paired_difference(score, on.runs(a), on.runs(b), on.groups, level=level) for a, b in pairs]

    estimates = differences(config.level)
    # Bonferroni: the level that covers all of so many differences together
    together = differences(1 - (1 - config.level) / len(pairs)) if len(pairs) > 1 else estimates
    adjusted = holm([estimate.p_value for estimate in estimates])
    return [
        {
            "family": family,
            "a": a._asdict(),
            "b": b._asdict(),
            "metric": metric,
            "difference": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "level": config.level,
            "simultaneous": {"low": wide.low, "high": wide.high, "level": wide.level},
            "p_value": estimate.p_value,
            "p_holm": corrected,
            "primary": family == "control" and metric == config.primary_metric and a.p == config.full_percent,
            "components": estimate.components,
            "degrees_of_freedom": estimate.degrees_of_freedom,
            "seeds": {"a": _seeds(outcomes.runs(a), a), "b": _seeds(outcomes.runs(b), b)},
            "secondary": _single_pair(outcomes, a, b),
        }
        for (a, b), estimate, wide, corrected in zip(pairs, estimates, together, adjusted, strict=True)
    ]


def _seeds(runs: Sequence[Any], key: ArmKey) -> dict[str, int]:
    if key.recipe is None:
        return {"generator": 0, "classifier": len(runs)}
    return {"generator": len(runs), "classifier": len(runs[0])}


def _single_pair(outcomes: Outcomes, a: ArmKey, b: ArmKey) -> dict[str, Any]:
    first, second = (_first(outcomes.runs(key)) for key in (a, b))
    areas = delong(first, second, outcomes.labels, level=outcomes.config.level) if first.shape[1] == 2 else None
    return {
        "of": "the first classifier of the first generator of either arm",
        "mcnemar": mcnemar(first.argmax(1), second.argmax(1), outcomes.labels).as_dict(),
        "delong": None if areas is None else areas.as_dict(),
    }


def _first(runs: Any) -> Tensor:
    return runs if isinstance(runs, torch.Tensor) else _first(runs[0])


def _relative(estimate: SeedEstimate, real: SeedEstimate | None, outcomes: Outcomes, metric: str) -> float | None:
    chance = chance_of(metric, len(outcomes.class_names))
    if real is None or chance is None:
        return None
    try:
        return relative_usefulness(estimate, real, chance=chance)
    except ValueError:  # real images taught nothing that could be told from chance
        return None


def chance_of(metric: str, num_classes: int) -> float | None:
    """Return the score of guessing, or None where it depends on the guesses."""
    return {"balanced_accuracy": 1 / num_classes, "auroc": 0.5}.get(metric)


def _interval(estimate: SeedEstimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "level": estimate.level}


def arm_keys(cells: Iterable[Mapping[str, Any]]) -> dict[ArmKey, list[Mapping[str, Any]]]:
    """Return the finished classifiers of each arm."""
    found: dict[ArmKey, list[Mapping[str, Any]]] = {}
    for cell in cells:
        if cell["kind"] == "classifier" and "error" not in cell:
            found.setdefault(ArmKey(cell["recipe"], cell["arm"], cell["p"]), []).append(cell)
    return found


def relative_usefulness(synthetic: Estimate, real: Estimate, *, chance: float) -> float:
    r"""Return how much of what real images teach is learned from generated ones.

    $$\frac{s_\text{synthetic} - s_\text{chance}}{s_\text{real} - s_\text{chance}}$$

    It is 1 if generated images are as good as real ones, 0 if they teach nothing, and may lie outside.

    Args:
        synthetic: Score of the arm in question.
        real: The same score of the arm with real images only.
        chance: The score of guessing: 1/K for balanced accuracy, 1/2 for AUROC.

    Raises:
        ValueError: If the interval of the real score reaches down to chance: the ratio could then be anything.

    Examples:
        >>> relative_usefulness(Estimate(0.8, 0.75, 0.85), Estimate(0.9, 0.87, 0.93), chance=0.5)
        0.75...
    """
    if not real.low > chance:
        raise ValueError(
            f"the interval of the real score must lie above chance, {chance:g}, got {real}. Real images taught the "
            "classifier nothing that could be told from chance: train it for longer or on more images."
        )
    return (synthetic.value - chance) / (real.value - chance)
