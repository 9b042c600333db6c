"""The default device of the library."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """Return the current CUDA device; without CUDA, MPS; without either, the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
