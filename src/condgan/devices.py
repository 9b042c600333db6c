"""The default device of the library."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """Return the current CUDA device; without CUDA, MPS; without either, the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_names() -> list[str]:
    """Return the names of the devices of this machine."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count())), *mps]


def check_device(role: str, name: str) -> None:
    """Check that tensors can be made on a device.

    Raises:
        ValueError: If not.
    """
    try:
        torch.zeros((), device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown, not compiled, without memory
        raise ValueError(
            f"{role} must be a device of this machine ({', '.join(device_names())}), got {name!r}."
        ) from error
