"""Callbacks: evaluation, stopping, the best generator, checkpoints, sample grids, and metrics in files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from condgan.files import as_json, as_path, check_count, check_names, write_whole
from condgan.images import save_sheet, to_uint8
from condgan.sampling import class_grid
from condgan.training.checkpoint import newest_step
from condgan.training.checks import check_kind
from condgan.training.trainer import Callback, Trainer


class Evaluate(Callback):
    """Calls `fn(trainer)` and puts the numbers it returns into `trainer.state.metrics`.

    Args:
        fn: Returns metrics by name, for instance of images from `trainer.sample`.
        every: Steps between evaluations.

    Raises:
        TypeError: In the first evaluation, if `fn` returns something else.
    """

    def __init__(self, fn: Callable[[Trainer], Mapping[str, float]], *, every: int) -> None:
        super().__init__(every)
        self.fn = fn

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        found = self.fn(trainer)
        check_kind("the result of Evaluate's function", found, Mapping, 'metrics by name, such as {"kid": 0.1}')
        trainer.record_evaluation({name: float(value) for name, value in found.items()})


class EarlyStopping(Callback):
    """Stops training when a metric that `Evaluate` fills has not improved for `patience` evaluations.

    Evaluations during pretraining do not count: the critic is still to come.

    Args:
        metric: Name of a metric that the first evaluation returns.
        patience: Evaluations without improvement before stopping.
        mode: Whether small or large values are good.

    Raises:
        ValueError: If `mode` is unknown or `patience` less than 1.
        KeyError: In the first evaluation, if the metric is not among its results.
    """

    def __init__(self, metric: str, *, patience: int = 5, mode: Literal["min", "max"] = "min") -> None:
        super().__init__()
        check_names("mode", [mode], ["min", "max"])
        check_count("patience", patience)
        self.metric = metric
        self.patience = patience
        self.sign = 1.0 if mode == "min" else -1.0
        self.best = float("inf")
        self.misses = 0

    @override
    def on_evaluate_end(self, trainer: Trainer) -> None:
        found = _evaluated(trainer, self.metric, type(self).__name__)
        if found is None or trainer.state.step <= trainer.pretraining_steps:
            return
        value = self.sign * found
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


class KeepBest(Callback):
    """Saves the averaged generator of the best evaluation so far, by a metric that `Evaluate` fills.

    The metric should be one of images that are not trained on: see `condgan.runs.class_kid`. A value that is not a
    number is never the best.

    Args:
        folder: Where the generator is kept, for `Generator.from_pretrained`.
        metric: Name of a metric that the first evaluation returns.
        mode: Whether small or large values are good.

    Attributes:
        best: Value of the metric of the generator that is kept.
        step: Its step; 0 before the first evaluation.
        evaluations: Value of the metric at each evaluated step, in order.

    Raises:
        ValueError: If `mode` is unknown; when training ends, if no evaluation gave a number, so that nothing is kept.
        KeyError: In the first evaluation, if the metric is not among its results.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import condgan as cg
        >>> data = cg.data.ChestPhantom((8, 8), classes=2, image_shape=(1, 16, 16))
        >>> distance = iter([3.0, 1.0, 2.0])
        >>> with TemporaryDirectory() as folder:
        ...     best = cg.KeepBest(folder, "distance")
        ...     evaluate = cg.Evaluate(lambda trainer: {"distance": next(distance)}, every=1)
        ...     trainer = cg.recipes.acgan(data, base_channels=4, device="cpu", callbacks=[evaluate, best])
        ...     _ = trainer.fit(data, steps=3, batch_size=4)
        ...     generator = cg.DCGANGenerator.from_pretrained(folder)
        >>> best.step, best.best
        (2, 1.0)
    """

    def __init__(self, folder: str | Path, metric: str, *, mode: Literal["min", "max"] = "min") -> None:
        super().__init__()
        check_names("mode", [mode], ["min", "max"])
        self.folder = as_path(folder)
        self.metric = metric
        self.mode = mode
        self.best = math.inf if mode == "min" else -math.inf
        self.step = 0
        self.evaluations: dict[int, float] = {}

    @override
    def on_evaluate_end(self, trainer: Trainer) -> None:
        value = _evaluated(trainer, self.metric, type(self).__name__)
        if value is not None:
            self.consider(trainer, value)

    @override
    def on_fit_end(self, trainer: Trainer) -> None:
        if not self.step and trainer.state.step == trainer.state.total_steps:
            found = "no evaluation" if not self.evaluations else f"{[*self.evaluations.values()]}"
            raise ValueError(
                f"KeepBest needs a number {self.metric!r} to keep a generator by, got {found}. Pass an Evaluate that "
                "returns it beside it; trainer.ema is the generator of the last step."
            )

    def consider(self, trainer: Trainer, value: float) -> None:
        """Note the value of the metric at this step, and save the averaged generator if there was no better one."""
        self.evaluations[trainer.state.step] = value
        if value < self.best if self.mode == "min" else value > self.best:
            self.best, self.step = value, trainer.state.step
            if trainer.is_main_process:
                trainer.ema.save_pretrained(self.folder)

    @override
    def state_dict(self) -> dict[str, Any]:
        evaluations = [{"step": step, "value": value} for step, value in self.evaluations.items()]
        return {"best": self.best, "step": self.step, "evaluations": evaluations}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.step = state["best"], state["step"]
        self.evaluations = {entry["step"]: entry["value"] for entry in state["evaluations"]}


def _evaluated(trainer: Trainer, metric: str, needed_by: str) -> float | None:
    """Return a metric of the newest evaluation, or None if that was another `Evaluate`, with other metrics."""
    metrics = trainer.state.metrics
    if metric not in metrics:
        raise KeyError(f"{needed_by} needs the metric {metric!r}, got {sorted(metrics)}. Let Evaluate return it.")
    return trainer.last_evaluation.get(metric)


class Checkpoint(Callback):
    """Saves the trainer for `trainer.resume(folder)`: every `every` steps, at the end, and on Ctrl-C.

    Args:
        folder: Where the files go.
        every: Steps between checkpoints.
        keep: Newest checkpoints to keep.

    Raises:
        ValueError: If `every` or `keep` is less than 1; when training begins, if the folder holds the checkpoints of
            another run.
    """

    runs_last = True

    def __init__(self, folder: str | Path, *, every: int = 1000, keep: int = 2) -> None:
        super().__init__(every)
        check_count("keep", keep)
        self.folder = as_path(folder)
        self.keep = keep

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        newest = newest_step(self.folder)
        if trainer.state.step == 0 and newest:
            raise ValueError(
                f"{self.folder} holds a run of {newest} steps, got a trainer that is at step 0. Call "
                "trainer.resume(folder) before fit to continue it, or choose another folder."
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


class SampleGrid(Callback):
    """Writes `samples-<step>.png`: one row per class, the same latents each time, from the averaged generator.

    Of images that are neither greyscale nor RGB the first channel is shown.

    Args:
        folder: Where the pictures go.
        every: Steps between pictures.
        columns: Images of each class.
        seed: Seed of the latents.

    Raises:
        ValueError: When training begins, if the samples are not images.
    """

    def __init__(self, folder: str | Path, *, every: int = 1000, columns: int = 8, seed: int = 0) -> None:
        super().__init__(every)
        self.folder = as_path(folder)
        self.columns = columns
        self.seed = seed

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        shape = trainer.networks.generator.image_shape
        if len(shape) != 3:
            raise ValueError(f"SampleGrid needs images of shape (C, H, W), got samples of shape {shape}. Leave it out.")

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        if not trainer.is_main_process:
            return
        classes = trainer.networks.generator.num_classes
        y = class_grid(classes, self.columns) if classes is not None else self.columns**2
        images = to_uint8(trainer.sample(y, seed=self.seed)).cpu()
        save_sheet(images, self.folder / f"samples-{trainer.state.step:09d}.png", columns=self.columns)


class _RowLogger(Callback):
    """Writes one row of metrics every `every` steps; after a resume, rows of steps that are repeated are dropped."""

    def __init__(self, path: str | Path, *, every: int = 50) -> None:
        super().__init__(every)
        self.path = as_path(path)

    def read_rows(self) -> list[dict[str, float]]:
        """Return the rows written so far."""
        raise NotImplementedError

    def read_lines(self) -> list[str]:
        """Return the complete lines: a killed process may have left half a line at the end."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    def write_rows(self, rows: list[dict[str, float]]) -> None:
        """Write the file anew with these rows."""
        raise NotImplementedError

    def append_row(self, row: dict[str, float]) -> None:
        """Add one row to the file."""
        raise NotImplementedError

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        self._resumed_at: int | None = trainer.state.step

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        metrics = trainer.read_metrics()
        if trainer.is_main_process:
            state = trainer.state
            if self._resumed_at is not None:  # the file is not touched before a step has succeeded
                self.path.parent.mkdir(parents=True, exist_ok=True)
                rows = self.read_rows() if self.path.exists() else []
                self.write_rows([row for row in rows if row["step"] <= self._resumed_at])
                self._resumed_at = None
            self.append_row({"step": state.step, "images_seen": state.images_seen, **metrics})


class JSONLLogger(_RowLogger):
    """Writes the metrics as one JSON object per line, with `step` and `images_seen`.

    Numbers that are not finite, which JSON does not have, are written as null.

    Args:
        path: The file; its folder is made if missing.
        every: Steps between lines.
    """

    @override
    def read_rows(self) -> list[dict[str, float]]:
        rows = [json.loads(line) for line in self.read_lines()]
        return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]

    @override
    def write_rows(self, rows: list[dict[str, float]]) -> None:
        with write_whole(self.path) as file:
            file.writelines(f"{json.dumps(as_json(row))}\n".encode() for row in rows)

    @override
    def append_row(self, row: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(as_json(row)) + "\n")


class CSVLogger(_RowLogger):
    """Writes the metrics as a CSV table with `step` and `images_seen`; a metric that appears later adds a column.

    Args:
        path: The file; its folder is made if missing.
        every: Steps between rows.
    """

    @override
    def read_rows(self) -> list[dict[str, float]]:
        rows = csv.DictReader(self.read_lines())
        return [{name: _parse_number(value) for name, value in row.items() if value} for row in rows]

    @override
    def write_rows(self, rows: list[dict[str, float]]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        text = StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        with write_whole(self.path) as file:
            file.write(text.getvalue().encode())

    @override
    def append_row(self, row: dict[str, float]) -> None:
        if not set(row) <= set(self._columns):
            self.write_rows([*self.read_rows(), row])
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)


def _parse_number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
