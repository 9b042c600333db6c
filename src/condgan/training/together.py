"""Several trainers side by side in one process."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from condgan.distributed import rank_and_world
from condgan.training.datasets import ImageRange, as_labelled
from condgan.training.inputs import ImageStore
from condgan.training.trainer import Trainer, TrainerState, interrupt_between_steps
from condgan.types import LabelledData


def fit_together(
    trainers: Sequence[Trainer],
    data: LabelledData | Dataset[Any] | DataLoader[Any],
    *,
    steps: int,
    batch_size: int = 64,
    generator_batch_size: int | None = None,
    image_range: ImageRange | None = None,
    max_resident_bytes: int = 2**32,
    progress: bool = True,
) -> list[TrainerState]:
    """Train several trainers on the same data, one step of each in turn, as `Trainer.fit` trains one.

    Each gives the same result as when it is trained alone: nothing random is shared. On a CUDA device each has a stream
    of its own, so that small networks run at the same time; with `engine="cuda_graph_iteration"` the host launches one
    graph per step. Trainers on the same device share one copy of the images. Those that were resumed at different steps
    end at different times.

    An error ends the training of its trainer alone, whose callbacks are notified. The others are trained to the end,
    and then the errors are raised together. Ctrl-C stops all of them after their current steps, with checkpoints
    written.

    Args:
        trainers: The trainers, such as those of several seeds.
        data: As in `Trainer.fit`.
        steps: Total of generator updates of each.
        batch_size: As in `Trainer.fit`.
        generator_batch_size: As in `Trainer.fit`.
        image_range: As in `Trainer.fit`.
        max_resident_bytes: As in `Trainer.fit`.
        progress: Show one progress bar for all of them where standard error is a terminal, unless a callback does.

    Returns:
        Their states at the end.

    Raises:
        ValueError: Before any training, if a trainer is given twice, or the data do not fit one of them.
        ExceptionGroup: At the end, if trainers failed: their errors, with notes that say whose they are. A
            `TrainingDivergedError` is one of them, so catch it with `except*`.
        KeyboardInterrupt: After the steps in which Ctrl-C was pressed.
    """
    if len({id(trainer) for trainer in trainers}) < len(trainers):
        raise ValueError(f"trainers must differ from each other, got one of {len(trainers)} twice. Make one per seed.")
    data = as_labelled(data, image_range=image_range)
    stores: dict[torch.device, ImageStore] = {}
    inputs = []
    for trainer in trainers:
        inputs.append(
            trainer._begin_fit(
                data,
                steps=steps,
                batch_size=batch_size,
                generator_batch_size=generator_batch_size,
                max_resident_bytes=max_resident_bytes,
                store=stores.get(trainer.device),
            )
        )
        stores[trainer.device] = inputs[-1].sampler.store

    def stop(reason: str) -> None:
        for trainer in trainers:
            trainer.request_stop(reason)

    shown = any(callback.shows_progress for trainer in trainers for callback in trainer.callbacks)
    bar: tqdm[Any] = tqdm(
        total=steps * len(trainers),
        initial=sum(min(steps, trainer.state.step) for trainer in trainers),
        desc=f"training {len(trainers)} trainers",
        unit="step",
        disable=shown or not (progress and sys.stderr.isatty() and rank_and_world()[0] == 0),
    )
    try:
        with interrupt_between_steps(stop) as interrupted, bar:
            turns = [_Turns(t, t._steps(i, interrupted)) for t, i in zip(trainers, inputs, strict=True)]
            errors = _train_in_turn(turns, bar)
    finally:
        for store in stores.values():
            store.close()
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(trainers)} trainers failed; the others are trained", errors)
    return [trainer.state for trainer in trainers]


class _Turns:
    """The steps of one trainer, on a stream of its own."""

    def __init__(self, trainer: Trainer, steps: Generator[None, None, None]) -> None:
        self.trainer = trainer
        self.steps = steps
        self.stream = torch.cuda.Stream(trainer.device) if trainer.device.type == "cuda" else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(trainer.device))

    def take(self) -> bool:
        """Do one step; return whether there was one."""
        with self._on_stream():
            return next(self.steps, self) is not self

    def interrupt(self, error: BaseException) -> None:
        """End training between two steps as if the error had been raised there."""
        with self._on_stream():
            try:
                self.steps.throw(error)
            except BaseException as raised:
                if raised is not error:
                    error.add_note(f"the trainer with seed {self.trainer.seed} could not end normally: {raised!r}")

    def join(self) -> None:
        """Let later work on the current stream wait for the steps."""
        if self.stream is not None:
            torch.cuda.current_stream(self.trainer.device).wait_stream(self.stream)

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


def _train_in_turn(turns: Sequence[_Turns], bar: tqdm[Any]) -> list[Exception]:
    """Take one step of each in turn until all have ended; return the errors that ended some of them early."""
    errors: list[Exception] = []
    left = list(turns)
    try:
        while left:
            for number, turn in enumerate(turns):
                if turn not in left:
                    continue
                try:
                    more = turn.take()
                except Exception as error:
                    error.add_note(f"in trainer {number} of those trained together (seed {turn.trainer.seed})")
                    errors.append(error)
                    more = False
                if more:
                    bar.update()
                else:
                    left.remove(turn)
    except BaseException as error:  # Ctrl-C ends all of them
        for failed in errors:
            error.add_note(f"failed before: {failed!r}")
        for turn in left:
            turn.interrupt(error)
        raise
    finally:
        for turn in turns:
            turn.join()
    return errors
