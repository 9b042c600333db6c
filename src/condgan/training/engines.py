"""How an update is run: as it is written, or recorded once as a CUDA graph and replayed.

A small network on a GPU spends more time in launching its kernels one by one than in the kernels. A CUDA graph launches
all of an update at once. What is recorded is the update as it is written, so that both engines give the same results.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from condgan.training.distributed import rank_and_world

EngineName = Literal["auto", "eager", "cuda_graph"]

_OLD_GRAPHS = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 12)
_WARM_UP = 3  # updates that run as written first, so that what is made once (workspaces, moments) exists


class Inputs(Protocol):
    """What an update takes: an object that can be copied and lists its tensors, always in the same order."""

    def tensors(self) -> list[Tensor]:
        """Return all tensors."""
        ...


AnyInputs = TypeVar("AnyInputs", bound=Inputs)
Metrics = dict[str, Tensor]
Update = Callable[[AnyInputs], Metrics]
"""Changes weights in place and returns scalars by name. It reads nothing back from the device."""


class Engine(Protocol):
    """Runs updates."""

    @property
    def name(self) -> str:
        """What runs them at present."""
        ...

    def run(self, kind: Hashable, update: Update[AnyInputs], inputs: AnyInputs) -> Metrics:
        """Return `update(inputs)`; updates of one kind differ in nothing but the values of their inputs."""
        ...

    def forget(self) -> None:
        """Forget what was recorded: tensors that updates use have been replaced."""
        ...


class EagerEngine:
    """Runs every update as it is written."""

    name = "eager"

    def run(self, kind: Hashable, update: Update[AnyInputs], inputs: AnyInputs) -> Metrics:
        """Return `update(inputs)`."""
        return update(inputs)

    def forget(self) -> None:
        """Do nothing."""


class CudaGraphEngine:
    """Records one graph for each kind of update and replays it with new inputs.

    The first updates of a kind run as written, and count. Python values that an update reads (a weight, a learning
    rate that is no tensor) keep the values they had in the recording.

    An update that reads something back from the device, or that cannot be recorded for another reason, ends the
    recording: with one warning that says why, all updates run as written from then on.

    Args:
        device: The CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._recorder = _Recorder(self._stream)
        self._recordings: dict[Hashable, _Recording[Any]] = {}
        self._seen: Counter[Hashable] = Counter()
        self._fallen_back = False

    @property
    def name(self) -> str:
        """`"cuda_graph"`, or `"eager"` after falling back."""
        return "eager" if self._fallen_back else "cuda_graph"

    def run(self, kind: Hashable, update: Update[AnyInputs], inputs: AnyInputs) -> Metrics:
        """Return `update(inputs)`, replayed if this kind has been recorded.

        The tensors returned by a replay are overwritten by the next one of the same kind.
        """
        if self._fallen_back:
            return update(inputs)
        key = (kind, tuple((tensor.shape, tensor.dtype) for tensor in inputs.tensors()))
        if key not in self._recordings:
            self._seen[key] += 1
            if self._seen[key] <= _WARM_UP:
                return self._run_as_written(update, inputs, last=self._seen[key] == _WARM_UP)
            try:
                self._recordings[key] = _Recording(self._recorder, update, inputs)
            except RuntimeError as error:
                self.fall_back(f"it cannot be recorded ({str(error).splitlines()[0]})")
                return update(inputs)
        return self._recordings[key].replay(inputs)

    def forget(self) -> None:
        """Forget all recordings."""
        self._recordings.clear()
        self._seen.clear()
        self._recorder.renew_pool()

    def fall_back(self, reason: str) -> None:
        """Run all further updates as written, and warn why."""
        if not self._fallen_back:
            warnings.warn(f"training goes on with engine='eager': {reason}.", stacklevel=2)
        self._fallen_back = True
        self.forget()

    def _run_as_written(self, update: Update[AnyInputs], inputs: AnyInputs, *, last: bool) -> Metrics:
        """Run an update on the stream of the recording, and in the last one look whether it waits for the device."""
        with _on(self._stream), _noted_waits(enabled=last) as waits:
            metrics = update(inputs)
        if waits:
            self.fall_back(f"a term of the update waits for the device, which no CUDA graph can ({waits[0]})")
        return metrics


class _Recording(Generic[AnyInputs]):
    """One recorded update, its inputs' places and its results' places."""

    def __init__(self, recorder: _Recorder, update: Update[AnyInputs], inputs: AnyInputs) -> None:
        self._inputs = copy.deepcopy(inputs)
        self._graph, self._metrics = recorder.record(lambda: update(self._inputs))

    def replay(self, inputs: AnyInputs) -> Metrics:
        torch._foreach_copy_(self._inputs.tensors(), inputs.tensors())
        self._graph.replay()
        return self._metrics


class _Recorder:
    """Records functions as CUDA graphs that share one pool of memory.

    A graph has its temporary tensors in the places where graphs that were recorded later leave their results: results
    must be copied before another graph is replayed.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self.renew_pool()

    def renew_pool(self) -> None:
        """Take another pool: one whose graphs are gone takes no new ones while a tensor (a gradient) lies in it."""
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, function: Callable[[], Metrics]) -> tuple[torch.cuda.CUDAGraph, Metrics]:
        """Record a function without running it; return the graph and the places where its results will be."""
        graph = torch.cuda.CUDAGraph()
        present = torch.cuda.current_stream(self._stream.device), torch.cuda.current_stream()
        try:
            # "thread_local": a thread that prefetches images meanwhile is none of the recording's business.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                metrics = function()
        except BaseException:
            for stream in present:
                torch.cuda.set_stream(stream)
            if _OLD_GRAPHS:
                self._end_failed_recording()
            raise
        return graph, metrics

    def _end_failed_recording(self) -> None:
        """Do what PyTorch before 2.12 leaves undone, so that work outside of graphs can go on."""
        device = self._stream.device
        with suppress(RuntimeError):  # where the recording itself had begun and ended as it should
            torch._C._cuda_endAllocateToPool(device.index, self._pool)
        rng = torch.cuda.default_generators[device.index]
        fresh = torch.Generator(device)
        fresh.set_state(rng.get_state())
        rng.graphsafe_set_state(fresh)


def make_engine(name: EngineName, device: torch.device) -> Engine:
    """Return the engine of this name; `"auto"` is `"cuda_graph"` on CUDA and `"eager"` elsewhere.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in ("auto", "eager", "cuda_graph"):
        raise ValueError(f'engine must be "auto", "eager" or "cuda_graph", got {name!r}.')
    obstacle = None
    if device.type != "cuda":
        obstacle = f"CUDA graphs need a CUDA device, got {device}"
    elif rank_and_world()[1] > 1:
        obstacle = "gradients of several processes are averaged outside of graphs"
    if name == "cuda_graph" and obstacle:
        warnings.warn(f"training goes on with engine='eager': {obstacle}.", stacklevel=3)
    return EagerEngine() if name == "eager" or obstacle else CudaGraphEngine(device)


@contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Run on another stream, in order with what comes before and behind on the present one."""
    present = torch.cuda.current_stream(stream.device)
    stream.wait_stream(present)
    with torch.cuda.stream(stream):
        yield
    present.wait_stream(stream)


@contextmanager
def _noted_waits(*, enabled: bool) -> Iterator[list[str]]:
    """Yield a list that will hold one line for each time that the host waited for the device inside."""
    waits: list[str] = []
    if not enabled or torch.cuda.get_sync_debug_mode():
        yield waits
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchronizing CUDA operation" in str(warning.message):
            waits.append(f"{warning.filename}:{warning.lineno}")
        elif "Synchronization debug mode" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
