"""Drawing some steps ahead, so that images are there when a step begins, without changing what is drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle

from torch import Tensor

from condgan.training.sampler import Request, Sampler
from condgan.types import StepInputs


class Lookahead:
    """Hands out the inputs of an endless cycle of steps, as many drawn ahead as the sampler's store asks for.

    Draws are made one after another in the order of the cycle, however early: the samples do not depend on the store.

    Args:
        sampler: Draws the inputs.
        steps: What each step of the cycle asks for.
    """

    def __init__(self, sampler: Sampler, steps: Sequence[Request]) -> None:
        self.sampler = sampler
        self.steps = steps
        self._requests = cycle(steps)
        self._drawn: deque[tuple[Tensor, Callable[[], StepInputs]]] = deque()

    def __next__(self) -> StepInputs:
        while len(self._drawn) <= self.sampler.store.lookahead:
            self._drawn.append((self.sampler.rng.get_state(), self.sampler.begin(next(self._requests))))
        _, finish = self._drawn.popleft()
        return finish()

    @property
    def rng_state(self) -> Tensor:
        """State of the sampler's source before the first draw that was not handed out."""
        return self._drawn[0][0] if self._drawn else self.sampler.rng.get_state()

    def close(self) -> None:
        """Take back what was drawn ahead."""
        self.sampler.rng.set_state(self.rng_state)
        self._drawn.clear()
