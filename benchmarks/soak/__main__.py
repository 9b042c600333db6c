"""A long training that is killed again and again: does it end as if nothing had happened, in the same memory?

`python benchmarks/soak --minutes 10` trains the same generator twice in processes of its own, once undisturbed and once
under SIGKILL at random moments, resuming each time. It fails if the weights differ in a single bit, or if a process
has more memory at its end than after its first fifth, by more than a tenth.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import condgan as cg

GROWTH = 1.1


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
    """Train, or go on with training, and leave the generator in the folder."""
    torch.set_num_threads(1)
    data = cg.data.ChestPhantom((60, 120), classes=2, image_shape=(1, 32, 32))
    callbacks = [Memory(folder / "memory.txt", every=20), cg.Checkpoint(folder, every=50)]
    trainer = cg.recipes.small_data(data, base_channels=16, device="cpu", callbacks=callbacks)
    trainer.resume(folder)
    (folder / "memory.txt").write_text("", encoding="utf-8")
    trainer.fit(data, steps=steps, batch_size=16, progress=False)
    trainer.ema.save_pretrained(folder / "generator")


def run(folder: Path, steps: int, *, kill_after: tuple[float, float] | None, seed: int = 0) -> int:
    """Train in processes of their own until it is done, and return how many were killed."""
    folder.mkdir(parents=True)
    draw, kills = random.Random(seed), 0
    while True:
        process = subprocess.Popen([sys.executable, __file__, "--train", str(folder), "--steps", str(steps)])
        try:
            timeout = None if kill_after is None else draw.uniform(*kill_after)
            if process.wait(timeout):
                raise SystemExit(f"training in {folder} failed with exit code {process.returncode}")
            return kills
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1


def growth(folder: Path) -> float:
    """Return the memory at the end over that after a fifth of the steps of the last process."""
    resident = [int(line.split()[1]) for line in (folder / "memory.txt").read_text(encoding="utf-8").splitlines()]
    return resident[-1] / resident[len(resident) // 5]


def main() -> None:
    """Run both trainings and compare them."""
    parser = argparse.ArgumentParser(prog="python benchmarks/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="about how long both trainings take together")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help="steps in the place of minutes")
    given = parser.parse_args()
    if given.train is not None:
        train(given.train, given.steps)
        return
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed, killed = Path(scratch) / "undisturbed", Path(scratch) / "killed"
        began = time.perf_counter()
        run(Path(scratch) / "probe", 200, kill_after=None)
        steps = given.steps or max(400, round(200 * 20 * given.minutes / (time.perf_counter() - began)))
        began = time.perf_counter()
        run(undisturbed, steps, kill_after=None)
        seconds = time.perf_counter() - began
        kills = run(killed, steps, kill_after=(0.05 * seconds, 0.25 * seconds))
        one, other = (load_file(folder / "generator" / "model.safetensors") for folder in (undisturbed, killed))
        differing = [name for name in one if not torch.equal(one[name], other[name])]
        grown = growth(undisturbed)
    print(f"{steps} steps, {seconds:.0f} s undisturbed, {kills} kills, memory x {grown:.3f}, differing: {differing}")
    if differing or grown > GROWTH or not kills:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
