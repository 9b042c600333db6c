"""The machine and its rates: copies, matrix products, launches."""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import time
from functools import partial

import torch
from clocks import seconds_of_call
from mps import CONTROL
from timing import on_cuda, synchronize
from work import Row, Work

from condgan.files import to_json
from condgan.study.provenance import provenance

OPTIONAL = ("torch_fidelity", "xdist", "pytest", "pytest_timeout", "matplotlib", "sklearn", "hypothesis")
LAUNCHES = 2000


def run(work: Work) -> None:
    """Measure the machine."""
    work.write({"what": "origin", **to_json(provenance(work.device))})
    work.write({"what": "machine", **describe(work.device)})
    size = 2**22 if work.rehearse else 2**30
    work.measure({"what": "copy"}, lambda: copy_rate(size, work.device))
    for kind in ("ieee", "tf32", "bf16"):
        work.measure({"what": "matrix product", "kind": kind}, partial(matrix_rate, kind, work))
    work.measure({"what": "launch"}, lambda: launch_time(work.device))


def describe(device: str) -> Row:
    """Return the properties of machine and device."""
    found = {
        "cpus": os.cpu_count(),
        "convolutions_fp32": torch.backends.cudnn.conv.fp32_precision,
        "mps": shutil.which(CONTROL) is not None,
        "missing_packages": ", ".join(name for name in OPTIONAL if importlib.util.find_spec(name) is None) or "none",
    }
    if on_cuda(device):
        properties = torch.cuda.get_device_properties(device)
        found |= {"bytes": properties.total_memory, "multiprocessors": properties.multi_processor_count}
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


def copy_rate(size: int, device: str) -> Row:
    """Return the bytes per second that a copy reads and writes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {"bytes_per_second": 2 * size / seconds_of_call(partial(target.copy_, source), device)["median"]}


def matrix_rate(kind: str, work: Work) -> Row:
    """Return the operations per second of a large matrix product."""
    side = 256 if work.rehearse else 8192
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=work.device).to(dtype)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if kind == "tf32" else "ieee"
    try:
        seconds = seconds_of_call(partial(torch.mm, a, b), work.device)["median"]
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    return {"operations_per_second": 2 * side**3 / seconds}


def launch_time(device: str) -> Row:
    """Return the host's seconds for launching a kernel, and the device's for one that does next to nothing."""
    x = torch.zeros((), device=device)
    host, whole = [], []
    for _ in range(5):
        synchronize(device)
        began = time.perf_counter()
        for _ in range(LAUNCHES):
            x.add_(1)
        host.append((time.perf_counter() - began) / LAUNCHES)
        synchronize(device)
        whole.append((time.perf_counter() - began) / LAUNCHES)
    return {"host_seconds": statistics.median(host), "seconds": statistics.median(whole)}
