"""Ways to run the same step: as written, as recorded CUDA graphs, and compiled.

The compiled critic step is `torch.compile` over `torch.func.grad_and_value`, with the gradient penalty inside by
`torch.func.grad`: a second derivative through `torch.autograd.grad` cannot be compiled. Both sides make the fakes
without a graph and return the gradients; no optimizer is part of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from subjects import Config, Ours, configurations, make_data, make_trainer
from timing import Budget, Part, Settings, alternate, alternate_iterations, or_left_out, ratio, summary, time_once
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value

import condgan as cg
from condgan.training.step import critic_step
from condgan.types import StepInputs

Gradients = dict[str, Tensor]


def measure(settings: Settings) -> Part:
    """Compare the engines."""
    part = Part()
    cuda = torch.device(settings.device).type == "cuda"
    if cuda:
        for config in configurations(settings):
            for precision in ("fp32", "bf16"):
                with or_left_out(part, {"what": "iteration", **config.describe(), "precision": precision}):
                    measure_graphs(config, precision, settings, part)
    else:
        part.left_out.append({"what": "iteration", "reason": "CUDA graphs need a CUDA device"})
    if "compiled" in settings.without:
        part.left_out.append({"what": "critic step", "reason": "left out"})
        return part
    small = {} if cuda else {"kinds": ("dcgan",), "batches": (16,)}
    for config in configurations(settings, **small):
        with or_left_out(part, {"what": "critic step", **config.describe()}):
            measure_compiled(config, settings, part)
    return part


def measure_graphs(config: Config, precision: str, settings: Settings, part: Part) -> None:
    """Compare recorded and eager iterations of the trainer."""
    subjects = {
        engine: Ours(config, settings.device, precision=precision, engine=engine) for engine in ("cuda_graph", "eager")
    }
    budget = Budget(settings.limit)
    for subject in subjects.values():
        budget.start(subject, settings.device)
    seconds = alternate_iterations(subjects, settings)
    value = ratio(seconds["cuda_graph"], seconds["eager"])
    part.ratios[f"{config.name('engine_cuda_graph', precision)}.eager"] = value
    part.rows.append(
        {
            "what": "iteration",
            **config.describe(),
            "precision": precision,
            "rounds": settings.rounds,
            "seconds": {name: summary(values) for name, values in seconds.items()},
            "engine": {name: subject.trainer.engine.name for name, subject in subjects.items()},
            "ratio": value,
        }
    )


def measure_compiled(config: Config, settings: Settings, part: Part) -> None:
    """Compare our eager critic step with a compiled one, or say why there is none."""
    trainer = make_trainer(config.kind, config.size, base=config.base, device=settings.device)
    generator, critic = trainer.networks.generator.train(), trainer.networks.critic.train()
    inputs = draw(config, generator.latent_dim, settings.device)
    gradients = compiled_gradients(critic)

    def compiled() -> Gradients:
        with torch.no_grad():
            x_fake = generator(inputs.z, inputs.y_fake)
        return gradients(inputs.x, x_fake, inputs.y, inputs.epsilon)

    def eager() -> Gradients:
        result = critic_step(trainer.networks, trainer.terms, inputs)
        return dict(zip((name for name, _ in critic.named_parameters()), result.gradients, strict=True))

    row: dict[str, Any] = {"what": "critic step", **config.describe(), "precision": "fp32"}
    part.rows.append(row)
    with fresh_compiler():
        try:
            row["first_call_seconds"] = time_once(compiled, settings.device)
        except Exception as error:  # whatever a compiler may raise is the result
            row["error"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            return
    row["relative_difference"] = difference(compiled(), eager())
    seconds = alternate({"condgan": eager, "compiled": compiled}, settings)
    row["rounds"] = settings.rounds
    row["seconds"] = {name: summary(values) for name, values in seconds.items()}
    row["ratio"] = ratio(seconds["condgan"], seconds["compiled"])
    part.ratios[f"{config.name('critic_step', 'fp32')}.compiled"] = row["ratio"]


def compiled_gradients(critic: cg.Critic) -> Callable[..., Gradients]:
    """Return a compiled function of real and generated images, labels and places of the interpolates."""
    parameters = {name: parameter.detach() for name, parameter in critic.named_parameters()}

    def loss(weights: Gradients, x: Tensor, x_fake: Tensor, y: Tensor, epsilon: Tensor) -> Tensor:
        def judge(images: Tensor, labels: Tensor) -> cg.CriticOutput:
            return functional_call(critic, weights, (images, labels))

        real, fake = judge(torch.cat([x, x_fake]), torch.cat([y, y])).split((len(x), len(x_fake)))
        x_hat = cg.functional.interpolate(x, x_fake, epsilon)
        gradient = grad(lambda at: judge(at, y).score.sum())(x_hat)
        penalty = (gradient.flatten(1).norm(2, dim=1) - 1).square().mean()
        class_loss = F.cross_entropy(real.class_logits, y)
        return fake.score.mean() - real.score.mean() + class_loss + 10 * penalty

    compiled = torch.compile(grad_and_value(loss), fullgraph=True)
    return lambda *inputs: compiled(parameters, *inputs)[0]


def draw(config: Config, latent_dim: int, device: str) -> StepInputs:
    """Return the inputs of one critic step."""
    data = make_data(config.size)
    x = (data.images[: config.batch] / 127.5 - 1).to(device)
    y = data.labels[: config.batch].to(device)
    z = torch.randn(config.batch, latent_dim, device=device)
    return StepInputs(x=x, y=y, z=z, y_fake=y, epsilon=torch.rand(config.batch, device=device))


def difference(a: Gradients, b: Gradients) -> float:
    """Return the distance of two gradients, relative to the norm of the second."""
    distance = torch.stack([(a[name] - b[name]).norm() for name in b]).norm()
    return float(distance / torch.stack([gradient.norm() for gradient in b.values()]).norm())


@contextmanager
def fresh_compiler() -> Iterator[None]:
    """Compile as if for the first time: nothing compiled before is found."""
    torch.compiler.reset()
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": folder, "TRITON_CACHE_DIR": folder}),
    ):
        yield
