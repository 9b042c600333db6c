"""Where a figure comes from: device, versions, commit."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import condgan as cg


def provenance(device: str) -> dict[str, Any]:
    """Return what a result depends on beside its settings; the commit ends in `-dirty` where files were changed."""
    described = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    here = Path(__file__).parent
    cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else f"{_processor()}, {torch.get_num_threads()} threads",
        "versions": {
            "condgan": cg.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **({"cuda": str(torch.version.cuda)} if cuda else {}),
        },
        "commit": subprocess.run(described, cwd=here, capture_output=True, text=True, check=False).stdout.strip()
        or None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model} {platform.machine()}".strip()
