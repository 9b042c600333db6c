"""CUDA graphs are tested where there is CUDA (test_cuda.py); here a tape of tensor operations stands in for them.

Like a graph, it knows operations and places in memory only: whatever Python does in an update happens once, and a value
that Python computes stays what it was.
"""

import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import condgan as cg
from condgan.training.engines import CudaGraphEngine, EagerEngine, make_engine
from condgan.types import CriticRegularizer


class Tape(TorchDispatchMode):
    """Notes the operations of a function, with their arguments and the places of their results."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, out in self.calls:
            for place, value in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


class TapeEngine(CudaGraphEngine):
    """Records on tapes. A tape runs what it records, a graph does not: what the run changed is put back."""

    def __init__(self, trainer: cg.Trainer):
        super().__init__(None, record=self.record)
        self.trainer = trainer
        self.recordings = 0

    def record(self, function):
        tensors = [
            t for t in tree_leaves([p.state_dict() for p in self.trainer._parts().values()]) if hasattr(t, "copy_")
        ]
        before, rng = [tensor.clone() for tensor in tensors], torch.get_rng_state()
        self.recordings += 1
        try:
            with Tape() as tape:
                metrics = function()
        finally:
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
            torch.set_rng_state(rng)
        return tape.replay, metrics


@pytest.fixture(autouse=True)
def learning_rates_are_tensors(monkeypatch):
    """As on CUDA."""

    def build(config, parameters):
        return torch.optim.Adam(list(parameters), lr=torch.tensor(config.lr), betas=config.betas, fused=True)

    monkeypatch.setattr(cg.OptimizerConfig, "build", build)


SHAPE = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 2}
NETWORKS = {
    "dcgan": lambda: (cg.DCGANGenerator(latent_dim=4, **SHAPE), cg.ACDCGANCritic(dropout=0.2, **SHAPE)),
    "resnet, spectral norm": lambda: (
        cg.ResNetGenerator(latent_dim=4, **SHAPE),
        cg.ACResNetCritic(spectral_norm=True, **SHAPE),
    ),
}


def make_trainer(networks="dcgan", **options) -> cg.Trainer:
    torch.manual_seed(0)
    generator, critic = NETWORKS[networks]()
    defaults = {
        "loss": cg.WassersteinLoss(),
        "auxiliary": cg.AuxiliaryClassifierLoss(),
        "regularizers": [cg.GradientPenalty(10.0), cg.R1(1.0, every=3)],
        "augment": cg.DiffAugment(),
        "critic_steps": 2,
        "label_law": "paired",
        "schedule": "linear",
        "dequantize": True,
        "device": "cpu",
    }
    return cg.Trainer(generator.double(), critic.double(), **{**defaults, **options})


def taped(trainer: cg.Trainer) -> cg.Trainer:
    trainer.engine = TapeEngine(trainer)
    return trainer


def assert_same(one: cg.Trainer, other: cg.Trainer):
    for part in ("generator", "critic", "ema"):
        for (name, a), b in zip(
            one._modules()[part].state_dict().items(), other._modules()[part].state_dict().values(), strict=True
        ):
            assert torch.equal(a, b), f"{part} {name}"


@pytest.mark.parametrize("networks", NETWORKS)
def test_recorded_updates_give_the_trajectory_of_eager_ones(networks, tiny_images):
    eager, recorded = make_trainer(networks), taped(make_trainer(networks))
    for trainer in (eager, recorded):
        trainer.fit(tiny_images, steps=20, batch_size=4)
    assert_same(eager, recorded)
    assert eager.read_metrics() == recorded.read_metrics()
    assert recorded.engine.recordings == 3, "critic, critic with the lazy term, generator"
    assert recorded.engine.name == "cuda_graph"


def test_batches_of_another_size_are_recorded_anew(tiny_images):
    eager, recorded = make_trainer(), taped(make_trainer())
    for trainer in (eager, recorded):
        trainer.fit(tiny_images, steps=12, batch_size=4)
        trainer.fit(tiny_images, steps=24, batch_size=6, generator_batch_size=8)
    assert_same(eager, recorded)
    assert recorded.engine.recordings == 6


def test_a_resumed_run_is_recorded_anew(tmp_path, tiny_images):
    whole = make_trainer()
    whole.fit(tiny_images, steps=20, batch_size=4)
    stopping = cg.Evaluate(lambda trainer: trainer.request_stop("test") or {}, every=12)
    cut = taped(make_trainer(callbacks=[stopping, cg.Checkpoint(tmp_path, every=12)]))
    cut.fit(tiny_images, steps=20, batch_size=4)
    assert cut.state.step == 12
    for resumed in (cut, taped(make_trainer())):
        assert resumed.resume(tmp_path)
        resumed.callbacks = ()
        resumed.fit(tiny_images, steps=20, batch_size=4)
        assert_same(whole, resumed)


class ReadsBack(CriticRegularizer):
    def penalty(self, critic, batch):
        return batch.real.score.square().mean() * (1.0 if float(batch.real.score.detach().sum()) > 0 else 2.0)


def test_a_term_that_cannot_be_recorded_falls_back_with_one_warning(tiny_images):
    eager, recorded = (make_trainer(regularizers=[ReadsBack(0.1)]) for _ in range(2))
    taped(recorded)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recorded.fit(tiny_images, steps=8, batch_size=4)
    assert [str(w.message) for w in caught] == [
        "training goes on with engine='eager': it cannot be recorded "
        "(operation not permitted when stream is capturing)."
    ]
    assert recorded.engine.name == "eager"
    eager.fit(tiny_images, steps=8, batch_size=4)
    assert_same(eager, recorded)


def test_what_python_computes_stays_as_it_was(tiny_images):
    """The tape would show an update that hides a changing value from the graph."""

    class Growing(CriticRegularizer):
        calls = 0

        def penalty(self, critic, batch):
            self.calls += 1
            return batch.real.score.mean() * self.calls

    eager, recorded = (make_trainer(regularizers=[Growing(0.1)]) for _ in range(2))
    taped(recorded)
    for trainer in (eager, recorded):
        trainer.fit(tiny_images, steps=8, batch_size=4)
    with pytest.raises(AssertionError):
        assert_same(eager, recorded)


def test_auto_is_eager_on_the_cpu():
    assert make_trainer().engine.name == "eager"
    assert isinstance(make_engine("auto", torch.device("cpu")), EagerEngine)


def test_cuda_graphs_without_cuda_fall_back():
    with pytest.warns(UserWarning, match=r"goes on with engine='eager': CUDA graphs need a CUDA device, got cpu\."):
        assert make_trainer(engine="cuda_graph").engine.name == "eager"


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match='must be "auto", "eager" or "cuda_graph", got \'fast\''):
        make_trainer(engine="fast")
