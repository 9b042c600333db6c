"""Where results come from: device, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from condgan._version import __version__

_PACKAGES = ("torchvision", "torch-fidelity", "numpy", "scipy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What results depend on besides data and settings.

    Args:
        device: The device.
        commit: Commit of the sources, with `-dirty` where files differ from it. Outside a repository it is the value
            of the environment variable CONDGAN_COMMIT, or None.
        versions: Versions of packages, by name.
        fp32_precision: On CUDA, the internal precision of float32 convolutions and matrix products.
    """

    device: str
    commit: str | None
    versions: dict[str, str]
    fp32_precision: dict[str, str] | None = None


def provenance(device: torch.device | str) -> Provenance:
    """Return the provenance of what this process computes on a device."""
    device = torch.device(device)
    return Provenance(
        device=_describe_device(device),
        commit=_commit(),
        versions=versions(),
        fp32_precision=_fp32_precision() if device.type == "cuda" else None,
    )


def _fp32_precision() -> dict[str, str]:
    return {
        "convolutions": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        "matrix products": torch.backends.cuda.matmul.fp32_precision,
    }


def _describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads, {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.machine()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model} {platform.machine()}".strip()


def versions() -> dict[str, str]:
    """Return the versions of the library, of Python, and of packages that results depend on."""
    # torch.__version__ names the CUDA build, the metadata of the package may not
    found = {"condgan": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # not needed here
            continue
    return found


def _commit() -> str | None:
    here = Path(__file__)
    # an installed package may lie inside another repository
    tracked = _git("ls-files", "--error-unmatch", here.name, folder=here.parent)
    if tracked is None:
        return os.environ.get("CONDGAN_COMMIT")
    return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*", folder=here.parent)


def _git(*arguments: str, folder: Path) -> str | None:
    try:
        said = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()
