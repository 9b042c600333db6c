"""Callbacks that show and record: progress bar, sample grid, CSV and JSON lines."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm import tqdm
from typing_extensions import override

from condgan.images import image_grid, to_uint8
from condgan.sampling import class_grid
from condgan.training.callbacks import Callback

if TYPE_CHECKING:
    from condgan.training.trainer import Trainer


class ProgressBar(Callback):
    """Shows steps, the rate, the time left and the newest losses.

    Args:
        every: Steps between looks at the metrics; each look waits for the device.
        description: Text in front of the bar.
    """

    def __init__(self, *, every: int = 20, description: str = "training") -> None:
        super().__init__(every)
        self.description = description
        self._bar: tqdm[Any] | None = None

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        self._images = trainer.state.images_seen
        self._began = time.perf_counter()
        self._bar = tqdm(
            total=trainer.state.total_steps,
            initial=trainer.state.step,
            desc=self.description,
            unit="step",
            disable=not trainer.is_main_process,
        )

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        if self._bar is None:
            return
        metrics = trainer.read_metrics()
        rate = (trainer.state.images_seen - self._images) / (time.perf_counter() - self._began)
        shown = {"critic": metrics["critic/adversarial"], "generator": metrics["generator/adversarial"]}
        self._bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()} | {"img/s": f"{rate:.0f}"})
        self._bar.update(trainer.state.step - self._bar.n)

    @override
    def on_fit_end(self, trainer: Trainer) -> None:
        self._close(trainer)

    @override
    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._close(trainer)

    def _close(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.update(trainer.state.step - self._bar.n)
            self._bar.close()
            self._bar = None


class SampleGrid(Callback):
    """Writes `samples-<step>.png`: one row a class, the same latents each time, from the averaged generator.

    Of images that are neither grey nor RGB the first channel is shown.

    Args:
        folder: Where the pictures go.
        every: Steps between pictures.
        columns: Images of each class.
        seed: Seed of the latents.

    Raises:
        ValueError: When training begins, if the samples are no images.
    """

    def __init__(self, folder: str | Path, *, every: int = 1000, columns: int = 8, seed: int = 0) -> None:
        super().__init__(every)
        self.folder = Path(folder)
        self.columns = columns
        self.seed = seed

    @override
    def on_fit_start(self, trainer: Trainer) -> None:
        shape = trainer.networks.generator.image_shape
        if len(shape) != 3:
            raise ValueError(f"SampleGrid shows images of shape (C, H, W), got samples of shape {shape}. Leave it out.")

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        if not trainer.is_main_process:
            return
        classes = trainer.networks.generator.num_classes
        y = class_grid(classes, self.columns) if classes is not None else self.columns**2
        sheet = image_grid(to_uint8(trainer.sample(y, seed=self.seed)).cpu(), columns=self.columns)
        pixels = sheet.permute(1, 2, 0) if len(sheet) == 3 else sheet[0]
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(self.folder / f"samples-{trainer.state.step:09d}.png")


class _RowLogger(Callback):
    """Writes one row of metrics in every so many steps; after a resume, rows of steps that are redone are dropped."""

    def __init__(self, path: str | Path, *, every: int = 50) -> None:
        super().__init__(every)
        self.path = Path(path)

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
        self._begun_at: int | None = trainer.state.step

    @override
    def on_step_end(self, trainer: Trainer) -> None:
        metrics = trainer.read_metrics()
        if trainer.is_main_process:
            state = trainer.state
            if self._begun_at is not None:  # only now is it sure that this run goes on with the file
                self.path.parent.mkdir(parents=True, exist_ok=True)
                rows = self.read_rows() if self.path.exists() else []
                self.write_rows([row for row in rows if row["step"] <= self._begun_at])
                self._begun_at = None
            self.append_row({"step": state.step, "images_seen": state.images_seen, **metrics})


class JSONLLogger(_RowLogger):
    """Writes the metrics as one JSON object a line, with `step` and `images_seen`.

    Args:
        path: The file; its folder is made if missing.
        every: Steps between lines.
    """

    @override
    def read_rows(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in self.read_lines()]

    @override
    def write_rows(self, rows: list[dict[str, float]]) -> None:
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    @override
    def append_row(self, row: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class CSVLogger(_RowLogger):
    """Writes the metrics as a CSV table with `step` and `images_seen`; a metric that comes later adds a column.

    Args:
        path: The file; its folder is made if missing.
        every: Steps between rows.
    """

    @override
    def read_rows(self) -> list[dict[str, float]]:
        rows = csv.DictReader(self.read_lines())
        return [{name: _number(value) for name, value in row.items() if value} for row in rows]

    @override
    def write_rows(self, rows: list[dict[str, float]]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)

    @override
    def append_row(self, row: dict[str, float]) -> None:
        if not set(row) <= set(self._columns):
            self.write_rows([*self.read_rows(), row])
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
