"""NVIDIA's multi-process service: a user's daemon that lets kernels of several processes run at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
# A short path: it holds sockets.
FOLDER = Path(tempfile.gettempdir()) / f"condgan-mps-{os.getuid()}"


STOPPING = 12.0
"""Seconds that `stop` may take."""


def is_there() -> bool:
    """Return whether this machine has the service."""
    return shutil.which(CONTROL) is not None


def environment() -> dict[str, str]:
    """Return the variables by which processes find the daemon."""
    return {"CUDA_MPS_PIPE_DIRECTORY": str(FOLDER / "pipe"), "CUDA_MPS_LOG_DIRECTORY": str(FOLDER / "log")}


def start() -> None:
    """Start the daemon.

    Raises:
        RuntimeError: If the machine has none, or it does not start.
    """
    if not is_there():
        raise RuntimeError(f"this machine has no {CONTROL}")
    for folder in environment().values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [CONTROL, "-d"], env=os.environ | environment(), capture_output=True, text=True, timeout=15, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{CONTROL} did not start: {(done.stdout + done.stderr).strip()}")


def stop() -> None:
    """Stop the daemon, if this run has started one."""
    if not FOLDER.exists() or not is_there():
        return
    try:
        subprocess.run([CONTROL], input=b"quit\n", env=os.environ | environment(), timeout=10, check=False)
    except subprocess.TimeoutExpired:
        print(f"{CONTROL} did not stop", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
