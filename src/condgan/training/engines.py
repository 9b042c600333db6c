"""How an update is run: as it is written, or recorded once as a CUDA graph and replayed.

A small network on a GPU spends more time in launching its kernels one by one than in the kernels. A CUDA graph launches
all of an update at once, or all of an iteration: the draws, the critic's updates, the generator's and its average. What
is recorded is the update as it is written, so that all engines give the same results.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import torch
from torch import Tensor
from typing_extensions import override

from condgan.training.distributed import rank_and_world
from condgan.training.foreach import copy_all

EngineName = Literal["auto", "eager", "cuda_graph", "cuda_graph_iteration"]

_OLD_GRAPHS = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 12)
_WARM_UP = 3  # updates that run as written first, so that what is made once (workspaces, moments) exists


class Inputs(Protocol):
    """What an update takes: an object that can be copied and lists its tensors, always in the same order."""

    def tensors(self) -> list[Tensor]:
        """Return all tensors."""
        ...


@dataclass(frozen=True, slots=True)
class NoInputs:
    """Inputs of an update that reads everything from the same places each time."""

    def tensors(self) -> list[Tensor]:
        """Return none."""
        return []


AnyInputs = TypeVar("AnyInputs", bound=Inputs)
Metrics = dict[str, Tensor]
Update = Callable[[AnyInputs], Metrics]
"""Changes weights in place and returns scalars by name. It reads nothing back from the device."""


class Engine:
    """Runs every update as it is written."""

    @property
    def name(self) -> str:
        """What runs the updates now."""
        return "eager"

    def run(self, kind: Hashable, update: Update[AnyInputs], inputs: AnyInputs) -> Metrics:
        """Return `update(inputs)`; updates of one kind differ only in the values of their inputs."""
        return update(inputs)

    def forget(self) -> None:
        """Forget what was recorded: tensors that updates use have been replaced."""

    def fall_back(self, reason: str) -> None:
        """Run all further updates in the next simpler way, and warn why."""


class CudaGraphEngine(Engine):
    """Records one graph for each kind of update and replays it with new inputs.

    The first updates of a kind run as written, and count. Python values that an update reads (a weight, a learning
    rate that is not a tensor) keep the values they had in the recording.

    An update that reads something back from the device, or that cannot be recorded for another reason, ends the
    recording: with one warning that says why, all updates run as written from then on, or if they were whole iterations
    on graphs of single updates.

    Args:
        device: The CUDA device.
        rngs: Generators that whole iterations draw from, beside the default one.
        iterations: Whether the updates are whole iterations.
    """

    def __init__(self, device: torch.device, *, rngs: Sequence[torch.Generator] = (), iterations: bool = False) -> None:
        self._stream = torch.cuda.Stream(device)
        self._recorder = _Recorder(self._stream)
        self._rngs = rngs
        self._recordings: dict[Hashable, _Recording[Any]] = {}
        self._seen: Counter[Hashable] = Counter()
        self._names = [*(["cuda_graph_iteration"] if iterations else []), "cuda_graph", "eager"]

    @property
    @override
    def name(self) -> str:
        return self._names[0]

    @override
    def run(self, kind: Hashable, update: Update[AnyInputs], inputs: AnyInputs) -> Metrics:
        """Return `update(inputs)`, replayed if this kind has been recorded.

        The tensors returned by a replay are overwritten by the next one of the same kind.
        """
        if self.name == "eager":
            return update(inputs)
        key = (kind, tuple((tensor.shape, tensor.dtype) for tensor in inputs.tensors()))
        if key not in self._recordings:
            self._seen[key] += 1
            if self._seen[key] <= _WARM_UP:
                return self._run_as_written(update, inputs, last=self._seen[key] == _WARM_UP)
            try:
                rngs = self._rngs if self.name == "cuda_graph_iteration" else ()
                self._recordings[key] = _Recording(self._recorder, update, inputs, rngs)
            except RuntimeError as error:
                self.fall_back(f"it cannot be recorded ({str(error).splitlines()[0]})")
                return update(inputs)
            except BaseException:  # generators may have other states now than earlier recordings know
                self.forget()
                raise
        return self._recordings[key].replay(inputs)

    @override
    def forget(self) -> None:
        self._recordings.clear()
        self._seen.clear()
        self._recorder.renew_pool()

    @override
    def fall_back(self, reason: str) -> None:
        self.forget()
        if len(self._names) > 1:
            del self._names[0]
            warnings.warn(f"training goes on with engine={self.name!r}: {reason}.", stacklevel=2)

    def _run_as_written(self, update: Update[AnyInputs], inputs: AnyInputs, *, last: bool) -> Metrics:
        """Run an update on the stream of the recording, and in the last one check whether it waits for the device."""
        with _on(self._stream), _noted_waits(enabled=last) as waits:
            metrics = update(inputs)
        if waits:
            self.fall_back(f"a term of the update waits for the device, which no CUDA graph can ({waits[0]})")
        return metrics


class _Recording(Generic[AnyInputs]):
    """One recorded update, its inputs' places and its results' places."""

    def __init__(
        self, recorder: _Recorder, update: Update[AnyInputs], inputs: AnyInputs, rngs: Sequence[torch.Generator]
    ) -> None:
        self._inputs = copy.deepcopy(inputs)
        self._graph, self._metrics = recorder.record(lambda: update(self._inputs), rngs)

    def replay(self, inputs: AnyInputs) -> Metrics:
        copy_all(self._inputs.tensors(), inputs.tensors())
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

    def record(
        self, function: Callable[[], Metrics], rngs: Sequence[torch.Generator]
    ) -> tuple[torch.cuda.CUDAGraph, Metrics]:
        """Record a function without running it; return the graph and the places where its results will be.

        Args:
            function: What to record.
            rngs: Generators that it draws from, beside the default one.
        """
        graph = torch.cuda.CUDAGraph()
        if _OLD_GRAPHS:
            for rng in rngs:
                graph.register_generator_state(rng)
        current = torch.cuda.current_stream(self._stream.device), torch.cuda.current_stream()
        try:
            # "thread_local": a thread that prefetches images meanwhile is not part of the recording.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                metrics = function()
        except BaseException:
            for stream in current:
                torch.cuda.set_stream(stream)
            if _OLD_GRAPHS:
                self._end_failed_recording(rngs)
            raise
        return graph, metrics

    def _end_failed_recording(self, rngs: Sequence[torch.Generator]) -> None:
        """Do what PyTorch before 2.12 leaves undone, so that work outside of graphs can go on."""
        device = self._stream.device
        with suppress(RuntimeError):  # where the recording itself had begun and ended as it should
            torch._C._cuda_endAllocateToPool(device.index, self._pool)
            torch._C._cuda_releasePool(device.index, self._pool)
        for rng in (torch.cuda.default_generators[device.index], *rngs):
            fresh = torch.Generator(device)
            fresh.set_state(rng.get_state())
            rng.graphsafe_set_state(fresh)


def make_engine(
    name: EngineName, device: torch.device, *, rngs: Sequence[torch.Generator] = (), obstacle: str | None = None
) -> Engine:
    """Return the engine of this name; `"auto"` is `"cuda_graph"` on CUDA and `"eager"` elsewhere.

    Args:
        name: The name.
        device: Where updates run.
        rngs: Generators on the device that whole iterations draw from, beside the default one.
        obstacle: Why no update can be recorded in a graph, if so.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in get_args(EngineName):
        raise ValueError(f"engine must be one of {', '.join(map(repr, get_args(EngineName)))}, got {name!r}.")
    if device.type != "cuda":
        reason: str | None = f"CUDA graphs need a CUDA device, got {device}"
    elif rank_and_world()[1] > 1:
        reason = "gradients of several processes are averaged outside of graphs"
    else:
        reason = obstacle
    if reason and (name.startswith("cuda_graph") or (name == "auto" and reason == obstacle)):
        warnings.warn(f"training goes on with engine='eager': {reason}.", stacklevel=3)
    if name == "eager" or reason:
        return Engine()
    return CudaGraphEngine(device, rngs=rngs, iterations=name == "cuda_graph_iteration")


@contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """Let cuDNN try all its kernels for a convolution once and keep the fastest: shapes do not change during training.

    Which one that is may differ from run to run, so not where PyTorch must be deterministic.
    """
    before = torch.backends.cudnn.benchmark
    deterministic = torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    if device.type == "cuda" and not deterministic:
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Run on another stream, in order with what comes before and after on the current one."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


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
