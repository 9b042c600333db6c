"""Seeds of the default random generators, and a trainer's own default generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor

from condgan.files import check_seed


def seed_everything(seed: int) -> None:
    """Seed the default generators of Python, NumPy and PyTorch (all devices).

    The library draws from generators of its own. The default ones determine the initial weights of networks that you
    make, and what your own code draws.

    Args:
        seed: In [0, 2**62).

    Raises:
        ValueError: If it is out of range.
    """
    seed = check_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy generator is the one that other code draws from
    torch.manual_seed(seed)


class DefaultRngs:
    """Default generators that belong to a trainer: dropout draws from them in its steps.

    Args:
        device: Whose generator is kept beside the CPU's.
        seed: Seed of both.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        places = {"cpu": torch.device("cpu"), device.type: device}
        self._own = {kind: torch.Generator(place) for kind, place in places.items()}
        self.manual_seed(seed)

    @property
    def states(self) -> dict[str, Tensor]:
        """The states by type of device."""
        return {kind: rng.get_state() for kind, rng in self._own.items()}

    @states.setter
    def states(self, states: dict[str, Tensor]) -> None:
        for kind, rng in self._own.items():
            rng.set_state(states[kind])

    def manual_seed(self, seed: int) -> None:
        """Seed all of them."""
        for rng in self._own.values():
            rng.manual_seed(seed)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use these generators as the default ones inside, and restore the caller's afterwards."""
        with ExitStack() as stack:
            for kind, rng in self._own.items():
                stack.enter_context(_in_place_on_cuda(rng) if kind == "cuda" else _in_place(rng, kind))
            yield


@contextmanager
def _in_place(rng: torch.Generator, kind: str) -> Iterator[None]:
    module = torch if kind == "cpu" else torch.get_device_module(kind)
    outside = module.get_rng_state()
    module.set_rng_state(rng.get_state())
    try:
        yield
    finally:
        rng.set_state(module.get_rng_state())
        module.set_rng_state(outside)


@contextmanager
def _in_place_on_cuda(rng: torch.Generator) -> Iterator[None]:
    """Exchange the state objects, not their values: CUDA graphs of several trainers must not share one."""
    index = torch.cuda.current_device() if rng.device.index is None else rng.device.index
    default = torch.cuda.default_generators[index]
    outside = default.graphsafe_get_state()
    default.graphsafe_set_state(rng)
    try:
        yield
    finally:
        rng.graphsafe_set_state(default.graphsafe_get_state())  # a failed capture may have replaced it
        default.graphsafe_set_state(outside)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the default generators of Python, NumPy and PyTorch's CPU, and restore the caller's states afterwards."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - what a data set's transforms may draw from
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
