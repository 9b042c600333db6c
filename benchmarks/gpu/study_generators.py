"""Trains the generators of one recipe: all seeds side by side, or one after another."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from functools import partial

from clocks import WARM_UP
from study_data import generators, make_study
from timing import on_cuda, synchronize
from work import Work

import condgan as cg
from condgan.runs import GeneratorTraining, in_words
from condgan.study import Study
from condgan.study.cells import Cell
from condgan.study.results import FailedOutcome, GeneratorOutcome
from condgan.training import fit_together

TRIAL = 8.0
"""Seconds of a trial after the warm-up, from which the time of the rest is estimated."""

PATIENCE = 1.1
"""Factor by which the estimate may exceed the time that is left: a trial is short, and not exact."""


def run(work: Work) -> None:
    """Train the missing generators of the given seeds."""
    study = make_study(work)
    cells = generators(study.config, [work.options["recipe"]], work.options["seeds"])
    missing = [cell for cell in cells if not study.folder.is_finished(cell.name)]
    side_by_side = work.options["side_by_side"]
    while missing:
        group = missing if side_by_side else missing[:1]
        try:
            done = train_side_by_side(study, group, work) if side_by_side else train_alone(study, group[0], work)
        except Exception as error:  # checkpoints are there: each can go on alone
            if not side_by_side:
                raise
            work.write({"what": "generators", "skipped": f"side by side: {type(error).__name__}: {error}"[:300]})
            side_by_side = False
            continue
        if not done:
            break
        missing = missing[len(done) :]


def train_alone(study: Study, cell: Cell, work: Work) -> list[Cell]:
    """Train one generator as the study does; return it, or nothing if there was too little time."""
    if not study.run([cell.name], time_limit=work.left()):
        work.write({"what": "generators", "cells": [cell.name], "skipped": "no time left"})
        return []
    report(study, [cell], work)
    return [cell]


def train_side_by_side(study: Study, cells: Sequence[Cell], work: Work) -> list[Cell]:
    """Train generators at the same time, or the first half of them if all do not fit; return those that are finished.

    The trainings have a short trial first. What does not fit is left, so that other recipes have the time.
    """
    group = list(cells)
    while group and work.left() > 0:
        trainings = [study.prepare_training(cell, report=partial(say, cell.name)) for cell in group]
        done, seconds_of_step = try_out(trainings, work)
        if done or fits(trainings, seconds_of_step, work):
            if not advance(trainings, until=work.left()):
                break
            for cell, training in zip(group, trainings, strict=True):
                keep(study, cell, training)
            report(study, group, work)
            return group
        group = group[: len(group) // 2]
    names = ", ".join(cell.name for cell in cells)
    work.write({"what": "generators", "cells": names, "skipped": "more than there is time for"})
    return []


def say(name: str, line: str) -> None:
    """Print the progress of a training; silence would be taken for a hang."""
    print(f"{name}: {line}", flush=True)


class Trial(cg.Callback):
    """Ends trainings `TRIAL` seconds after the warm-up of the first of them, and times its steps from there on.

    In the warm-up convolutions are searched for and steps are recorded, which says nothing about those that follow.

    Args:
        trainings: The trainings; the trainer of the first one has this callback, in front of its others.
        device: The device to wait for.
    """

    def __init__(self, trainings: Sequence[GeneratorTraining], device: str) -> None:
        super().__init__()
        self.trainings, self.device = trainings, device
        self.seconds_of_step = math.inf
        self._warm = trainings[0].trainer.state.step + (WARM_UP if on_cuda(device) else 1)
        self._began = 0.0

    def on_step_end(self, trainer: cg.Trainer) -> None:
        """Begin after the warm-up."""
        if trainer.state.step == self._warm:
            self._began = self._now()
            for training in self.trainings:
                training.deadline = min(training.deadline, self._began + TRIAL)

    def on_fit_end(self, trainer: cg.Trainer) -> None:
        """Take the time before checkpoints are written."""
        if (steps := trainer.state.step - self._warm) > 0:
            self.seconds_of_step = (self._now() - self._began) / steps

    def _now(self) -> float:
        synchronize(self.device)
        return time.monotonic()


def try_out(trainings: Sequence[GeneratorTraining], work: Work) -> tuple[bool, float]:
    """Train for a trial; return whether all are finished, and the seconds in which each does a step."""
    trainer = trainings[0].trainer
    trial, others = Trial(trainings, work.device), trainer.callbacks
    trainer.callbacks = (trial, *others)
    done = advance(trainings, until=work.left())
    trainer.callbacks = others
    return done, trial.seconds_of_step


def advance(trainings: Sequence[GeneratorTraining], *, until: float) -> bool:
    """Train for `until` seconds at most; return whether all are finished."""
    for training in trainings:
        training.deadline = time.monotonic() + until
    if not are_finished(trainings):
        fit_together(
            [training.trainer for training in trainings], trainings[0].data, progress=False, **trainings[0].sizes
        )
    return are_finished(trainings)


def are_finished(trainings: Sequence[GeneratorTraining]) -> bool:
    """Return whether all have done their last step."""
    return all(training.trainer.state.step >= training.config.steps for training in trainings)


def fits(trainings: Sequence[GeneratorTraining], seconds_of_step: float, work: Work) -> bool:
    """Return whether what is left to train seems to fit into the time that is left."""
    if not math.isfinite(seconds_of_step):
        return False  # not even the warm-up did
    step, steps = trainings[0].trainer.state.step, trainings[0].config.steps
    expected = seconds_of_step * (steps - step)
    print(f"{len(trainings)} side by side at step {step} of {steps}: about {in_words(expected)} left", flush=True)
    return expected < PATIENCE * work.left()


def keep(study: Study, cell: Cell, training: GeneratorTraining) -> None:
    """Write the outcome of a finished training as the study does."""
    run = training.finish()
    if run is None:
        raise RuntimeError(f"{cell.name} is not finished")
    study.folder.write(study.outcome_of(cell, run))
    shutil.rmtree(study.folder.gan(cell) / "checkpoints", ignore_errors=True)


def report(study: Study, cells: Sequence[Cell], work: Work) -> None:
    """Write a row for each generator."""
    for cell in cells:
        outcome = study.folder.read(cell.name)
        row = {name: work.options[name] for name in ("size", "classes")}
        row |= {"recipe": cell.recipe, "seed": cell.seed, "side_by_side": len(cells)}
        if isinstance(outcome, FailedOutcome):
            row["skipped"] = outcome.error
        elif isinstance(outcome, GeneratorOutcome):
            row |= {"steps": outcome.steps, "seconds": outcome.seconds, "kept": outcome.kept.step}
        work.write({"what": "generator", **row})
