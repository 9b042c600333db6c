"""Two processes against one. This file is also the program that the processes run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import condgan as cg
from condgan.distributed import any_process, average, broadcast, shard
from condgan.training import Callback

STEPS = 3


def build(
    *callbacks: Callback, network_seed: int = 0, seed: int = 0, lr: float = 2e-4
) -> tuple[cg.Trainer, cg.data.ArrayDataset]:
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8, generator=rng)
    data = cg.data.ArrayDataset(images, [0, 1, 2] * 8)
    shape = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 2}
    torch.manual_seed(network_seed)
    trainer = cg.Trainer(
        cg.ResNetGenerator(latent_dim=4, **shape).double(),
        cg.ACResNetCritic(**shape).double(),
        loss=cg.WassersteinLoss(),
        auxiliary=cg.AuxiliaryClassifierLoss(),
        regularizers=[cg.GradientPenalty(10.0), cg.LeCam().double(), cg.ConsistencyRegularizer(0.1)],
        augment=cg.AdaptiveAugment(-0.9, images=60, every=2, relative=True).double(),
        critic_steps=2,
        label_distribution="paired",
        dequantize=True,
        schedule="linear",
        generator_optimizer=cg.OptimizerConfig(lr=lr),
        critic_optimizer=cg.WeightClipping(cg.OptimizerConfig(), limit=0.3),
        device="cpu",
        seed=seed,
        callbacks=callbacks,
    )
    return trainer, data


def pretrain(network_seed: int = 0) -> cg.Trainer:
    """Train a generator without a critic, and then with one."""
    _, data = build()
    shape = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 2}
    torch.manual_seed(network_seed)
    trainer = cg.Trainer(
        cg.FlowGenerator(**shape).double(),
        cg.ProjectionDCGANCritic(**shape).double(),
        loss=cg.HingeLoss(),
        regularizers=[cg.FlowMatching()],
        pretraining=0.5,
        device="cpu",
    )
    trainer.fit(data, steps=4, batch_size=8)
    return trainer


class OnOneRank(Callback):
    """Does something at the end of a step in one of the processes only."""

    def __init__(self, rank, step, action):
        super().__init__()
        self.rank, self.step, self.action = rank, step, action

    def on_step_end(self, trainer):
        if dist.get_rank() == self.rank and trainer.state.step == self.step:
            self.action(trainer)


def interrupt(trainer):
    os.kill(os.getpid(), signal.SIGINT)


def refusal(rank: int, name: str) -> str:
    """Train with something of its own on the second rank, and return the error."""
    own = rank == 1
    trainer, data = build(seed=int(own and name == "seed"), lr=1e-3 if own and name == "generator_optimizer" else 2e-4)
    if own and name == "data":
        data = cg.data.ArrayDataset(data.images.flip(0), data.labels)
    trainer.state.step += own and name == "step"  # as if the other rank had found no checkpoint
    with pytest.raises(ValueError, match="all processes must train alike") as error:
        trainer.fit(data, steps=2, batch_size=8 if own and name == "batch_size" else 4)
    return str(error.value)


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=(folder / "rendezvous").as_uri(), rank=rank, world_size=2)
    # Other initial weights in each process: fit must bring them together.
    trainer, data = build(cg.CSVLogger(folder / "log.csv", every=1), network_seed=rank)
    trainer.fit(data, steps=STEPS, batch_size=8, generator_batch_size=12)
    trainer.save(folder / "run")
    result = {
        "generator": trainer.networks.generator.state_dict(),
        "critic": trainer.networks.critic.state_dict(),
        "ema": trainer.ema.state_dict(),
        "terms": trainer.terms.critic_regularizers[1].state_dict() | trainer.terms.augment.state_dict(),
        "samples": trainer.sample([0, 1, 2], seed=0),
        "metrics": trainer.state.metrics,
    }
    dist.barrier()
    resumed, _ = build(network_seed=rank)
    resumed.resume(folder / "run")
    result["resumed"] = resumed.sample([0, 1, 2], seed=0)

    pretrained = pretrain(network_seed=rank)
    result["pretrained"] = {**pretrained.networks.generator.state_dict(), **pretrained.networks.critic.state_dict()}
    result["pretrained_metrics"] = pretrained.state.metrics

    with pytest.raises(ValueError, match="must be a multiple of 2, the number of processes, got 7"):
        build()[0].fit(data, steps=1, batch_size=7)
    result["refused"] = [refusal(rank, name) for name in ("seed", "generator_optimizer", "data", "batch_size", "step")]
    stopped, _ = build(OnOneRank(1, 2, lambda trainer: trainer.request_stop("only here")))
    result["stopped"] = stopped.fit(data, steps=99, batch_size=4).step
    interrupted, _ = build(OnOneRank(1, 1, interrupt), cg.Checkpoint(folder / "interrupted"))
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(data, steps=99, batch_size=4)
    result["interrupted"] = interrupted.state.step
    torch.save(result, folder / f"result-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    source = Path(cg.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stderr.close()
    return folder, [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow  # guards training in several processes, which are started here
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes_equal_one_on_the_global_batch(results, tmp_path):
    folder, (first, second) = results
    trainer, data = build(cg.CSVLogger(tmp_path / "log.csv", every=1))
    start = {name: value.clone() for name, value in trainer.networks.critic.state_dict().items()}
    trainer.fit(data, steps=STEPS, batch_size=8, generator_batch_size=12)
    terms = trainer.terms.critic_regularizers[1].state_dict() | trainer.terms.augment.state_dict()
    assert 0 < terms["p"] < 1
    assert terms["updates"] == 2 * STEPS
    for part, state in (
        ("generator", trainer.networks.generator.state_dict()),
        ("critic", trainer.networks.critic.state_dict()),
        ("ema", trainer.ema.state_dict()),
        ("terms", terms),
    ):
        for name, value in state.items():
            assert torch.equal(first[part][name], second[part][name]), (part, name)
            torch.testing.assert_close(first[part][name], value, atol=1e-10, rtol=1e-10, msg=f"{part} {name}")
    moved = [name for name, value in start.items() if not torch.isclose(value, first["critic"][name]).all()]
    assert len(moved) > len(start) // 2
    torch.testing.assert_close(first["samples"], trainer.sample([0, 1, 2], seed=0), atol=1e-9, rtol=1e-9)
    assert torch.equal(first["samples"], second["samples"])
    assert first["metrics"] == pytest.approx(trainer.state.metrics, rel=1e-5)
    rows = (folder / "log.csv").read_text().splitlines()
    assert len(rows) == 1 + STEPS


@pytest.mark.slow  # guards training in several processes, which are started here
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes_end_and_resume_together(results):
    _, (first, second) = results
    assert torch.equal(first["resumed"], first["samples"])
    assert torch.equal(second["resumed"], first["samples"])
    assert first["stopped"] == second["stopped"] == 2
    assert first["interrupted"] == second["interrupted"] == 1
    assert [path.name for path in (results[0] / "interrupted").iterdir()] == ["checkpoint-000000001.pt"]


@pytest.mark.slow  # guards training in several processes, which are started here
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_both_processes_refuse_what_only_one_of_them_was_given(results):
    _, (first, second) = results
    assert first["refused"] == second["refused"]
    seed, optimizer, data, size, step = first["refused"]
    assert "got seed 0 (rank 0), 1 (rank 1). " in seed
    assert "0.0002" in optimizer
    assert "0.001" in optimizer
    assert "got data " in data
    assert "got batch_size 4 (rank 0), 8 (rank 1); generator_batch_size 4 (rank 0), 8 (rank 1). " in size
    assert "got step 0 (rank 0), 1 (rank 1). " in step


@pytest.mark.slow  # guards training in several processes, which are started here
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes_equal_one_without_a_critic_and_with_one(results):
    _, (first, second) = results
    trainer = pretrain()
    expected = {**trainer.networks.generator.state_dict(), **trainer.networks.critic.state_dict()}
    for name, value in expected.items():
        assert torch.equal(first["pretrained"][name], second["pretrained"][name]), name
        torch.testing.assert_close(first["pretrained"][name], value, atol=1e-9, rtol=1e-9, msg=name)
    assert first["pretrained_metrics"] == pytest.approx(trainer.state.metrics, rel=1e-5)


def test_a_single_process_is_its_own_world():
    assert shard(7) == slice(0, 7)
    tensors = [torch.rand(2), torch.rand(3, 1)]
    kept = [tensor.clone() for tensor in tensors]
    assert all(torch.equal(a, b) for a, b in zip(average(tensors), kept, strict=True))
    broadcast(tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, kept, strict=True))
    assert any_process(True, torch.device("cpu"))
    assert not any_process(False, torch.device("cpu"))


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
