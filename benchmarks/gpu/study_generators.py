"""Trains the generators of one recipe: all seeds side by side, or one after another."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import partial

from study_data import generators, make_study
from work import Work

from condgan.study import Study
from condgan.study.generators import GeneratorTraining, in_words
from condgan.study.plan import Cell
from condgan.study.provenance import provenance
from condgan.training import fit_together

TRIAL = 8.0
"""Seconds of training after which it is foreseen whether the rest fits."""

PATIENCE = 1.3
"""How much longer than there is time for the rest may seem to take: a trial has recordings in it, and exaggerates."""


def run(work: Work) -> None:
    """Train what is missing of the seeds that are asked for."""
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
    while group:
        trainings = [study.worker.prepare(cell, report=partial(say, cell.name)) for cell in group]
        began, first = time.monotonic(), trainings[0].trainer.state.step
        done = advance(trainings, until=min(TRIAL, work.left()))
        seconds = time.monotonic() - began
        if done or fits(trainings, seconds / max(1, trainings[0].trainer.state.step - first), work):
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
    """Print how far a training is; without that it would be taken to hang."""
    print(f"{name}: {line}", flush=True)


def advance(trainings: Sequence[GeneratorTraining], *, until: float) -> bool:
    """Train for so many seconds at most; return whether all are finished."""
    for training in trainings:
        training.deadline = time.monotonic() + until
    if not are_finished(trainings):
        fit_together([training.trainer for training in trainings], trainings[0].data, **trainings[0].sizes)
    return are_finished(trainings)


def are_finished(trainings: Sequence[GeneratorTraining]) -> bool:
    """Return whether all have done their last step."""
    return all(training.trainer.state.step >= training.plan.steps for training in trainings)


def fits(trainings: Sequence[GeneratorTraining], seconds_of_step: float, work: Work) -> bool:
    """Return whether what is left to train seems to fit into the time that is left."""
    step, steps = trainings[0].trainer.state.step, trainings[0].plan.steps
    expected = seconds_of_step * (steps - step)
    print(f"{len(trainings)} side by side at step {step} of {steps}: about {in_words(expected)} left", flush=True)
    return expected < PATIENCE * work.left()


def keep(study: Study, cell: Cell, training: GeneratorTraining) -> None:
    """Write down a finished training as the study does."""
    outcome = training.finish()
    if outcome is None:
        raise RuntimeError(f"{cell.name} is not finished")
    study.folder.write(cell, {**outcome, **provenance(study.device)})
    shutil.rmtree(study.folder.gan(cell) / "checkpoints", ignore_errors=True)


def report(study: Study, cells: Sequence[Cell], work: Work) -> None:
    """Enter a row for each generator."""
    for cell in cells:
        outcome = study.folder.read(cell.name)
        row = {name: work.options[name] for name in ("size", "classes")}
        row |= {"recipe": cell.entry, "seed": cell.seed, "side_by_side": len(cells)}
        if "error" in outcome:
            row["skipped"] = outcome["error"]
        else:
            row |= {name: outcome[name] for name in ("steps", "seconds")} | {"kept": outcome["kept"]["step"]}
        work.write({"what": "generator", **row})
