"""Observers of training: a base class of no-ops, and evaluation, stopping and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from condgan.training.checkpoint import newest_step

if TYPE_CHECKING:
    from condgan.training.trainer import Trainer


class Callback:
    """Base of callbacks: every hook does nothing. A callback observes, and may call `trainer.request_stop(reason)`.

    Args:
        every: `on_step_end` is called in every so many steps, and in the last one.

    Raises:
        ValueError: If `every` is less than 1.
    """

    every: int = 1

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}.")
        self.every = every

    def on_fit_start(self, trainer: Trainer) -> None:
        """Training begins, or goes on after a resume."""

    def on_critic_step_end(self, trainer: Trainer) -> None:
        """The critic was updated once."""

    def on_generator_step_end(self, trainer: Trainer) -> None:
        """The generator was updated once, and its average."""

    def on_step_end(self, trainer: Trainer) -> None:
        """A step ended that is a multiple of `every`, or the last one."""

    def on_evaluate_end(self, trainer: Trainer) -> None:
        """An `Evaluate` put its results into `trainer.state.metrics`."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """Training ended as planned or on request."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Training ended with an error, which is raised again behind this."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the callback must remember in a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""


class Evaluate(Callback):
    """Calls `fn(trainer)` and puts the numbers it returns into `trainer.state.metrics`.

    Args:
        fn: Returns metrics by name, for instance from `trainer.sample`.
        every: Steps between evaluations.
    """

    def __init__(self, fn: Callable[[Trainer], Mapping[str, float]], *, every: int) -> None:
        super().__init__(every)
        self.fn = fn

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        trainer.evaluated({name: float(value) for name, value in self.fn(trainer).items()})


class EarlyStopping(Callback):
    """Stops training when a metric that `Evaluate` fills has not improved for `patience` evaluations.

    Args:
        metric: Name of a metric that the first evaluation returns.
        patience: Evaluations without improvement that are borne.
        mode: Whether small or large values are good.

    Raises:
        ValueError: If `mode` is unknown or `patience` less than 1.
        KeyError: In the first evaluation, if the metric is not among its results.
    """

    def __init__(self, metric: str, *, patience: int = 5, mode: Literal["min", "max"] = "min") -> None:
        super().__init__()
        if mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max", got {mode!r}.')
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}.")
        self.metric = metric
        self.patience = patience
        self.sign = 1.0 if mode == "min" else -1.0
        self.best = float("inf")
        self.misses = 0

    @override
    def on_evaluate_end(self, trainer: Trainer) -> None:
        metrics = trainer.state.metrics
        if self.metric not in metrics:
            raise KeyError(f"EarlyStopping watches {self.metric!r}, but the metrics are {sorted(metrics)}.")
        if self.metric not in trainer.last_evaluation:
            return  # another evaluation than the one that measures it
        value = self.sign * metrics[self.metric]
        self.misses = 0 if value < self.best else self.misses + 1
        self.best = min(self.best, value)
        if self.misses >= self.patience:
            trainer.request_stop(f"{self.metric} has not improved in {self.misses} evaluations")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "misses": self.misses}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.misses = state["best"], state["misses"]


class Checkpoint(Callback):
    """Saves the trainer for `trainer.resume(folder)`: every so many steps, at the end, and on Ctrl-C.

    Args:
        folder: Where the files go.
        every: Steps between checkpoints.
        keep: Newest checkpoints to keep.

    Raises:
        ValueError: If `every` or `keep` is less than 1; when training begins, if the folder holds the checkpoints of
            another run.
    """

    def __init__(self, folder: str | Path, *, every: int = 1000, keep: int = 2) -> None:
        super().__init__(every)
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}.")
        self.folder = Path(folder)
        self.keep = keep

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        newest = newest_step(self.folder)
        if trainer.state.step == 0 and newest:
            raise ValueError(
                f"{self.folder} holds a run of {newest} steps, got a trainer that is at step 0. Call "
                "trainer.resume(folder) before fit to go on with it, or choose another folder."
            )

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        trainer.save(self.folder, keep=self.keep)

    @override
    def on_fit_end(self, trainer: Trainer) -> None:
        trainer.save(self.folder, keep=self.keep)

    @override
    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt) and trainer.between_steps:
            trainer.save(self.folder, keep=self.keep)


def callback_states(callbacks: Sequence[Callback]) -> list[tuple[str, dict[str, Any]]]:
    """Return the class name and the state of each callback, for a checkpoint."""
    return [(type(callback).__name__, callback.state_dict()) for callback in callbacks]


def restore_callbacks(callbacks: Sequence[Callback], states: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Give each callback the state of the next one of its class; those that are new since then begin afresh."""
    remembered: dict[str, list[dict[str, Any]]] = {}
    for name, state in states:
        remembered.setdefault(name, []).append(state)
    for callback in callbacks:
        if remembered.get(type(callback).__name__):
            callback.load_state_dict(remembered[type(callback).__name__].pop(0))
