"""PyTorch's default generators, kept apart from the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class DefaultRngs:
    """States of the default generators that belong to a trainer: what dropout draws from within its steps.

    Args:
        device: Whose generator is kept beside the CPU's.
        seed: Seed of both.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        self._which = (device,) if device.type == "cuda" else ()  # MPS has one device, which it does not let one name
        self.states = {kind: torch.Generator(kind).manual_seed(seed).get_state() for kind in {"cpu", device.type}}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Put these states in place, and the caller's back afterwards: neither disturbs the other."""
        outside = self._current()
        self._put(self.states)
        try:
            yield
        finally:
            self.states = self._current()
            self._put(outside)

    def _current(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self.device.type != "cpu":
            states[self.device.type] = torch.get_device_module(self.device).get_rng_state(*self._which)
        return states

    def _put(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self.device.type != "cpu":
            torch.get_device_module(self.device).set_rng_state(states[self.device.type], *self._which)
