"""Each saving alone against the plain tutorial loop, and all of them together, which is the library's trainer.

The trainer also does what the loop does not: it dequantizes, averages the generator, and watches and records losses
and gradient norms. Operations are counted, not timed: they are the same on every machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import tutorial
from counting import count, total_operations
from subjects import Config, Ours, configurations
from timing import (
    Budget,
    Part,
    Repeat,
    Run,
    Settings,
    alternate,
    alternate_iterations,
    on_cuda,
    or_left_out,
    ratio,
    summary,
)
from tutorial import TutorialLoop


@dataclass(frozen=True)
class Saving:
    """A loop with a saving, and the loop that it is compared with.

    Attributes:
        saved: The loop with the saving.
        plain: The loop without.
        spectral_norm: Whether both have a spectrally normalized critic.
        cuda_only: Whether it is one on CUDA only, and nothing on the CPU.
        alone: Returns the changed part of a loop, to be timed by itself where it is small beside the iteration.
    """

    saved: type[TutorialLoop]
    plain: type[TutorialLoop] = TutorialLoop
    spectral_norm: bool = False
    cuda_only: bool = False
    alone: Callable[[Any], Run] | None = None

    def names(self) -> tuple[str, str]:
        """Return the names of the two subjects."""
        spectral = "SpectralNorm" if self.spectral_norm else ""
        return f"{self.saved.__name__}{spectral}", f"{self.plain.__name__}{spectral}"


SAVINGS: dict[str, Saving] = {
    "no_grad_fakes": Saving(tutorial.NoGradFakes),
    "one_forward": Saving(tutorial.OneForward),
    "no_zero_second_derivatives": Saving(tutorial.NoZeroSecondDerivatives),
    "weight_gradients": Saving(tutorial.WeightGradients),
    "resized_weights": Saving(tutorial.ResizedWeights),
    "frozen_critic": Saving(tutorial.FrozenCritic),
    "fused_adam": Saving(tutorial.FusedAdam, alone=lambda loop: loop.critic_optimizer.step),
    "channels_last": Saving(tutorial.ChannelsLast),
    "bf16": Saving(tutorial.Bf16),
    "foreach_average": Saving(tutorial.ForeachAverage, tutorial.AveragingLoop, alone=lambda loop: loop.average),
    "one_power_iteration": Saving(tutorial.OnePowerIteration, spectral_norm=True),
    "nothing_read": Saving(TutorialLoop, tutorial.ReadingLoop, cuda_only=True),
    "draws_on_device": Saving(TutorialLoop, tutorial.HostDraws, cuda_only=True),
}
ALL = {"all": "fp32", "all_bf16": "bf16"}
CAREFUL_AND_NOT = {"tutorial": "TutorialLoop", "no_grad_fakes": "NoGradFakes"}


def measure(settings: Settings) -> Part:
    """Count and time every saving."""
    part = Part()
    budget = Budget(settings.limit)
    savings = {name: s for name, s in SAVINGS.items() if on_cuda(settings.device) or not s.cuda_only}
    part.left_out = [
        {"saving": name, "reason": "nothing to save where the host is the device"}
        for name in SAVINGS
        if name not in savings
    ]
    for config in configurations(settings):
        kind = "" if config.kind == "dcgan" else f"_{config.kind}"
        operations = count_ours_and_theirs(config, settings.device)
        for name, theirs in CAREFUL_AND_NOT.items():
            part.ratios[f"operations{kind}_b{config.batch}.{name}"] = operations["all"] / operations[theirs]
        with or_left_out(part, config.describe()):
            budget.foresee(config.pixels)
            measure_config(config, savings, operations, settings, budget, part)
    return part


def measure_config(
    config: Config,
    savings: dict[str, Saving],
    operations: dict[str, int],
    settings: Settings,
    budget: Budget,
    part: Part,
) -> None:
    """Enter one row for each saving."""
    loops = make_loops(config, savings, settings.device)
    subjects: dict[str, Repeat] = {name: loop.repeat for name, loop in loops.items()}
    subjects |= {name: Ours(config, settings.device, precision=precision) for name, precision in ALL.items()}
    for subject in subjects.values():
        budget.start(subject, settings.device)
    seconds = alternate_iterations(subjects, settings)
    operations |= {name: total_operations(count(loop.iterate)) for name, loop in loops.items()}
    for name, precision in ALL.items():
        key = config.name("iteration", precision)
        part.ratios[f"{key}.no_grad_fakes"] = ratio(seconds[name], seconds["NoGradFakes"])
    pairs = {name: saving.names() for name, saving in savings.items()} | {name: (name, "TutorialLoop") for name in ALL}
    for name, (saved, plain) in pairs.items():
        value = ratio(seconds[saved], seconds[plain])
        part.ratios[f"saving_{name}_{config.kind}_b{config.batch}.tutorial"] = value
        part.rows.append(
            {
                "saving": name,
                **config.describe(),
                "rounds": settings.rounds,
                "seconds": {"with": summary(seconds[saved]), "without": summary(seconds[plain])},
                "ratio": value,
                "operations": {"with": operations[saved], "without": operations[plain]},
                "operations_ratio": operations[saved] / operations[plain],
                **measure_alone(savings.get(name), loops, settings),
            }
        )


def make_loops(config: Config, savings: dict[str, Saving], device: str) -> dict[str, TutorialLoop]:
    """Return every loop that a saving asks for, once."""
    return {
        name: loop.of(config, device, **({"spectral_norm": True} if saving.spectral_norm else {}))
        for saving in savings.values()
        for name, loop in zip(saving.names(), (saving.saved, saving.plain), strict=True)
    }


def measure_alone(saving: Saving | None, loops: dict[str, TutorialLoop], settings: Settings) -> dict[str, Any]:
    """Time the changed part by itself, many times a call."""
    if saving is None or saving.alone is None:
        return {}
    parts = {name: saving.alone(loops[name]) for name in saving.names()}
    seconds = alternate({name: partial(_often, run) for name, run in parts.items()}, settings)
    saved, plain = (seconds[name] for name in saving.names())
    medians = {"with": statistics.median(saved) / _OFTEN, "without": statistics.median(plain) / _OFTEN}
    return {"alone": {"seconds": medians, "ratio": ratio(saved, plain)}}


def count_ours_and_theirs(config: Config, device: str) -> dict[str, int]:
    """Return the operations of one iteration, ours written out: those of a replayed graph go unseen."""
    found = {}
    for name, precision in ALL.items():
        ours = Ours(config, device, precision=precision, engine="eager")
        found[name] = total_operations(count(partial(ours, 1)))
    loops = (TutorialLoop, tutorial.NoGradFakes)
    return found | {loop.__name__: total_operations(count(loop.of(config, device).iterate)) for loop in loops}


_OFTEN = 20


def _often(run: Run) -> None:
    for _ in range(_OFTEN):
        run()
