"""How often intervals over seeds and patients hold the truth. Run as `python benchmarks/intervals --help`.

Classifiers are simulated on a test set as large and as clustered as the official one of the chest X-rays: 234 normal
and 390 pneumonia images of 428 patients. An image's latent score is a sum of normal effects of its patient, of itself,
of the arm, of the generator's and the classifier's seed, and of their interactions; above 0 it counts as ill. So the
truth, the expectation over seeds and patients, is known in closed form. Each regime weighs the effects otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, gammaincinv, logit, ndtr, ndtri, stdtrit
from simulation import MEANS, PATIENT, PATIENTS, REGIMES, SCORES, Y, by_patient, draw, truth
from torch import Tensor

from condgan.metrics.scores import auroc, confusion_matrix
from condgan.metrics.seeds import SeedDifference, SeedEstimate, paired_difference, seed_interval
from condgan.study.provenance import provenance


def estimates(latent: dict[str, Tensor], score: str) -> dict[tuple[str, ...], SeedEstimate]:
    """Return the intervals of one repetition; keys name the design, then its arm or the two of a difference."""
    prepare, of = SCORES[score]
    runs = {arm: [list(classifiers) for classifiers in by_patient(prepare(x))] for arm, x in latent.items()}
    five, three, real = runs["generated"], runs["generated"][:3], runs["real"][0]
    other, more = runs["other generator"], runs["more of it"]
    patients = torch.arange(PATIENTS)
    return {
        ("real, 3", "real"): seed_interval(of, real, patients),
        ("3 x 3", "generated"): seed_interval(of, three, patients),
        ("5 x 3", "generated"): seed_interval(of, five, patients),
        ("3 x 3 - real, 3", "generated", "real"): paired_difference(of, three, real, patients),
        ("5 x 3 - real, 3", "generated", "real"): paired_difference(of, five, real, patients),
        ("3 x 3 - 3 x 3, other generator", "generated", "other generator"): paired_difference(
            of, three, other, patients
        ),
        ("3 x 3 - 3 x 3, same generators", "generated", "more of it"): paired_difference(
            of, three, more, patients, paired_seeds=True
        ),
    }


def other_rules(estimate: SeedEstimate) -> dict[str, tuple[float, float]]:
    """Return the intervals by rules that the library does not follow."""
    parts, counts, single = estimate.components, estimate.counts, not isinstance(estimate, SeedDifference)

    def interval(error: float, quantile: float, bounded: bool = single) -> tuple[float, float]:
        if bounded and 0 < estimate.value < 1:
            steps = np.array([-1, 1]) * quantile * error / (estimate.value * (1 - estimate.value))
            low, high = expit(logit(estimate.value) + steps)
            return float(low), float(high)
        return estimate.value - quantile * error, estimate.value + quantile * error

    squares = parts["patients"] ** 2 / (counts["patients"] - 1)
    for arm in ("a: ", "b: ") if any(name.startswith("a: ") for name in counts) else ("",):
        freedom = next(n for name, n in counts.items() if name.startswith(arm) and n > 1) - 1
        squares += (
            sum(part for name, part in parts.items() if name.startswith(arm) and name != "patients") ** 2 / freedom
        )
    error, t = estimate.standard_error, float(stdtrit(estimate.degrees_of_freedom, 0.975))
    noise = math.sqrt(sum(part for name, part in parts.items() if name.endswith("patients")))
    rules = {
        "patients alone": interval(noise, float(ndtri(0.975))),
        "Satterthwaite": interval(error, float(stdtrit(error**4 / squares, 0.975)) if error else t),
    }
    return rules | {"without logit": interval(error, t, bounded=False)} if single else rules


def simulate(name: str, repetitions: int) -> list[dict[str, Any]]:
    """Return a row for each score and design of a regime."""
    torch.set_num_threads(1)
    regime, rng = REGIMES[name], torch.Generator().manual_seed(list(REGIMES).index(name))
    found: dict[tuple[str, tuple[str, ...]], list[SeedEstimate]] = {}
    for _ in range(repetitions):
        latent = draw(regime, rng)
        for score in SCORES:
            for design, estimate in estimates(latent, score).items():
                found.setdefault((score, design), []).append(estimate)
    rows = []
    for (score, (design, *arms)), cases in found.items():
        expected = [truth(regime, arm)[score] for arm in arms]
        aim = expected[0] - sum(expected[1:])
        errors = np.array([case.value - aim for case in cases])
        rules = [other_rules(case) for case in cases]
        covered = float(np.mean([case.low <= aim <= case.high for case in cases]))
        variance = float(np.mean([case.standard_error**2 for case in cases]))
        patients = float(np.mean([case.components["patients"] for case in cases]))
        rows.append(
            {
                "regime": name,
                "score": score,
                "design": design,
                "arms": arms,
                "truth": aim,
                "coverage": covered,
                "monte_carlo_error": math.sqrt(covered * (1 - covered) / repetitions),
                "mean_half_width": float(np.mean([(case.high - case.low) / 2 for case in cases])),
                "seed_share_of_variance": 1 - patients / variance,
                "estimated_over_true_variance": variance / float(np.mean(errors**2)),
                "bias_in_standard_errors": float(errors.mean() / errors.std() * math.sqrt(repetitions)),
                "coverage_by_other_rules": {
                    rule: float(np.mean([case[rule][0] <= aim <= case[rule][1] for case in rules])) for rule in rules[0]
                },
            }
        )
    return rows


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many intervals cover as they should, and the extremes."""
    covered = [row["coverage"] for row in rows]
    return {
        "intervals": len(rows),
        "within": sum(0.93 <= coverage <= 0.97 for coverage in covered),
        "below": sum(coverage < 0.93 for coverage in covered),
        "lowest": min(covered),
        "highest": max(covered),
    }


def exact(freedom: int, seeds: float, interactions: float, power: int) -> float:
    """Return the exact coverage of the interval without logit for normal effects and well known patients' parts.

    Args:
        freedom: Seeds less one.
        seeds: Share of the variance that seeds have by themselves.
        interactions: Share that interactions of seeds and patients have.
        power: Of the estimated shares in the degrees of freedom; Satterthwaite's is 2, the library's 1.
    """
    uniform = (np.arange(20_000) + 0.5) / 20_000
    spread = (seeds + interactions) * gammaincinv(freedom / 2, uniform) * 2 / freedom
    patients = np.maximum(1 - seeds - interactions, (1 - seeds) / 2 - spread)
    variance = spread + patients
    per_freedom = (spread / variance) ** power / freedom + (patients / variance) ** power / (PATIENTS - 1)
    return float(np.mean(2 * ndtr(stdtrit(1 / per_freedom, 0.975) * np.sqrt(variance)) - 1))


def check_shortcuts() -> None:
    """Raise if sums over patients give other intervals than images and the scores of the library."""
    latent = draw(REGIMES["balanced"], torch.Generator().manual_seed(0))["real"][0]
    p = latent.sigmoid()

    def recall(decisions: Tensor, weights: Tensor) -> Tensor:
        confusion = confusion_matrix(decisions, Y, num_classes=2, weights=weights)
        return confusion.diagonal(dim1=-2, dim2=-1) / confusion.sum(-1)

    by_image: dict[str, tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]] = {
        "balanced accuracy": ((latent > 0).long(), lambda d, w: recall(d, w).mean(-1)),
        "normal recall": ((latent > 0).long(), lambda d, w: recall(d, w)[:, 0]),
        "pneumonia recall": ((latent > 0).long(), lambda d, w: recall(d, w)[:, 1]),
        "AUROC": (torch.stack([1 - p, p], -1), lambda p, w: auroc(p, Y, weights=w)),
    }
    for name, (outcomes, score) in by_image.items():
        prepare, fast = SCORES[name]
        ours = seed_interval(fast, list(by_patient(prepare(latent))), torch.arange(PATIENTS))
        library = seed_interval(score, list(outcomes), PATIENT)
        if not np.allclose([ours.low, ours.high], [library.low, library.high], rtol=1e-9, atol=0):
            raise RuntimeError(f"{name} by sums over patients has the interval {ours}, by images {library}.")


def main() -> None:
    """Simulate all regimes and write the coverage as JSON."""
    parser = argparse.ArgumentParser(prog="python benchmarks/intervals", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1, help="regimes side by side, one thread each")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()

    torch.set_num_threads(1)
    check_shortcuts()
    with ProcessPoolExecutor(given.jobs) as pool:
        rows = [row for part in pool.map(simulate, REGIMES, [given.repetitions] * len(REGIMES)) for row in part]
    for row in rows:
        print(
            f"{row['regime']:32} {row['score']:18} {row['design']:31} {row['coverage']:.3f}  "
            f"width {row['mean_half_width']:.4f}  seeds {row['seed_share_of_variance']:+.2f}  "
            f"variance {row['estimated_over_true_variance']:.2f}  "
            + "  ".join(f"{rule} {value:.3f}" for rule, value in row["coverage_by_other_rules"].items())
        )
    summary = [
        {
            "regime": name,
            "arms": arms,
            **summarize([row for row in rows if (row["regime"], len(row["arms"])) == (name, arms)]),
        }
        for name in REGIMES
        for arms in (1, 2)
    ]
    for part in summary:
        print(
            "{regime:26} {arms} arms: {within} of {intervals} within 0.93 to 0.97, {lowest} to {highest}".format(**part)
        )
    result = {
        "what": f"coverage of nominal 95 % intervals in {given.repetitions} repetitions, {len(Y)} images of "
        f"{PATIENTS} patients",
        **provenance("cpu"),
        "summary": summary,
        "regimes": {name: asdict(regime) for name, regime in REGIMES.items()},
        "mean_latent_scores": {arm: list(means) for arm, means in MEANS.items()},
        "exact_for_normal_effects": [
            {
                "seeds": freedom + 1,
                "share_of_seeds": share,
                "share_of_interactions": interactions,
                "coverage": exact(freedom, share, interactions, power=1),
                "coverage_by_satterthwaite": exact(freedom, share, interactions, power=2),
            }
            for freedom in (1, 2, 4)
            for interactions in (0.0, 0.1, 0.5, 1.0)
            for share in (0.0, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0)
            if share + interactions <= 1
        ],
        "coverage": rows,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "coverage.json"
    short = json.loads(json.dumps(result), parse_float=lambda number: float(f"{float(number):.5g}"))
    path.write_text(json.dumps(short, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
