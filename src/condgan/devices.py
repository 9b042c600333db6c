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
