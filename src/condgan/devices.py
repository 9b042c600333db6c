"""The default device of the library, and defaults of new tensors that do not depend on the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def best_device() -> torch.device:
    """Return the current CUDA device; without CUDA, MPS; without either, the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Make new tensors on the CPU and in float32, whatever `torch.set_default_device` and `set_default_dtype` say.

    Examples:
        >>> @plain_defaults()
        ... def zeros():
        ...     return torch.zeros(2)
        >>> with torch.device("meta"):
        ...     zeros()
        tensor([0., 0.])
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
