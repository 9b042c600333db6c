"""CUDA graphs without CUDA: the work is taped and runs on the CPU, streams, pools and generators keep books.

Like a graph, a tape knows operations and places in memory only: whatever Python does happens once, in the recording,
and a value that Python computes stays what it was. A recording computes nothing that lasts. A replay may destroy what
graphs that were recorded later in the same pool keep there, since it has its temporary tensors in the same places.
"""

from __future__ import annotations

import itertools
import math
import weakref
from contextlib import contextmanager
from functools import cache

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
RealGenerator = torch.Generator
WAITING = {
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.lift_fresh.default,  # a tensor made of Python's numbers comes from the memory of the host
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
}
"""Operations that make the host wait for a CUDA device."""

UNDECLARED_WRITES = {aten.native_batch_norm.default: (3, 4)}
"""Positions of arguments that an operation changes without saying so in its schema."""


def waits(func, args):
    """Whether an operation would make the host wait."""
    by_mask = func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default) and any(
        isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    )
    return func in WAITING or by_mask


def leaves_of(tree):
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    return [leaf for part in tree for leaf in leaves_of(part)] if isinstance(tree, (list, tuple)) else [tree]


def tensors_in(tree):
    return [leaf for leaf in leaves_of(tree) if isinstance(leaf, torch.Tensor)]


@cache
def writes_of(func):
    """Return positions and names of the arguments that an operation changes in place."""
    return [
        (i, argument.name)
        for i, argument in enumerate(func._schema.arguments)
        if (argument.alias_info is not None and argument.alias_info.is_write) or i in UNDECLARED_WRITES.get(func, ())
    ]


def written(func, args, kwargs):
    """Return the tensors among the arguments that an operation changes in place."""
    return tensors_in([args[i] if i < len(args) else kwargs.get(name) for i, name in writes_of(func)])


class Tape(TorchDispatchMode):
    """Notes the operations of a function, with their arguments and the places of their results.

    Args:
        rngs: Generators that operations may name; None for any.
    """

    def __init__(self, rngs=None):
        super().__init__()
        self.rngs = rngs
        self.calls = []
        self.made = []
        self._spoilt = None
        self._places = set()
        self._before = []
        self._states = [(torch.default_generator, torch.default_generator.get_state())]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if waits(func, args):
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        for rng in (leaf for leaf in leaves_of((args, kwargs)) if isinstance(leaf, RealGenerator)):
            state = RealGenerator.get_state(rng)
            # Operations see another object for the same generator.
            known = self.rngs is None or any(torch.equal(RealGenerator.get_state(one), state) for one in self.rngs)
            if not known:
                raise RuntimeError("Attempt to increase offset for a CUDA generator not in capture mode.")
            self._states.append((rng, state))
        self._before += [(tensor, tensor.clone()) for tensor in written(func, args, kwargs)]
        out = func(*args, **kwargs)
        places = tensors_in(out)
        self.calls.append((func, args, kwargs, places))
        given = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, kwargs))} - self._places
        for tensor in places:
            place = tensor.untyped_storage().data_ptr()
            if place not in given:
                self._places.add(place)
                self.made.append(tensor)
        return out

    @torch.no_grad()
    def undo(self):
        """Put back what the recording changed, and spoil what it made: a graph's recording runs nothing."""
        for tensor, value in reversed(self._before):
            tensor.copy_(value)
        for rng, state in reversed(self._states):
            rng.set_state(state)
        self._before.clear()
        self._states.clear()
        self.spoil()

    @torch.no_grad()
    def spoil(self):
        """Overwrite all floating-point tensors that the recording made."""
        if self._spoilt is None:
            whole = {}  # one tensor for all of each place, of which there are many views
            for tensor in self.made:
                storage = tensor.untyped_storage()
                if tensor.is_floating_point() and storage.nbytes():
                    whole.setdefault(storage.data_ptr(), torch.empty(0, dtype=tensor.dtype).set_(storage))
            self._spoilt = list(whole.values())
        if self._spoilt:
            torch._foreach_add_(self._spoilt, math.nan)

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, places in self.calls:
            for place, value in zip(places, tensors_in(func(*args, **kwargs)), strict=True):
                if place.data_ptr() != value.data_ptr():
                    place.copy_(value)


class Stream:
    numbers = itertools.count()

    def __init__(self, device=None):
        self.device, self.number = torch.device("cuda", 0), next(Stream.numbers)

    def wait_stream(self, other):
        pass


class Pool:
    """Memory that graphs share: how many use it, and what lives in it."""

    def __init__(self):
        self.graphs = 0
        self.recorded = []
        self.living = []

    @property
    def is_lost(self):
        """Whether it counts more graphs than there are."""
        return self.graphs > sum(reference() is not None for reference in self.recorded)

    @property
    def is_empty(self):
        return not any(reference() is not None for reference in self.living)


class State:
    """What generators may share, and the one of them that draws from it."""

    def __init__(self, holder):
        self.holder = holder


class Generator(RealGenerator):
    """A generator of the CPU with the bookkeeping of one of CUDA."""

    cuda: FakeCuda

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")

    def __init__(self, device="cpu"):
        self.kind, self.state = torch.device(device), State(self)

    @property
    def device(self):
        return self.kind  # as it was given, without an index if it had none

    def get_state(self):
        if self.cuda.tape is not None:
            raise RuntimeError("Cannot call CUDAGeneratorImpl::current_seed during CUDA graph capture.")
        return RealGenerator.get_state(self.state.holder)

    def set_state(self, value):
        RealGenerator.set_state(self.state.holder, value)
        return self

    def graphsafe_get_state(self):
        other = Generator(self.kind)
        other.state = self.state
        return other

    def graphsafe_set_state(self, other):
        if self.state.holder is self:
            self.state.holder = Generator(self.kind)
            RealGenerator.set_state(self.state.holder, RealGenerator.get_state(self))
        RealGenerator.set_state(self, other.get_state())
        self.state = other.state
        self.state.holder = self


class FakeCuda:
    """The part of `torch.cuda` that engines use. `old` is as in PyTorch before 2.12.

    Attributes:
        current: The current stream.
        underway: Pools that the allocator believes are being recorded into.
        capturing: States of generators that believe they are being recorded.
        recordings: How many graphs have been recorded.
    """

    def __init__(self, *, old):
        self.old = old
        self.default = self.current = Stream()
        self.pools = {}
        self.underway = []
        self.capturing = weakref.WeakSet()
        self.tape = None
        self.recordings = 0
        self.handles = itertools.count(1)
        self.default_generator = Generator("cuda")

    @property
    def is_idle(self):
        """Whether no trace of a recording is left."""
        lost = any(pool.is_lost for pool in self.pools.values())
        return self.current is self.default and not (self.tape or self.underway or self.capturing or lost)

    def empty_cache(self):
        assert not self.underway, "captures_underway.empty() INTERNAL ASSERT FAILED"
        self.pools = {handle: pool for handle, pool in self.pools.items() if pool.graphs or not pool.is_empty}

    def end_allocate(self, device, handle):
        if handle not in self.underway:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.underway.remove(handle)

    def release_pool(self, device, handle):
        self.pools[handle].graphs -= 1

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def set_stream(self, stream):
        self.current = stream

    def install(self, monkeypatch):
        Generator.cuda = self
        cuda = self

        class CUDAGraph:
            def __init__(self):
                self.rngs, self.pool, self.tape = [], None, None

            def register_generator_state(self, rng):
                self.rngs.append(rng)

            def replay(self):
                if any(rng.state in cuda.capturing for rng in (cuda.default_generator, *self.rngs)):
                    raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
                self.tape.replay()
                later = self.pool.recorded[self.pool.recorded.index(weakref.ref(self)) + 1 :]
                for graph in filter(None, (reference() for reference in later)):
                    graph.tape.spoil()

            def __del__(self):
                if self.pool is not None:
                    self.pool.graphs -= 1

        class graph:
            def __init__(self, graph, pool=None, stream=None, capture_error_mode="global"):
                self.graph, self.handle, self.stream = graph, pool, stream

            def __enter__(self):
                cuda.empty_cache()
                self.before, cuda.current = cuda.current, self.stream
                rngs = [cuda.default_generator, *self.graph.rngs]
                if cuda.old:
                    cuda.capturing.update(rng.state for rng in rngs)
                pool = cuda.pools.setdefault(self.handle, Pool())
                if pool.graphs == 0 and not pool.is_empty:
                    raise RuntimeError("it->second->use_count > 0 INTERNAL ASSERT FAILED")
                pool.graphs += 1
                cuda.underway.append(self.handle)
                cuda.tape = Tape(rngs if cuda.old else None).__enter__()

            def __exit__(self, kind, error, trace):
                tape, cuda.tape = cuda.tape, None
                tape.__exit__(kind, error, trace)
                tape.undo()
                if kind is not None and error.args and "capturing" in str(error):  # what CUDA itself has refused
                    if not cuda.old:
                        cuda.underway.remove(self.handle)
                        cuda.release_pool(None, self.handle)
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from error
                cuda.underway.remove(self.handle)
                cuda.capturing.clear()
                cuda.current = self.before
                pool = cuda.pools[self.handle]
                pool.recorded.append(weakref.ref(self.graph))
                pool.living += [weakref.ref(tensor) for tensor in tape.made]
                self.graph.pool, self.graph.tape = pool, tape
                cuda.recordings += kind is None

        replaced = {
            "CUDAGraph": CUDAGraph,
            "Stream": Stream,
            "current_stream": lambda device=None: cuda.current,
            "default_generators": (self.default_generator,),
            "current_device": lambda: 0,
            "get_sync_debug_mode": lambda: 0,
            "graph": graph,
            "graph_pool_handle": lambda: (0, next(cuda.handles)),
            "set_stream": self.set_stream,
            "set_sync_debug_mode": lambda mode: None,
            "stream": self.stream,
        }
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch, "Generator", Generator)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_allocate, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", self.release_pool, raising=False)
        return self
