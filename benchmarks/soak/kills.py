"""A training in processes of its own that are killed, and one that is not."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from readers import differences

import condgan as cg
from condgan.training.checkpoint import read_newest_checkpoint

GROWTH = 1.1
"""The most that the memory of a process may grow from the first fifth of its steps to the end."""


class Memory(cg.Callback):
    """Writes the resident memory of the process, in KiB, once every `every` steps."""

    def __init__(self, path: Path, *, every: int) -> None:
        super().__init__(every)
        self.path = path

    def on_step_end(self, trainer: cg.Trainer) -> None:
        """Append the memory now."""
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        resident = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{trainer.state.step} {resident}\n")


def train(folder: Path, steps: int) -> None:
    """Train, or go on with training."""
    torch.set_num_threads(1)
    data = cg.data.ChestPhantom((60, 120), classes=2, image_shape=(1, 32, 32))
    callbacks = [Memory(folder / "memory.txt", every=20), cg.Checkpoint(folder, every=20)]
    trainer = cg.recipes.small_data(data, base_channels=16, device="cpu", callbacks=callbacks)
    (folder / "started").touch()
    trainer.resume(folder)
    (folder / "memory.txt").write_text("", encoding="utf-8")
    trainer.fit(data, steps=steps, batch_size=16, progress=False)
    trainer.ema.save_pretrained(folder / "generator")


def _start(folder: Path, steps: int) -> subprocess.Popen[bytes]:
    """Start a process that trains, and wait until it is about to resume."""
    (folder / "started").unlink(missing_ok=True)
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import kills, pathlib; "
    process = subprocess.Popen([sys.executable, "-c", program + f"kills.train(pathlib.Path({str(folder)!r}), {steps})"])
    while not (folder / "started").exists() and process.poll() is None:
        time.sleep(0.01)
    return process


def _kill(process: subprocess.Popen[bytes], folder: Path, *, after: float | None) -> bool:
    """Kill a process after a number of seconds, or without one in the next writing, and return whether it lived."""
    before, until = set(folder.glob("*.partial")), time.perf_counter() + (after or 0)
    while process.poll() is None:
        if set(folder.glob("*.partial")) - before if after is None else time.perf_counter() > until:
            process.kill()
        time.sleep(0.001)
    if process.returncode > 0:
        raise SystemExit(f"training in {folder} failed with exit code {process.returncode}")
    return process.returncode < 0


def _growth(folder: Path) -> float:
    """Return the memory at the end over that after a fifth of the steps of the last process."""
    resident = [int(line.split()[1]) for line in (folder / "memory.txt").read_text(encoding="utf-8").splitlines()]
    return resident[-1] / resident[len(resident) // 5]


def examine(kills: int, steps: int, seed: int) -> dict[str, Any]:
    """Train without and with kills, every second of them while a checkpoint is written, and compare."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed, killed = Path(scratch) / "undisturbed", Path(scratch) / "killed"
        undisturbed.mkdir()
        killed.mkdir()
        process = _start(undisturbed, steps)
        began = time.perf_counter()
        if process.wait():
            raise SystemExit(f"training without kills failed with exit code {process.returncode}")
        seconds = time.perf_counter() - began
        done = writing = 0
        while _kill(
            _start(killed, steps),
            killed,
            after=1e9 if done == kills else None if done % 2 else draw.uniform(0, 2 * seconds / kills),
        ):
            done += 1
            writing = len(list(killed.glob("*.partial")))
            print(f"\r{done} kills, {writing} of them while a checkpoint was written", end="", flush=True)
        print()
        one, other = read_newest_checkpoint(undisturbed), read_newest_checkpoint(killed)
        return {
            "steps": steps,
            "seconds_undisturbed": round(seconds, 1),
            "kills": done,
            "kills_while_writing": writing,
            "values_compared": _count(one),
            "differing": list(differences(one, other)),
            "memory_growth": round(_growth(undisturbed), 3),
        }


def _count(content: Any) -> int:
    if isinstance(content, torch.Tensor):
        return content.numel()
    values = content.values() if isinstance(content, dict) else content if isinstance(content, (list, tuple)) else None
    return 1 if values is None else sum(map(_count, values))


def is_right(result: dict[str, Any], kills: int) -> bool:
    """Return whether the training ended as if nothing had happened, in the same memory, after all kills."""
    return (
        not result["differing"]
        and result["memory_growth"] <= GROWTH
        and result["kills"] == kills
        and result["kills_while_writing"] >= kills // 6
    )
