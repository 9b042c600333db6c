"""The benchmark of speed compares what computes the same, and counts right."""

import json
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from condgan.training.step import critic_step, generator_step
from condgan.types import StepInputs

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "speed"
INEXACT = ("bf16", "one_power_iteration")
EXACT = (
    "no_grad_fakes",
    "one_forward",
    "no_zero_second_derivatives",
    "weight_gradients",
    "resized_weights",
    "frozen_critic",
    "fused_adam",
    "channels_last",
    "foreach_average",
    "nothing_read",
    "draws_on_device",
)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_every_saving_is_measured_and_tested(load):
    savings, tutorial = load("savings"), load("tutorial")
    assert sorted((*EXACT, *INEXACT)) == sorted(savings.SAVINGS)
    loops = {loop for saving in savings.SAVINGS.values() for loop in (saving.saved, saving.plain)}
    assert loops == {v for v in vars(tutorial).values() if isinstance(v, type) and issubclass(v, tutorial.TutorialLoop)}


@pytest.mark.parametrize("kind", ["dcgan", "resnet"])
@pytest.mark.parametrize("saving", ["none", *EXACT])
def test_exact_savings_have_the_gradients_of_the_library(load, float64, kind, saving):
    subjects, savings, tutorial = load("subjects"), load("savings"), load("tutorial")
    config = subjects.Config(kind, 16, 4, 3)
    loop = (savings.SAVINGS[saving].saved if saving != "none" else tutorial.TutorialLoop).of(config, "cpu")
    trainer = subjects.make_trainer(kind, 16, base=4, device="cpu")

    torch.manual_seed(1)
    (x, y), z, epsilon = loop.real(), loop.latents(), torch.rand(3, 1, 1, 1)
    inputs = StepInputs(x=x, y=y, z=z, y_fake=y, epsilon=epsilon.flatten())
    expected = critic_step(trainer.networks, trainer.terms, inputs)
    torch.manual_seed(1)
    loss = loop.critic_step()
    check_gradients(loop.critic, expected.gradients)
    terms = ("adversarial", "auxiliary_classifier", "gradient_penalty")
    assert loss == pytest.approx(float(sum(expected.metrics[f"critic/{term}"] for term in terms)))

    trainer.networks.critic.load_state_dict(loop.critic.state_dict())
    torch.manual_seed(2)
    z, y = loop.latents(), torch.randint(2, (3,))
    inputs = StepInputs(x=None, y=None, z=z, y_fake=y, epsilon=epsilon.flatten())
    expected = generator_step(trainer.networks, trainer.terms, inputs)
    torch.manual_seed(2)
    loop.generator_step()
    check_gradients(loop.generator, expected.gradients)


def check_gradients(network, expected):
    for (name, parameter), gradient in zip(network.named_parameters(), expected, strict=True):
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(own, gradient, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("saving", "of"), [("fused_adam", "critic"), ("foreach_average", "averaged")])
def test_one_call_for_all_weights_changes_them_as_one_for_each(load, float64, saving, of):
    subjects, savings = load("subjects"), load("savings")
    states = []
    for loop in (savings.SAVINGS[saving].saved, savings.SAVINGS[saving].plain):
        made = loop.of(subjects.Config("dcgan", 16, 4, 3), "cpu")
        torch.manual_seed(1)
        made.repeat(2)
        states.append(getattr(made, of).state_dict())
    torch.testing.assert_close(*states)


def test_spectral_norms_iterate_once_where_they_are_read_once(load):
    subjects, savings = load("subjects"), load("savings")
    loops = savings.make_loops(subjects.Config("dcgan", 16, 4, 3), savings.SAVINGS, "cpu")
    for name, times in (("OnePowerIterationSpectralNorm", 1), ("TutorialLoopSpectralNorm", 3)):
        calls = []
        spectral_norm = loops[name].critic.blocks[0].conv.parametrizations.weight[0]
        spectral_norm.register_forward_hook(lambda *_args, calls=calls: calls.append(1))
        loops[name].critic_step()
        assert len(calls) == times


def test_operations_of_a_convolution_and_its_derivatives(load):
    counting = load("counting")
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    weight = torch.randn(5, 3, 4, 4, requires_grad=True)
    once = 2 * (2 * 5 * 4 * 4) * (3 * 4 * 4)  # two operations for each output and each weight that it sees

    def operations(run):
        return counting.total_operations(counting.count(run))

    def convolve():
        return F.conv2d(x, weight, stride=2, padding=1)

    def penalty():
        (gradient,) = torch.autograd.grad(convolve().square().sum(), x, create_graph=True)
        return gradient.square().sum()

    assert operations(convolve) == once
    assert operations(lambda: torch.autograd.grad(convolve().sum(), [x, weight])) == 3 * once
    assert operations(penalty) == 2 * once
    # Forward, input gradient; then of the input gradient the derivatives with respect to the weight and to the output's
    # gradient, and of the output the derivative with respect to the weight.
    assert operations(lambda: torch.autograd.grad(penalty(), weight)) == 5 * once


def test_operations_of_a_product_and_the_work_of_an_iteration(load):
    counting, subjects = load("counting"), load("subjects")
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert counting.total_operations(counting.count(lambda: a @ b)) == 2 * 3 * 4 * 5

    config = subjects.Config("dcgan", 16, 4, 4)
    ours = subjects.Ours(config, "cpu", engine="eager")
    ours(1)
    once, thrice = (counting.count(lambda times=times: ours(times)) for times in (1, 3))
    iteration = counting.count_iteration(ours)
    assert thrice - once == iteration + iteration


def test_bytes_are_those_read_and_written_once(load):
    counting = load("counting")
    a, b, row = torch.ones(10, 4), torch.ones(10, 4), torch.ones(4)

    def moved(run):
        return counting.total_bytes(counting.count(run))

    assert moved(lambda: a + b) == 3 * 160
    assert moved(lambda: a.add_(b)) == 3 * 160
    assert moved(lambda: a + row.expand(10, 4)) == 2 * 160 + 16
    assert moved(lambda: a.copy_(b)) == 2 * 160
    assert moved(a.zero_) == 160
    assert moved(lambda: torch._foreach_add_([a, b], [b, a])) == 6 * 160
    assert moved(lambda: a.view(40).t().detach()) == 0
    assert moved(lambda: a[torch.tensor([1])]) == 2 * 16
    assert moved(lambda: torch.empty(100)) == 0


def test_the_bound_takes_the_slower_of_computing_and_moving(load):
    counting, roofline = load("counting"), load("roofline")
    rates = roofline.Rates({torch.float32: 100.0, torch.bfloat16: 400.0}, bytes=10.0)
    operators = {
        counting.Operator("mm", 200, 10, torch.float32): 3,  # 2 s against 1 s
        counting.Operator("mm", 200, 10, torch.bfloat16): 1,  # 0.5 s against 1 s
        counting.Operator("add", 0, 5, torch.int64): 2,
    }
    assert rates.bound(operators) == pytest.approx(3 * 2 + 1 + 2 * 0.5)


def test_what_is_too_slow_is_listed(load):
    timing = load("timing")
    part, budget = timing.Part(), timing.Budget(limit=1e-9)
    with timing.or_left_out(part, {"batch_size": 1}):
        budget.foresee(1)
        budget.start(lambda _times: None, "cpu")
    with timing.or_left_out(part, {"batch_size": 2}):
        budget.foresee(2)
    first, second = part.left_out
    assert first["reason"] == "too slow"
    assert second == {
        "batch_size": 2,
        "reason": "foreseen to be too slow",
        "seconds": pytest.approx(2 * first["seconds"]),
    }


def test_names_of_ratios(load):
    subjects = load("subjects")
    assert subjects.Config("dcgan", 64, 64, 16).name("iteration", "fp32") == "iteration_fp32_b16"
    assert subjects.Config("resnet", 128, 32, 64).name("iteration", "bf16") == "iteration_resnet_128px_bf16_b64"


def test_the_command_writes_what_it_promises_and_completes_it(load, tmp_path, monkeypatch):
    savings = load("savings")
    monkeypatch.setattr(savings, "SAVINGS", {k: savings.SAVINGS[k] for k in ("no_grad_fakes", "foreach_average")})
    main = runpy.run_path(str(SCRIPTS / "__main__.py"))["main"]
    options = ["--device", "cpu", "--quick", "--out", str(tmp_path)]
    main([*options, "--parts", "savings"])
    first = json.loads((tmp_path / "cpu_quick.json").read_text())
    main([*options, "--parts", "roofline"])
    results = json.loads((tmp_path / "cpu_quick.json").read_text())
    assert list(results) == ["what", "device", "versions", "commit", "ratios", "parts"]
    assert list(results["parts"]) == ["savings", "roofline"]
    assert results["parts"]["savings"] == first["parts"]["savings"]
    assert results["versions"]["torch"] == torch.__version__
    assert {"saving_all_dcgan_b4.tutorial", "operations_b4.tutorial"} <= set(results["ratios"])
    assert results["ratios"]["operations_b4.tutorial"] < 0.9
    for part in results["parts"].values():
        assert {"commit", "settings", "seconds", "rows", "ratios", "left_out"} == set(part)
    (tmp_path / "cpu_quick.json").write_text(json.dumps(results | {"device": "another"}))
    with pytest.raises(SystemExit, match="results of another device: another"):
        main([*options, "--parts", "roofline"])
    with pytest.raises(SystemExit):
        main([*options, "--parts", "speed"])


def test_what_takes_long_can_be_left_out(tmp_path, load):
    load("savings")
    main = runpy.run_path(str(SCRIPTS / "__main__.py"))["main"]
    options = ["--device", "cpu", "--quick", "--out", str(tmp_path), "--parts", "engines,scaling"]
    main([*options, "--without", "compiled,scaling"])
    results = json.loads((tmp_path / "cpu_quick.json").read_text())
    assert list(results["parts"]) == ["engines"]
    assert {"what": "critic step", "reason": "left out"} in results["parts"]["engines"]["left_out"]
    with pytest.raises(SystemExit):
        main([*options, "--without", "savings"])


@pytest.mark.parametrize("kind", ["dcgan", "resnet"])
@pytest.mark.parametrize("keep", [(), ("activations",), ("weight_gradients",), ("resized_weights",), "all"])
def test_networks_with_plain_layers_compute_the_same(load, float64, monkeypatch, kind, keep):
    subjects = load("subjects")
    monkeypatch.setattr("condgan.nn.convolution.pays", lambda *_: True)
    keep = subjects.SAVINGS_IN_LAYERS if keep == "all" else keep
    ours = subjects.make_networks(kind, 18, 4)  # 9 is odd: there maps are resized
    plain = [subjects.with_plain_layers(network, keep=keep) for network in subjects.make_networks(kind, 18, 4)]
    z, y = torch.randn(3, ours[0].latent_dim), torch.tensor([0, 1, 1])
    x, x_plain = ours[0](z, y), plain[0](z, y)
    score, score_plain = ours[1](x, y).score, plain[1](x_plain, y).score
    torch.testing.assert_close(score, score_plain, rtol=1e-10, atol=1e-12)
    nodes = {name for name in functions_of(score_plain) if name.startswith("_")}
    expected = {"activations": {"_LeakyReLUBackward"}, "weight_gradients": {"_ConvolutionBackward"}}
    pooled = {"_AvgPool2dBackward"} if kind == "resnet" and "activations" in keep else set()
    assert nodes - {"_ParametersBackward"} == set().union(pooled, *(expected.get(name, set()) for name in keep))


def functions_of(tensor):
    """Return the names of all functions that a tensor was computed by."""
    found, waiting = {}, [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found[node] = node.name()
            waiting += [following for following, _ in node.next_functions]
    return set(found.values())


def test_iterations_are_compared_with_every_side(load):
    iteration, timing, subjects = load("iteration"), load("timing"), load("subjects")
    part, rates = timing.Part(), load("roofline").Rates({torch.float32: 1e11, torch.bfloat16: 1e11}, bytes=1e10)
    settings = timing.Settings("cpu", rounds=2, limit=60, quick=True)
    iteration.measure_config(subjects.Config("dcgan", 16, 4, 4), settings, timing.Budget(60), rates, part)
    expected = {f"{what}_16px_{precision}_b4.tutorial" for what in ("iteration", "critic_step", "generator_step")
                for precision in ("fp32", "bf16")}  # fmt: skip
    assert expected <= set(part.ratios)
    assert "iteration_16px_bf16_b4.tutorial_bf16" in part.ratios
    assert "iteration_16px_fp32_b4.tutorial_bf16" not in part.ratios
    unsaved = {name for name in part.ratios if "without" in name}
    assert unsaved == {
        "iteration_16px_fp32_b4.without_weight_gradients",
        "iteration_16px_bf16_b4.without_weight_gradients_bf16",
    }
    (row,) = part.rows
    assert row["operators"]["condgan_fp32"] < row["operators"]["tutorial"]
    assert row["critic_step_seconds"]["tutorial"]["median"] < row["seconds"]["tutorial"]["median"]
