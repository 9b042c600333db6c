"""How an update is run: eagerly, or captured once as a CUDA graph and replayed.

With a small network on a GPU, launching kernels one by one takes more time than running them. A CUDA graph launches a
whole update at once, or a whole iteration: the draws, the updates of critic and generator, and the average. The same
Python code is run or captured, so all engines give the same results.
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

from condgan.distributed import rank_and_world
from condgan.files import check_names
from condgan.training.foreach import copy_all

EngineName = Literal["auto", "eager", "cuda_graph", "cuda_graph_iteration"]

_OLD_GRAPHS = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 12)
_WARM_UP = 3  # eager updates before the capture, which create workspaces and optimizer state


class Inputs(Protocol):
    """Inputs of an update: an object that can be copied and lists its tensors, always in the same order."""

    def tensors(self) -> list[Tensor]:
        """Return all tensors."""
        ...


@dataclass(frozen=True, slots=True)
class NoInputs:
    """Inputs of an update that reads the same tensors each time."""

    def tensors(self) -> list[Tensor]:
        """Return an empty list."""
        return []


AnyInputs = TypeVar("AnyInputs", bound=Inputs)
Metrics = dict[str, Tensor]
Update = Callable[[AnyInputs], Metrics]
"""Changes weights in place and returns scalars by name. It reads nothing back from the device."""


class Engine:
    """Runs every update eagerly."""

    @property
    def name(self) -> str:
        """What runs the updates now."""
        return "eager"

    def run(self, kind: Hashable, update: Update[AnyInputs], inputs: AnyInputs) -> Metrics:
        """Return `update(inputs)`; updates of one kind differ only in the values of their inputs."""
        return update(inputs)

    def forget(self) -> None:
        """Discard captured graphs, because tensors that updates use have been replaced."""

    def fall_back(self, reason: str) -> None:
        """Run all further updates in the next simpler way, with a warning that says why."""


class CudaGraphEngine(Engine):
    """Captures one graph per kind of update and replays it with new inputs.

    The first updates of a kind run eagerly, as part of training. Python values that an update reads (a weight, a
    learning rate that is not a tensor) keep the values that they had during the capture.

    If an update reads something back from the device, or cannot be captured for another reason, a warning says why, and
    all further updates run eagerly, or, if they were whole iterations, as graphs of single updates.

    Args:
        device: The CUDA device.
        rngs: Generators that whole iterations draw from, in addition to the default one.
        iterations: Whether the updates are whole iterations.
    """

    def __init__(self, device: torch.device, *, rngs: Sequence[torch.Generator] = (), iterations: bool = False) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = _GraphPool(self._stream)
        self._rngs = rngs
        self._captured: dict[Hashable, _CapturedUpdate[Any]] = {}
        self._seen: Counter[Hashable] = Counter()
        self._names = [*(["cuda_graph_iteration"] if iterations else []), "cuda_graph", "eager"]

    @property
    @override
    def name(self) -> str:
        return self._names[0]

    @override
    def run(self, kind: Hashable, update: Update[AnyInputs], inputs: AnyInputs) -> Metrics:
        """Return `update(inputs)`, replayed if this kind has been captured.

        The tensors returned by a replay are overwritten by the next replay of the same kind.
        """
        if self.name == "eager":
            return update(inputs)
        key = (kind, tuple((tensor.shape, tensor.dtype) for tensor in inputs.tensors()))
        if key not in self._captured:
            self._seen[key] += 1
            if self._seen[key] <= _WARM_UP:
                return self._run_eagerly(update, inputs, last=self._seen[key] == _WARM_UP)
            try:
                rngs = self._rngs if self.name == "cuda_graph_iteration" else ()
                self._captured[key] = _CapturedUpdate(self._pool, update, inputs, rngs)
            except RuntimeError as error:
                self.fall_back(f"the update cannot be captured ({str(error).splitlines()[0]})")
                return update(inputs)
            except BaseException:  # earlier graphs may refer to generator states that have been replaced
                self.forget()
                raise
        return self._captured[key].replay(inputs)

    @override
    def forget(self) -> None:
        self._captured.clear()
        self._seen.clear()
        self._pool.renew()

    @override
    def fall_back(self, reason: str) -> None:
        self.forget()
        if len(self._names) > 1:
            del self._names[0]
            warnings.warn(f"training goes on with engine={self.name!r}: {reason}.", stacklevel=2)

    def _run_eagerly(self, update: Update[AnyInputs], inputs: AnyInputs, *, last: bool) -> Metrics:
        """Run an update on the stream of the capture; the last time, check whether it waits for the device."""
        with _on(self._stream), _noted_waits(enabled=last) as waits:
            metrics = update(inputs)
        if waits:
            self.fall_back(f"the update waits for the device, which a CUDA graph cannot do ({waits[0]})")
        return metrics


class _CapturedUpdate(Generic[AnyInputs]):
    """One captured update, with the tensors that hold its inputs and results."""

    def __init__(
        self, pool: _GraphPool, update: Update[AnyInputs], inputs: AnyInputs, rngs: Sequence[torch.Generator]
    ) -> None:
        self._inputs = copy.deepcopy(inputs)
        self._graph, self._metrics = pool.capture(lambda: update(self._inputs), rngs)

    def replay(self, inputs: AnyInputs) -> Metrics:
        copy_all(self._inputs.tensors(), inputs.tensors())
        self._graph.replay()
        return self._metrics


class _GraphPool:
    """Captures functions as CUDA graphs that share one memory pool.

    The temporary tensors of a graph may share memory with the results of graphs that were captured later, so results
    must be copied before another graph is replayed.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self.renew()

    def renew(self) -> None:
        """Take another pool: after its graphs are gone, a pool accepts no new ones while a tensor is still in it."""
        self._handle = torch.cuda.graph_pool_handle()

    def capture(
        self, function: Callable[[], Metrics], rngs: Sequence[torch.Generator]
    ) -> tuple[torch.cuda.CUDAGraph, Metrics]:
        """Capture a function without running it; return the graph and the tensors that will hold its results.

        Args:
            function: The function to capture.
            rngs: Generators that it draws from, in addition to the default one.
        """
        graph = torch.cuda.CUDAGraph()
        if _OLD_GRAPHS:
            for rng in rngs:
                graph.register_generator_state(rng)
        current = torch.cuda.current_stream(self._stream.device), torch.cuda.current_stream()
        try:
            # "thread_local": a thread that prefetches images meanwhile is not part of the capture.
            with torch.cuda.graph(graph, pool=self._handle, stream=self._stream, capture_error_mode="thread_local"):
                metrics = function()
        except BaseException:
            for stream in current:
                torch.cuda.set_stream(stream)
            if _OLD_GRAPHS:
                self._end_failed_capture(rngs)
            raise
        return graph, metrics

    def _end_failed_capture(self, rngs: Sequence[torch.Generator]) -> None:
        """Clean up what PyTorch before 2.12 does not, so that work outside of graphs can continue."""
        device = self._stream.device
        with suppress(RuntimeError):  # raised if the capture itself began and ended normally
            torch._C._cuda_endAllocateToPool(device.index, self._handle)
            torch._C._cuda_releasePool(device.index, self._handle)
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
        rngs: Generators on the device that whole iterations draw from, in addition to the default one.
        obstacle: Why no update can be captured in a graph; None if updates can be.

    Raises:
        ValueError: If the name is unknown.
    """
    check_names("engine", [name], get_args(EngineName))
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
    """Let cuDNN time its kernels for each convolution once and keep the fastest: shapes do not change in training.

    The choice may differ from run to run, so this does nothing where PyTorch must be deterministic.
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
    """Run on another stream, after earlier and before later work on the current one."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


@contextmanager
def _noted_waits(*, enabled: bool) -> Iterator[list[str]]:
    """Yield a list that will hold one source line for each time that the host waited for the device inside."""
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
