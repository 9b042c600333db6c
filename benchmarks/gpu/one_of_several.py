"""One of several processes that train on the same device at the same time. Started by `several.py`."""

from __future__ import annotations

import json
import time
from pathlib import Path

from clocks import WARM_UP
from names import LEAST_OF_THE_HOST
from runs import ENDLESS, config_of, trainer_of
from several import CONFIG
from subjects import make_data
from timing import synchronize
from work import Work

import condgan as cg


class _Race(cg.Callback):
    """Waits after the warm-up until all are ready, then counts iterations for some seconds."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.device, self.folder = work.device, Path(work.options["folder"])
        self.name = str(work.options["number"])
        self.seconds, self.every = (0.3, 1) if work.rehearse else (3.0, 20)
        self.deadline = time.monotonic() + work.left()
        self.rate = 0.0

    def on_step_end(self, trainer: cg.Trainer) -> None:
        step = trainer.state.step
        if step == WARM_UP:
            synchronize(self.device)
            self._wait()
            self.began = time.perf_counter()
        elif step > WARM_UP and step % self.every == 0:
            synchronize(self.device)
            elapsed = time.perf_counter() - self.began
            if elapsed > self.seconds:
                self.rate = (step - WARM_UP) / elapsed
                trainer.request_stop("measured")

    def _wait(self) -> None:
        (self.folder / f"ready-{self.name}").touch()
        while not (self.folder / "go").exists() and time.monotonic() < self.deadline:
            time.sleep(0.001)


def run(work: Work) -> None:
    """Train, and leave the rate in the folder."""
    config, race = config_of(CONFIG, work), _Race(work)
    how = {"engine": LEAST_OF_THE_HOST, "precision": "bf16"}
    trainer = trainer_of(config, work.device, callbacks=(race,), seed=work.options["number"], **how)
    trainer.fit(make_data(config.size), steps=ENDLESS, batch_size=config.batch, progress=False)
    found = {"iterations_per_second": race.rate, "ran": trainer.engine.name}
    (race.folder / f"rate-{race.name}.json").write_text(json.dumps(found), encoding="utf-8")
