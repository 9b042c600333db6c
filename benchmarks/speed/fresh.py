"""One subject in a process of its own: seconds to its first finished iteration, and memory. Started by `iteration.py`.

The clock starts when everything is imported and the device answers, and networks, optimizers and data are made in it.
Memory is what the process has held at a time since then, beyond what it held then; only on the CPU, and only where the
system tells (Linux).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from iteration import OURS, TUTORIALS, Stamps, makers
from subjects import Config
from timing import synchronize


def peak_resident_bytes() -> int | None:
    """Return the largest resident size of this process so far: that of `getrusage` would be the parent's, if larger."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def main() -> None:
    """Run the subject and print what was measured as JSON."""
    task = json.loads(sys.argv[1])
    name, config, device = task["name"], Config(**task["config"]), task["device"]
    torch.zeros((), device=device)
    synchronize(device)
    before = peak_resident_bytes()
    began = time.perf_counter()
    stamps = {name: Stamps(device) for name in (*OURS, *TUTORIALS)}
    subject = makers(config, device, stamps)[name]()
    subject(1)
    synchronize(device)
    seconds = time.perf_counter() - began
    subject(1)
    after = peak_resident_bytes()
    on_cpu = torch.device(device).type == "cpu"
    print(json.dumps({"seconds": seconds, "peak_bytes": after - before if on_cpu and before and after else None}))


if __name__ == "__main__":
    main()
