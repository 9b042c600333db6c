"""In which type losses are reduced: at least float32, and float64 where it came in."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(x: Tensor) -> Tensor:
    """Return the tensor in at least float32."""
    return x.to(precise_dtype(x))


def precise_dtype(x: Tensor) -> torch.dtype:
    """Return the type that reductions of this tensor are done in."""
    return torch.promote_types(x.dtype, torch.float32)
