import random

import numpy as np
import pytest
import torch

import condgan as cg
from condgan.training import engines
from condgan.training.random import DefaultRngs
from fake_cuda import FakeCuda


def draw(rng: torch.Generator) -> torch.Tensor:
    return torch.rand(3, generator=rng)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_trainer_and_its_caller_draw_from_default_generators_of_their_own(kind, monkeypatch):
    cuda = FakeCuda(old=True).install(monkeypatch)
    default = torch.default_generator if kind == "cpu" else cuda.default_generator

    def train(rngs, times):
        draws = []
        for _ in range(times):
            with rngs.active():
                draws.append(draw(default))
        return torch.cat(draws)

    default.manual_seed(9)
    undisturbed = torch.cat([draw(default), draw(default), draw(default)])
    alone = train(DefaultRngs(torch.device(kind), 5), 2)
    one, other = DefaultRngs(torch.device(kind), 5), DefaultRngs(torch.device(kind), 6)
    default.manual_seed(9)
    found = [draw(default)]
    first = train(one, 1)
    train(other, 2)
    found.append(draw(default))
    second = train(one, 1)
    found.append(draw(default))
    assert torch.equal(torch.cat(found), undisturbed)
    assert torch.equal(torch.cat([first, second]), alone)


def test_draws_go_on_after_a_recording_that_failed(monkeypatch):
    monkeypatch.setattr(engines, "_OLD_GRAPHS", True)
    cuda = FakeCuda(old=True).install(monkeypatch)
    engine = engines.CudaGraphEngine(torch.device("cuda", 0))
    rngs, plain = DefaultRngs(torch.device("cuda"), 5), DefaultRngs(torch.device("cuda"), 5)
    draws, calls = [], []

    def update(nothing):
        calls.append(None)
        value = draw(cuda.default_generator)
        if len(calls) == 4:
            value.sum().item()
        draws.append(value)
        return {}

    def run(times):
        for _ in range(times):
            with rngs.active():
                engine.run("draws", update, engines.NoInputs())

    with pytest.warns(UserWarning, match="engine='eager'"):
        run(6)
    assert cuda.is_idle
    for value in draws:
        with plain.active():
            assert torch.equal(draw(cuda.default_generator), value)
    assert len(draws) == 6


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_states_are_kept_and_put_back(kind, monkeypatch):
    cuda = FakeCuda(old=True).install(monkeypatch)
    default = torch.default_generator if kind == "cpu" else cuda.default_generator
    rngs = DefaultRngs(torch.device(kind), 5)
    with rngs.active():
        draw(default)
    states = rngs.states
    assert set(states) == {"cpu", kind}
    found = []
    for _ in range(2):
        rngs.states = states
        with rngs.active():
            found.append(draw(default))
    assert torch.equal(*found)
    assert not torch.equal(rngs.states[kind], states[kind])


def test_one_seed_governs_all_default_generators():
    def draw(seed):
        cg.seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002 - the legacy one is meant

    assert draw(3) == draw(3)
    assert all(a != b for a, b in zip(draw(3), draw(2**32 + 3 + 1), strict=True))
