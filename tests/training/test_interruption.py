"""Runs in processes of their own that are killed or interrupted. This file is also the program that they run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import condgan as cg
from condgan.training import Callback

STEPS = 6


class Signal(Callback):
    """Sends this process signals in the middle of a step, after an update of the critic."""

    def __init__(self, step: int, name: str, times: int = 1):
        super().__init__()
        self.step, self.name, self.times = step, name, times

    def on_critic_step_end(self, trainer):
        if trainer.state.step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), getattr(signal, self.name))
            self.times = 0


def build(folder: Path, *callbacks: Callback) -> tuple[cg.Trainer, cg.data.ArrayDataset]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = cg.data.ArrayDataset(torch.randint(0, 256, (12, 1, 16, 16), dtype=torch.uint8), [0, 1] * 6)
    shape = {"num_classes": 2, "image_shape": (1, 16, 16), "base_channels": 2}
    trainer = cg.Trainer(
        cg.DCGANGenerator(latent_dim=4, **shape),
        cg.ACDCGANCritic(batch_norm=True, dropout=0.3, **shape),
        loss=cg.HingeLoss(),
        auxiliary=cg.AuxiliaryClassifierLoss(),
        critic_steps=2,
        schedule="linear",
        device="cpu",
        callbacks=[
            cg.CSVLogger(folder / "log.csv", every=1),
            cg.Checkpoint(folder, every=2, keep=99),
            *callbacks,
        ],
    )
    return trainer, data


def run(folder: Path, *callbacks: Callback) -> cg.Trainer:
    trainer, data = build(folder, *callbacks)
    trainer.resume(folder)
    trainer.fit(data, steps=STEPS, batch_size=4)
    return trainer


def run_elsewhere(folder: Path, step: int, name: str, times: int) -> int:
    """Run in another process that is sent signals, and return its exit status."""
    source = Path(cg.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    arguments = json.dumps([str(folder), step, name, times])
    process = subprocess.run(
        [sys.executable, __file__, arguments], env=environment, timeout=120, check=False, capture_output=True, text=True
    )
    assert "Error" not in process.stderr, process.stderr
    return process.returncode


@pytest.mark.slow  # guards exact resumption after real signals; each case imports the library in another process
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("name", "times", "checkpoints"),
    [
        ("SIGKILL", 1, [2]),
        ("SIGINT", 1, [2, 4]),  # ends after step 4, with a checkpoint
        ("SIGINT", 2, [2]),  # ends at once, in the middle of step 4
    ],
)
def test_a_run_that_was_ended_by_a_signal_resumes_exactly(tmp_path, name, times, checkpoints):
    status = run_elsewhere(tmp_path / "cut", 3, name, times)
    assert status == -getattr(signal, name)
    found = sorted(int(path.stem[-9:]) for path in (tmp_path / "cut").glob("*.pt"))
    assert found == checkpoints
    resumed, whole = run(tmp_path / "cut"), run(tmp_path / "whole")
    files = [tmp_path / part / "checkpoint-000000006.pt" for part in ("cut", "whole")]
    one, other = (torch.load(file, weights_only=True) for file in files)
    for part in ("generator", "critic", "ema"):
        assert all(torch.equal(one[part][key], other[part][key]) for key in other[part])
    assert all(torch.equal(one[key], other[key]) for key in ("rng", "sample_rng"))
    assert torch.equal(one["default_rngs"]["cpu"], other["default_rngs"]["cpu"])
    assert (tmp_path / "cut" / "log.csv").read_bytes() == (tmp_path / "whole" / "log.csv").read_bytes()
    assert resumed.state == whole.state


def test_the_first_interrupt_lets_the_step_end(tmp_path):
    trainer, data = build(tmp_path, Signal(3, "SIGINT"))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, steps=STEPS, batch_size=4)
    assert (trainer.state.step, trainer.state.images_seen) == (4, 32)
    assert signal.getsignal(signal.SIGINT) is handler
    trainer.fit(data, steps=STEPS, batch_size=4)
    assert trainer.state.step == STEPS


if __name__ == "__main__":
    folder, step, name, times = json.loads(sys.argv[1])
    run(Path(folder), Signal(step, name, times))
