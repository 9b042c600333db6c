"""One small training on a device against several: in one process side by side, and in as many processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import mps
from clocks import Laps
from names import LEAST_OF_THE_HOST
from parts import HERE
from runs import ENDLESS, config_of, free, trainer_of
from subjects import make_data
from work import Row, Work

import condgan as cg
from condgan.training import fit_together

CONFIG = "dcgan-32"


def run(work: Work) -> None:
    """Measure one way for one training and for several."""
    how, counts = work.options["how"], (2,) if work.rehearse else work.options["counts"]
    columns = {**config_of(CONFIG, work).describe(), "engine": LEAST_OF_THE_HOST, "precision": "bf16", "how": how}
    if how == "processes with MPS":
        try:
            mps.start()
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            work.write({**columns, "skipped": str(error)})
            return
    way = in_one_process if how == "one process" else in_processes
    for count in counts:
        work.measure({**columns, "count": count}, partial(way, count, work))
        free(work.device)


def in_one_process(count: int, work: Work) -> Row:
    """Return the iterations per second of trainings side by side."""
    config = config_of(CONFIG, work)
    data = make_data(config.size)
    how = {"engine": LEAST_OF_THE_HOST, "precision": "bf16"}
    alone = Laps(work.device)
    trainer_of(config, work.device, callbacks=(alone,), **how).fit(
        data, steps=ENDLESS, batch_size=config.batch, progress=False
    )
    laps = Laps(work.device, iterations=alone.iterations)
    callbacks: list[tuple[cg.Callback, ...]] = [(laps,), *[()] * (count - 1)]
    trainers = [trainer_of(config, work.device, callbacks=own, seed=seed, **how) for seed, own in enumerate(callbacks)]
    fit_together(trainers, data, steps=laps.steps, batch_size=config.batch, progress=False)
    rate = 1 / laps.summary()["median"]
    return {"iterations_per_second": count * rate, "of_each": [rate] * count, "ran": trainers[0].engine.name}


def in_processes(count: int, work: Work) -> Row:
    """Return the iterations per second of processes that start at the same moment."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        children = [_start(number, folder, work) for number in range(count)]
        try:
            while len(list(folder.glob("ready-*"))) < count:
                if any(child.poll() is not None for child in children) or work.left() < 0:
                    raise RuntimeError("a process did not get ready")
                time.sleep(0.02)
            (folder / "go").touch()
            for child in children:
                child.wait(max(1.0, work.left() + 5))
        finally:
            for child in children:
                child.kill()
                child.wait()
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("rate-*.json"))]
    rates = [row["iterations_per_second"] for row in found]
    if len(rates) < count:
        raise RuntimeError(f"{count - len(rates)} of {count} processes failed")
    return {"iterations_per_second": sum(rates), "of_each": rates, "ran": found[0]["ran"]}


def _start(number: int, folder: Path, work: Work) -> subprocess.Popen[bytes]:
    task = replace(work.task, module="one_of_several", options={"number": number, "folder": str(folder)})
    env = {**os.environ, **(mps.environment() if work.options["how"] == "processes with MPS" else {})}
    return subprocess.Popen([sys.executable, "-u", str(HERE), "part", task.as_json()], env=env)
