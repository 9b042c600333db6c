import copy
from dataclasses import fields, replace

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

import condgan as cg
from condgan.regularizers import CriticRegularizer
from condgan.training import Callback, Networks, critic_step, fit_together, generator_step
from condgan.training.inputs import Request
from condgan.types import StepInputs
from saved import saved

pytestmark = pytest.mark.cuda


def build(
    *callbacks: Callback, precision="fp32", engine="auto", dtype=torch.float32, optimizer=None
) -> tuple[cg.Trainer, cg.data.ArrayDataset]:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 1, 32, 32), dtype=torch.uint8, generator=rng)
    data = cg.data.ArrayDataset(images, [0, 1, 2] * 8)
    shape = {"num_classes": 3, "image_shape": (1, 32, 32), "base_channels": 8}
    torch.manual_seed(0)
    # With so large an eps an update is smooth in the gradient, and the noise of atomic additions stays noise.
    optimizer = optimizer or cg.OptimizerConfig(lr=0.01, eps=0.01)
    trainer = cg.Trainer(
        cg.ResNetGenerator(latent_dim=8, **shape).to(dtype),
        cg.ACDCGANCritic(spectral_norm=True, dropout=0.2, **shape).to(dtype),
        loss=cg.WassersteinLoss(),
        auxiliary=cg.AuxiliaryClassifierLoss(),
        regularizers=[cg.GradientPenalty(10.0), cg.R1(1.0, every=3)],
        augment=cg.DiffAugment(),
        critic_steps=2,
        generator_optimizer=optimizer,
        critic_optimizer=optimizer,
        label_distribution="paired",
        dequantize=True,
        schedule="linear",
        precision=precision,
        engine=engine,
        device="cuda",
        callbacks=callbacks,
    )
    return trainer, data


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fit_on_cuda(precision):
    trainer, data = build(precision=precision)
    before = torch.cuda.get_rng_state()
    metrics = trainer.fit(data, steps=4, batch_size=8).metrics
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert metrics["critic/gradient_norm"] > 0
    x = trainer.sample([0, 1, 2], seed=0)
    assert x.is_cuda
    assert x.isfinite().all()
    assert torch.equal(x, trainer.sample([0, 1, 2], seed=0))
    assert {tensor.device.type for tensor in trainer.networks.critic.state_dict().values()} == {"cuda"}


def test_the_seed_of_a_cpu_trainer_leaves_cuda_alone():
    before = torch.cuda.get_rng_state()
    data = build()[1]
    cg.recipes.dcgan(data, base_channels=4, device="cpu", seed=3).fit(data, steps=1, batch_size=4)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    whole, data = build()
    whole.fit(data, steps=4, batch_size=8)

    class Stop(Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 2:
                trainer.request_stop("test")

    cut, _ = build(Stop(), cg.Checkpoint(tmp_path))
    cut.fit(data, steps=4, batch_size=8)
    resumed, _ = build()
    assert resumed.resume(tmp_path)
    resumed.fit(data, steps=4, batch_size=8)
    for part in ("generator", "critic", "ema"):
        one, other = (saved(trainer)[part] for trainer in (whole, resumed))
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4, msg=f"{part} {name}")
    for name in ("rng", "sample_rng"):
        assert torch.equal(saved(whole)[name], saved(resumed)[name])
    for kind in ("cpu", "cuda"):
        one, other = (saved(trainer)["default_rngs"][kind] for trainer in (whole, resumed))
        assert torch.equal(one, other)


def test_a_checkpoint_of_another_device_continues_with_a_warning(tmp_path):
    trainer, data = build()
    trainer.fit(data, steps=1, batch_size=8)
    trainer.save(tmp_path)
    settings = {**trainer.settings, "device": "cpu"}
    file = tmp_path / "checkpoint-000000001.pt"
    torch.save({**torch.load(file, weights_only=True), "settings": settings}, file)
    with pytest.warns(UserWarning, match="was written on cpu, got a trainer on cuda"):
        assert build()[0].resume(tmp_path)


# The first call of `set_sync_debug_mode` in a process warns that it is a prototype.
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", ["eager", "cuda_graph", "cuda_graph_iteration"])
def test_steps_do_not_wait_for_the_device(precision, engine):
    class ForbidWaiting(Callback):
        """Forbids synchronization from the end of the twelfth step, when all is recorded, to the end of the last."""

        def on_step_end(self, trainer):
            last = trainer.state.step == trainer.state.total_steps
            if trainer.state.step >= 12:
                torch.cuda.set_sync_debug_mode("default" if last else "error")

    trainer, data = build(ForbidWaiting(), precision=precision, engine=engine)
    try:
        trainer.fit(data, steps=18, batch_size=8)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.state.step == 18
    assert trainer.engine.name == engine


def assert_same(one: cg.Trainer, other: cg.Trainer, tolerance: float):
    for part in ("generator", "critic", "ema"):
        expected, values = (saved(trainer)[part] for trainer in (one, other))
        for name in expected:
            torch.testing.assert_close(values[name], expected[name], atol=tolerance, rtol=tolerance, msg=name)


@pytest.mark.parametrize("name", ["cuda_graph", "cuda_graph_iteration"])
def test_graphs_give_the_trajectory_of_eager_updates(name):
    eager, data = build(engine="eager", dtype=torch.float64)
    graphs, _ = build(engine=name, dtype=torch.float64)
    for trainer in (eager, graphs):
        trainer.fit(data, steps=20, batch_size=8)
    assert (eager.engine.name, graphs.engine.name) == ("eager", name)
    assert len(graphs.engine._captured) == 3, "as many kinds of updates as of iterations: a lazy term is due or rests"
    assert_same(eager, graphs, 1e-9)
    assert eager.read_metrics() == pytest.approx(graphs.read_metrics(), rel=1e-6)
    for state in ("rng", "default_rngs"):
        one, other = (tree_leaves(saved(trainer)[state]) for trainer in (eager, graphs))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["cuda_graph", "cuda_graph_iteration"])
def test_scheduled_decays_change_in_graphs(name):
    adam = cg.OptimizerConfig(lr=0.01, eps=0.01, betas=(0.0, cg.CosineSchedule(0.9, 0.99)))
    eager, data = build(engine="eager", dtype=torch.float64, optimizer=adam)
    graphs, _ = build(engine=name, dtype=torch.float64, optimizer=adam)
    for trainer in (eager, graphs):
        trainer.fit(data, steps=20, batch_size=8)
    assert graphs.engine.name == name
    assert_same(eager, graphs, 1e-9)


@pytest.mark.parametrize("name", ["cuda_graph", "cuda_graph_iteration"])
def test_graphs_move_the_state_of_terms(name):
    """Anchors, the strength of an augmentation and of the classes, and draws of a transformation."""

    def build(engine):
        rng = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (24, 1, 32, 32), dtype=torch.uint8, generator=rng)
        shape = {"num_classes": 3, "image_shape": (1, 32, 32), "base_channels": 8}
        torch.manual_seed(0)
        data = cg.data.ArrayDataset(images, [0, 1, 2] * 8)
        optimizer = cg.OptimizerConfig(lr=0.01, eps=0.01)
        trainer = cg.Trainer(
            cg.ResNetGenerator(latent_dim=8, **shape).double(),
            cg.ProjectionDCGANCritic(**shape).double(),
            loss=cg.HingeLoss(),
            regularizers=[
                cg.LeCam().double(),
                cg.ConsistencyRegularizer(0.1),
                cg.GroupSpectralRegularizer(class_counts=data.class_counts),
            ],
            augment=cg.AdaptiveAugment(-0.9, images=400),
            transition=(0.2, 0.9),
            generator_optimizer=optimizer,
            critic_optimizer=optimizer,
            engine=engine,
            device="cuda",
        )
        trainer.fit(data, steps=20, batch_size=8)
        assert trainer.engine.name == engine
        return trainer

    eager, graphs = build("eager"), build(name)
    assert_same(eager, graphs, 1e-9)
    for part in ("critic_regularizers", "augment"):
        expected, values = (saved(trainer)[part] for trainer in (eager, graphs))
        for key in expected:
            torch.testing.assert_close(values[key], expected[key], atol=1e-9, rtol=1e-9, msg=key)
    assert 0 < graphs.terms.augment.p < 1
    assert graphs.transition.strength == 1


@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.NAdam])
def test_graphs_take_any_optimizer_that_can_be_captured(optimizer):
    options = {"dtype": torch.float64, "optimizer": lambda parameters: optimizer(parameters, lr=1e-3, eps=0.01)}
    eager, data = build(engine="eager", **options)
    graphs, _ = build(engine="cuda_graph", **options)
    for trainer in (eager, graphs):
        trainer.fit(data, steps=20, batch_size=8)
    assert graphs.engine.name == "cuda_graph"
    assert_same(eager, graphs, 1e-9)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2)])
def test_graphs_give_the_updates_of_eager_ones_in_fast_kernels(precision, tolerance):
    """Tensor cores and kernels for channels last run in these precisions only. Steps are few: errors grow with them."""
    eager, data = build(engine="eager", precision=precision)
    graphs, _ = build(engine="cuda_graph", precision=precision)
    for trainer in (eager, graphs):
        trainer.fit(data, steps=5, batch_size=8)
    assert len(graphs.engine._captured) == 3
    assert_same(eager, graphs, tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("bf16", 0.15)])
def test_gradients_of_fast_kernels_are_near_those_of_float64(precision, tolerance):
    trainer, data = build(engine="eager", precision=precision)
    trainer.networks.critic.eval()  # without dropout
    inputs = trainer._make_sampler(data, 2**32).draw(Request(8))
    exact = Networks(
        copy.deepcopy(trainer.networks.generator).cpu().double(),
        copy.deepcopy(trainer.networks.critic).cpu().double(),
    )
    terms = replace(
        trainer.terms,
        critic_regularizers=[copy.deepcopy(r).cpu() for r in trainer.terms.critic_regularizers],
        precision="fp32",
    )
    for step in (critic_step, generator_step):
        found = step(trainer.networks, trainer.terms, inputs).gradients
        expected = step(exact, terms, on_cpu_in_float64(inputs)).gradients
        one, other = (torch.cat([g.double().cpu().flatten() for g in gradients]) for gradients in (expected, found))
        assert (one - other).norm() < tolerance * one.norm()


def on_cpu_in_float64(inputs: StepInputs) -> StepInputs:
    def move(value):
        if isinstance(value, torch.Tensor):
            return value.cpu().double() if value.is_floating_point() else value.cpu()
        return value

    return StepInputs(**{field.name: tree_map(move, getattr(inputs, field.name)) for field in fields(inputs)})


@pytest.mark.parametrize("name", ["cuda_graph", "cuda_graph_iteration"])
def test_graphs_are_captured_again_for_other_batches_and_after_resuming(tmp_path, name):
    eager, data = build(engine="eager", dtype=torch.float64)
    graphs, _ = build(engine=name, dtype=torch.float64)
    for trainer in (eager, graphs):
        trainer.fit(data, steps=12, batch_size=8)
        trainer.save(tmp_path / trainer.engine.name)
        trainer.fit(data, steps=24, batch_size=4, generator_batch_size=8)
        assert trainer.resume(tmp_path / trainer.engine.name)
        trainer.fit(data, steps=24, batch_size=8)
    assert graphs.engine.name == name
    assert_same(eager, graphs, 1e-9)


class ReadsBack(CriticRegularizer):
    def penalty(self, critic, batch):
        return batch.real.score.mean() * (1.0 if float(batch.real.score.detach().sum()) > 0 else 2.0)


def test_a_term_that_waits_for_the_device_falls_back_to_eager():
    rng = torch.Generator().manual_seed(0)
    data = cg.data.ArrayDataset(torch.randint(256, (24, 1, 16, 16), generator=rng).to(torch.uint8), [0, 1] * 12)
    shape = {"num_classes": 2, "image_shape": (1, 16, 16), "base_channels": 2}
    trainer = cg.Trainer(
        cg.DCGANGenerator(**shape),
        cg.DCGANCritic(dropout=0.2, **shape),
        loss=cg.HingeLoss(),
        regularizers=[ReadsBack(0.1)],
        engine="cuda_graph",
        device="cuda",
    )
    with pytest.warns(UserWarning, match=r"engine='eager': the update waits for the device .*test_cuda\.py"):
        trainer.fit(data, steps=6, batch_size=4)
    assert trainer.engine.name == "eager"


@pytest.mark.parametrize("engine", ["eager", "cuda_graph", "cuda_graph_iteration"])
def test_trainers_side_by_side_end_as_if_they_were_alone(engine):
    alone, data = build(engine=engine, dtype=torch.float64)
    alone.fit(data, steps=16, batch_size=8)
    together = [build(engine=engine, dtype=torch.float64)[0] for _ in range(3)]
    fit_together(together, data, steps=16, batch_size=8)
    for trainer in together:
        assert trainer.engine.name == engine
        assert_same(alone, trainer, 1e-9)
        assert torch.equal(saved(alone)["rng"], saved(trainer)["rng"])


def test_streamed_images_are_the_resident_ones():
    resident, data = build(dtype=torch.float64)
    streamed, _ = build(dtype=torch.float64)
    resident.fit(data, steps=8, batch_size=8)
    streamed.fit(data, steps=8, batch_size=8, max_resident_bytes=0)
    assert_same(resident, streamed, 1e-9)
    assert torch.equal(saved(resident)["rng"], saved(streamed)["rng"])
