"""CUDA graphs are tested where there is CUDA (test_cuda.py); here tapes of tensor operations stand in for them."""

import copy
import math
import warnings

import pytest
import torch

import condgan as cg
from condgan.regularizers import CriticRegularizer, GeneratorRegularizer
from condgan.schedules import value_at
from condgan.training import engines, fit_together
from condgan.training.engines import CudaGraphEngine, Engine, fastest_convolutions, make_engine
from condgan.training.optimizer import Updater
from fake_cuda import FakeCuda
from saved import assert_same, assert_same_networks, saved


@pytest.fixture(autouse=True)
def learning_rates_are_tensors(monkeypatch):
    """As on CUDA."""

    original = cg.OptimizerConfig.build

    def build(config, parameters):
        if any(map(callable, config.betas)):
            return original(config, parameters)
        return torch.optim.Adam(
            list(parameters), lr=torch.tensor(value_at(config.lr, 0.0)), betas=config.betas, fused=True
        )

    monkeypatch.setattr(cg.OptimizerConfig, "build", build)


@pytest.fixture
def fake_cuda(request, monkeypatch):
    """CUDA as in PyTorch before 2.12, which leaves more to its callers, or as in later versions."""
    old = getattr(request, "param", True)
    monkeypatch.setattr(engines, "_OLD_GRAPHS", old)
    return FakeCuda(old=old).install(monkeypatch)


old_and_new = pytest.mark.parametrize("fake_cuda", [True, False], ids=["before 2.12", "from 2.12"], indirect=True)


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
        "label_distribution": "paired",
        "schedule": "linear",
        "dequantize": True,
        "device": "cpu",
    }
    return cg.Trainer(generator.double(), critic.double(), **{**defaults, **options})


def taped(trainer: cg.Trainer, *, iterations: bool = False) -> cg.Trainer:
    """Let a trainer on the CPU run on graphs that are tapes."""
    trainer.engine = CudaGraphEngine(torch.device("cuda", 0), rngs=(trainer._rng,), iterations=iterations)
    return trainer


@pytest.mark.parametrize("networks", NETWORKS)
def test_captured_updates_give_the_trajectory_of_eager_ones(networks, tiny_images, fake_cuda):
    eager, recorded = make_trainer(networks), taped(make_trainer(networks))
    for trainer in (eager, recorded):
        trainer.fit(tiny_images, steps=12, batch_size=4)
    assert_same_networks(eager, recorded)
    assert eager.read_metrics() == recorded.read_metrics()
    assert fake_cuda.recordings == 3, "critic, critic with the lazy term, generator"
    assert recorded.engine.name == "cuda_graph"


@pytest.mark.parametrize(
    "optimizer", [cg.OptimizerConfig(lr=0.1), lambda p: torch.optim.RMSprop(p, lr=0.1)], ids=["Adam", "RMSprop"]
)
def test_weights_are_clamped_in_captured_updates_too(optimizer, tiny_images, fake_cuda):
    clipping = cg.WeightClipping(optimizer, limit=0.2)
    eager, recorded = (make_trainer(critic_optimizer=clipping, schedule="constant") for _ in range(2))
    for trainer in (eager, taped(recorded)):
        trainer.fit(tiny_images, steps=8, batch_size=4)
    assert_same_networks(eager, recorded)
    assert recorded.engine.name == "cuda_graph"
    assert max(weight.detach().abs().max() for weight in recorded.networks.critic.parameters()) == 0.2


SCHEDULED = {
    "regularizers": [cg.R1(cg.CosineSchedule(2.0, 0.2)), cg.R2(cg.CosineSchedule(2.0, 0.2), every=3)],
    "schedule": cg.CosineSchedule(1.0, 0.25),
    **dict.fromkeys(
        ("generator_optimizer", "critic_optimizer"), cg.OptimizerConfig(betas=(0.0, cg.CosineSchedule(0.9, 0.99)))
    ),
}


@pytest.mark.parametrize("iterations", [False, True])
def test_scheduled_numbers_change_in_captured_updates_as_in_eager_ones(iterations, tiny_images, fake_cuda):
    eager, recorded = (make_trainer(**copy.deepcopy(SCHEDULED)) for _ in range(2))
    constant = make_trainer(regularizers=[cg.R1(2.0), cg.R2(2.0, every=3)])
    taped(recorded, iterations=iterations)
    for trainer in (eager, recorded, constant):
        trainer.fit(tiny_images, steps=15, batch_size=4)
    assert recorded.engine.name == ("cuda_graph_iteration" if iterations else "cuda_graph")
    assert_same_networks(eager, recorded)
    one, other = (next(trainer.networks.critic.parameters()) for trainer in (eager, constant))
    assert not torch.equal(one, other)


def make_pretrained(**options) -> cg.Trainer:
    """A trainer whose critic begins halfway, and numbers that change on both sides."""
    torch.manual_seed(0)
    rate = cg.PiecewiseLinearSchedule([(0.0, 1e-4), (0.2, 1e-3), (1.0, 0.0)])
    defaults = {
        "loss": cg.HingeLoss(),
        "regularizers": [cg.FlowMatching(cg.CosineSchedule(10.0, 1.0)), cg.R1(1.0)],
        "pretraining": 0.5,
        "transition": (0.2, 0.7),
        "generator_optimizer": cg.OptimizerConfig(lr=rate),
        "schedule": "linear",
        "device": "cpu",
    }
    critic = cg.ProjectionDCGANCritic(dropout=0.2, **SHAPE)
    return cg.Trainer(cg.FlowGenerator(**SHAPE).double(), critic.double(), **{**defaults, **options})


@pytest.mark.parametrize("iterations", [False, True])
def test_updates_before_and_after_the_critic_joins_are_captured(iterations, tiny_images, fake_cuda):
    eager, recorded = make_pretrained(), taped(make_pretrained(), iterations=iterations)
    for trainer in (eager, recorded):
        trainer.fit(tiny_images, steps=10, batch_size=4)
    assert recorded.engine.name == ("cuda_graph_iteration" if iterations else "cuda_graph")
    assert fake_cuda.recordings == (2 if iterations else 3)
    assert eager.read_metrics() == recorded.read_metrics()
    assert_same(saved(eager), saved(recorded))


def test_a_captured_run_resumes_from_before_the_critic_joins(tmp_path, tiny_images, fake_cuda):
    whole = make_pretrained()
    whole.fit(tiny_images, steps=12, batch_size=4)
    stopping = cg.Evaluate(lambda trainer: trainer.request_stop("test") or {}, every=5)
    cut = taped(make_pretrained(callbacks=[stopping, cg.Checkpoint(tmp_path, every=5)]), iterations=True)
    cut.fit(tiny_images, steps=12, batch_size=4)
    assert cut.state.step == 5
    assert cut.resume(tmp_path)
    cut.callbacks = ()
    cut.fit(tiny_images, steps=12, batch_size=4)
    assert_same(saved(whole), saved(cut))


def test_batches_of_another_size_are_captured_again(tiny_images, fake_cuda):
    eager, recorded = make_trainer(), taped(make_trainer())
    for trainer in (eager, recorded):
        trainer.fit(tiny_images, steps=12, batch_size=4)
        trainer.fit(tiny_images, steps=24, batch_size=6, generator_batch_size=8)
    assert_same_networks(eager, recorded)
    assert fake_cuda.recordings == 6


def test_a_resumed_run_is_captured_again(tmp_path, tiny_images, fake_cuda):
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
        assert_same_networks(whole, resumed)


class ReadsBack(CriticRegularizer):
    def penalty(self, critic, batch):
        return batch.real.score.square().mean() * (1.0 if float(batch.real.score.detach().sum()) > 0 else 2.0)


@old_and_new
def test_a_term_that_cannot_be_captured_falls_back_with_one_warning(tiny_images, fake_cuda):
    eager, recorded = (make_trainer(regularizers=[ReadsBack(0.1)]) for _ in range(2))
    taped(recorded)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recorded.fit(tiny_images, steps=8, batch_size=4)
    assert [str(w.message) for w in caught] == [
        "training goes on with engine='eager': the update cannot be captured "
        "(CUDA error: operation failed due to a previous error during capture)."
    ]
    assert recorded.engine.name == "eager"
    assert fake_cuda.is_idle, "stream, allocator and generators are out of the recording"
    eager.fit(tiny_images, steps=8, batch_size=4)
    assert_same_networks(eager, recorded)


@pytest.mark.parametrize("lazy", [True, False])
def test_metrics_survive_the_replay_of_other_graphs(lazy, tiny_images, fake_cuda):
    """A graph has its temporary tensors where graphs that were recorded later leave their results."""
    seen = {"eager": [], "cuda_graph": []}

    class Read(cg.Callback):
        def on_critic_step_end(self, trainer):
            seen[trainer.engine.name].append(dict(trainer.read_metrics()))

    terms = [cg.GradientPenalty(10.0), *([cg.R1(1.0, every=3)] if lazy else [])]
    for trainer in (taped(make_trainer(regularizers=terms)), make_trainer(regularizers=terms)):
        trainer.fit(tiny_images, steps=12, batch_size=4)
        name = trainer.engine.name
        seen[name].append(trainer.read_metrics())
        trainer.callbacks = (Read(),)
        trainer.fit(tiny_images, steps=16, batch_size=4)
    assert len(seen["eager"]) == 9
    assert seen["eager"] == seen["cuda_graph"]
    assert not any(math.isnan(value) for row in seen["eager"] for value in row.values())


@old_and_new
@pytest.mark.filterwarnings("ignore:training continues in another way:UserWarning")
@pytest.mark.parametrize("critic_steps", [2, 5])
def test_recording_goes_on_after_a_resume(critic_steps, tmp_path, tiny_images, fake_cuda):
    """Gradients of the forgotten graphs still lie in their pool, which then takes no other graph."""
    options = {"regularizers": [cg.GradientPenalty(10.0)], "critic_steps": critic_steps}
    whole, recorded = make_trainer(**options), taped(make_trainer(**options))
    for trainer in (whole, recorded):
        trainer.fit(tiny_images, steps=6, batch_size=4)
    recorded.save(tmp_path)
    recorded.fit(tiny_images, steps=8, batch_size=4)
    assert recorded.resume(tmp_path)
    for trainer in (whole, recorded):
        trainer.fit(tiny_images, steps=12, batch_size=4)
    assert recorded.engine.name == "cuda_graph"
    assert fake_cuda.is_idle
    assert_same_networks(whole, recorded)


class Fails(CriticRegularizer):
    """Fails in a recording, for a reason of Python's."""

    calls = 0

    def penalty(self, critic, batch):
        self.calls += 1
        if self.calls == 4:
            raise RuntimeError("a bug in a term")
        return batch.real.score.mean()


@old_and_new
def test_a_term_that_fails_in_a_capture_leaves_nothing_behind(tiny_images, fake_cuda):
    trainer = taped(make_trainer(regularizers=[Fails(0.1)]))
    with pytest.warns(UserWarning, match=r"engine='eager': the update cannot be captured \(a bug in a term\)"):
        trainer.fit(tiny_images, steps=6, batch_size=4)
    assert fake_cuda.is_idle


def test_what_python_computes_stays_as_it_was(tiny_images, fake_cuda):
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
        assert_same_networks(eager, recorded)


class RunningMeanScore(CriticRegularizer):
    """A term with state on the device."""

    def __init__(self, weight, *, every=1):
        super().__init__(weight, every=every)
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def penalty(self, critic, batch):
        self.mean.lerp_(batch.real.score.detach().mean(), 0.1)
        return (batch.real.score - self.mean).square().mean()


class FakeMagnitude(GeneratorRegularizer):
    def penalty(self, generator, batch):
        return batch.x_fake.square().mean()


def lazy(**options) -> dict:
    """Terms that are due at different times: every third update of the critic, every second of the generator."""
    terms = [cg.GradientPenalty(10.0), cg.R1(1.0, every=3), RunningMeanScore(0.1), FakeMagnitude(0.1, every=2)]
    return {"regularizers": terms, **options}


@pytest.mark.parametrize(
    ("networks", "options", "steps", "kinds"),
    [
        ("dcgan", lazy(), 30, 6),
        (
            "resnet, spectral norm",
            {"augment": cg.AdaptiveAugment(-0.9, images=200, relative=True)},
            16,
            3,
        ),
        (
            "dcgan",
            {"regularizers": [cg.LeCam().double(), cg.ConsistencyRegularizer(0.1)], "transition": (0.2, 0.9)},
            8,
            1,
        ),
        (
            "resnet, spectral norm",
            {"loss": cg.RelativisticLoss(), "regularizers": [cg.R1(0.1), cg.R2(0.1), cg.DraganPenalty()]},
            6,
            1,
        ),
        (
            "dcgan",
            {
                "critic_steps": 1,
                "augment": None,
                "label_distribution": cg.Tempered(0.5),
                "sampling": cg.Tempered(0.5),
                "regularizers": [],
            },
            6,
            1,
        ),
    ],
    ids=[
        "lazy terms",
        "adaptive augmentation",
        "anchors and a transformation",
        "real images and noise",
        "other distributions",
    ],
)
def test_captured_iterations_give_the_trajectory_of_eager_ones(networks, options, steps, kinds, tiny_images, fake_cuda):
    eager = make_trainer(networks, **copy.deepcopy(options))
    recorded = taped(make_trainer(networks, **copy.deepcopy(options)), iterations=True)
    for trainer in (eager, recorded):
        trainer.fit(tiny_images, steps=steps, batch_size=4, generator_batch_size=6)
    assert recorded.engine.name == "cuda_graph_iteration"
    assert fake_cuda.recordings == kinds
    assert eager.read_metrics() == recorded.read_metrics()
    assert_same(saved(eager), saved(recorded))


def test_a_run_of_captured_iterations_resumes_exactly(tmp_path, tiny_images, fake_cuda):
    whole = make_trainer(**lazy())
    whole.fit(tiny_images, steps=40, batch_size=4)
    stopping = cg.Evaluate(lambda trainer: trainer.request_stop("test") or {}, every=27)
    cut = taped(make_trainer(**lazy(callbacks=[stopping, cg.Checkpoint(tmp_path, every=27)])), iterations=True)
    cut.fit(tiny_images, steps=40, batch_size=4)
    assert cut.state.step == 27
    for resumed in (make_trainer(**lazy()), taped(make_trainer(**lazy()), iterations=True), cut):
        assert resumed.resume(tmp_path)
        resumed.callbacks = ()
        resumed.fit(tiny_images, steps=40, batch_size=4)
        assert_same(saved(whole), saved(resumed))
    assert cut.engine.name == "cuda_graph_iteration"


def test_captured_iterations_of_several_trainers_take_turns(tiny_images, fake_cuda):
    eager = make_trainer()
    eager.fit(tiny_images, steps=15, batch_size=4)
    together = [taped(make_trainer(), iterations=True) for _ in range(2)]
    fit_together(together, tiny_images, steps=15, batch_size=4)
    for recorded in together:
        assert recorded.engine.name == "cuda_graph_iteration"
        assert_same(saved(eager), saved(recorded))


def test_iterations_are_captured_again_for_each_call_of_fit(tiny_images, fake_cuda):
    """They hold on to the places of the images and of the distributions that they draw from."""
    eager, recorded = make_trainer(), taped(make_trainer(), iterations=True)
    for trainer in (eager, recorded):
        trainer.fit(tiny_images, steps=15, batch_size=4)
        trainer.fit(tiny_images, steps=30, batch_size=6, generator_batch_size=8)
    assert_same(saved(eager), saved(recorded))
    assert recorded.engine.name == "cuda_graph_iteration"
    assert fake_cuda.recordings == 6


def test_captured_iterations_find_the_first_bad_step(tiny_images, fake_cuda):
    class Explode(cg.Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 21:
                with torch.no_grad():
                    next(trainer.networks.critic.parameters()).fill_(math.nan)

    for trainer in (make_trainer(callbacks=[Explode()]), taped(make_trainer(callbacks=[Explode()]), iterations=True)):
        with pytest.raises(cg.TrainingDivergedError, match="in step 21"):
            trainer.fit(tiny_images, steps=24, batch_size=4)


class BetweenUpdates(cg.Callback):
    def on_critic_step_end(self, trainer):
        pass


@pytest.mark.parametrize(
    ("options", "fit_options", "reason"),
    [
        ({"callbacks": [cg.Callback(), BetweenUpdates()]}, {}, "BetweenUpdates is called between the updates"),
        ({}, {"max_resident_bytes": 0}, r"images that are not on the device .* \(see max_resident_bytes\)"),
    ],
)
def test_what_stands_against_whole_iterations_leaves_graphs_of_updates(
    options, fit_options, reason, tiny_images, fake_cuda
):
    eager, recorded = make_trainer(), taped(make_trainer(**options), iterations=True)
    eager.fit(tiny_images, steps=12, batch_size=4)
    with pytest.warns(UserWarning, match=f"goes on with engine='cuda_graph': {reason}") as caught:
        recorded.fit(tiny_images, steps=12, batch_size=4, **fit_options)
    assert len(caught) == 1
    assert fake_cuda.recordings == 3
    assert recorded.engine.name == "cuda_graph"
    assert_same_networks(eager, recorded)


@old_and_new
def test_an_iteration_that_cannot_be_captured_falls_back_step_by_step(tiny_images, fake_cuda):
    eager, recorded = make_trainer(regularizers=[ReadsBack(0.1)]), make_trainer(regularizers=[ReadsBack(0.1)])
    taped(recorded, iterations=True)
    with pytest.warns(UserWarning, match="goes on with engine=") as caught:
        recorded.fit(tiny_images, steps=12, batch_size=4)
    assert [str(w.message).split("'")[1] for w in caught] == ["cuda_graph", "eager"]
    assert fake_cuda.is_idle
    eager.fit(tiny_images, steps=12, batch_size=4)
    assert_same(saved(eager), saved(recorded))


def test_a_source_of_draws_that_a_recording_does_not_know_is_left_usable(tiny_images, fake_cuda):
    """A recording that stops among the draws leaves them where they were."""
    eager, recorded = make_trainer(), make_trainer()
    recorded.engine = CudaGraphEngine(torch.device("cuda", 0), iterations=True)
    eager.fit(tiny_images, steps=12, batch_size=4)
    with pytest.warns(UserWarning, match=r"'cuda_graph': the update cannot be captured \(Attempt to increase offset"):
        recorded.fit(tiny_images, steps=12, batch_size=4)
    assert recorded.engine.name == "cuda_graph"
    assert_same(saved(eager), saved(recorded))


def test_auto_is_eager_on_the_cpu():
    assert make_trainer().engine.name == "eager"
    assert isinstance(make_engine("auto", torch.device("cpu")), Engine)


@pytest.mark.parametrize("name", ["cuda_graph", "cuda_graph_iteration"])
def test_cuda_graphs_without_cuda_fall_back(name):
    with pytest.warns(UserWarning, match=r"goes on with engine='eager': CUDA graphs need a CUDA device, got cpu\."):
        assert make_trainer(engine=name).engine.name == "eager"


@pytest.mark.parametrize("name", ["auto", "cuda_graph", "cuda_graph_iteration"])
def test_an_optimizer_that_cannot_be_captured_runs_eagerly_and_says_so_once(name):
    weight = torch.nn.Linear(2, 1)
    plain = Updater("critic", weight, lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
    with pytest.warns(UserWarning, match="'eager': steps of SGD cannot be captured: it has no option") as caught:
        engine = make_engine(name, torch.device("cuda"), obstacle=plain.obstacle_to_graphs)
    assert len(caught) == 1
    assert engine.name == "eager"
    assert make_engine("eager", torch.device("cuda"), obstacle=plain.obstacle_to_graphs).name == "eager"
    for optimizer in (torch.optim.RMSprop, torch.optim.Adam, torch.optim.NAdam):
        assert Updater("critic", weight, optimizer).obstacle_to_graphs is None


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match=r"engine must be among auto, .*cuda_graph_iteration, .*got 'fast'"):
        make_trainer(engine="fast")


@pytest.fixture
def flags_are_put_back(monkeypatch):
    for name in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))


@pytest.mark.usefixtures("flags_are_put_back")
@pytest.mark.parametrize("before", [True, False])
def test_cudnn_searches_while_a_trainer_updates_on_cuda(before):
    torch.backends.cudnn.benchmark = before
    with fastest_convolutions(torch.device("cuda")):
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark is before
    with fastest_convolutions(torch.device("cpu")):
        assert torch.backends.cudnn.benchmark is before


@pytest.mark.usefixtures("flags_are_put_back")
@pytest.mark.parametrize("how", ["flag", "algorithms"])
def test_cudnn_does_not_search_where_determinism_is_asked_for(how):
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = how == "flag"
    torch.use_deterministic_algorithms(how == "algorithms")
    try:
        with fastest_convolutions(torch.device("cuda")):
            assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)
