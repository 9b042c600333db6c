"""Whole iterations: engines against each other and against a loop as tutorials write it."""

from __future__ import annotations

from functools import partial

from clocks import WARM_UP, seconds_of_call
from names import ENGINES
from runs import config_of, cudnn_benchmark, free, time_trainer, tutorial_of
from subjects import Config
from work import Row, Work

PRECISIONS = ("bf16", "fp32")


def run(work: Work) -> None:
    """Time one configuration, the cases of the predictions first."""
    config = config_of(work.options["config"], work)
    precisions = PRECISIONS[:1] if work.rehearse else PRECISIONS
    for precision in precisions:
        for engine in ENGINES:
            measure(work, config, engine, precision)
        measure(work, config, "tutorial", precision)
    for precision in precisions:
        for engine in (*ENGINES, "tutorial"):
            if engine != "eager" and not work.rehearse:
                measure(work, config, engine, precision, benchmark=True)


def measure(work: Work, config: Config, engine: str, precision: str, *, benchmark: bool = False) -> None:
    """Write one row."""
    columns = {**config.describe(), "engine": engine, "precision": precision, "cudnn_benchmark": benchmark}
    if engine == "tutorial":
        function = partial(time_tutorial, config, precision, work.device)
    else:
        function = partial(time_trainer, config, work.device, engine=engine, precision=precision)
    with cudnn_benchmark(benchmark):
        work.measure(columns, function)
    free(work.device)


def time_tutorial(config: Config, precision: str, device: str) -> Row:
    """Return the seconds of an iteration of the tutorial's loop."""
    loop = tutorial_of(config, device, precision)
    loop.repeat(1 if device == "cpu" else WARM_UP)
    return {"seconds": seconds_of_call(loop.iterate, device, at_least=0.75)}
