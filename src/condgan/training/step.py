"""The critic step and the generator step, as pure functions of networks, terms and inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from condgan.functional import precise
from condgan.networks.base import Critic, Generator
from condgan.regularizers import CriticRegularizer, GeneratorObjective, GeneratorRegularizer
from condgan.training.batch_dependence import depends_on_batch
from condgan.types import (
    AdaptiveAugmentation,
    AdversarialLoss,
    Augmentation,
    AuxiliaryLoss,
    CriticBatch,
    CriticOutput,
    GeneratorBatch,
    PseudoAugmentation,
    StepInputs,
)

Precision = Literal["fp32", "bf16"]

T = TypeVar("T")
Real = TypeVar("Real", Tensor, Tensor | None)


@dataclass(frozen=True)
class Networks:
    """The generator and the critic."""

    generator: Generator
    critic: Critic

    @cached_property
    def scored_apart(self) -> bool:
        """Whether real and generated images need batches of their own, because outputs depend on the whole batch."""
        return depends_on_batch(self.critic)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of the losses, and the augmentation in front of the critic.

    Shape:
        - `class_strength`: `()`, the factor of the auxiliary terms, on the device; None for 1.
    """

    loss: AdversarialLoss
    auxiliary: Sequence[AuxiliaryLoss] = ()
    critic_regularizers: Sequence[CriticRegularizer] = ()
    generator_regularizers: Sequence[GeneratorRegularizer] = ()
    augment: Augmentation | None = None
    precision: Precision = "fp32"
    class_strength: Tensor | None = None

    def due(self, update: int) -> Terms:
        """Return the terms without the lazy regularizers that are not due in this update."""
        return replace(
            self,
            critic_regularizers=[r for r in self.critic_regularizers if update % r.every == 0],
            generator_regularizers=[r for r in self.generator_regularizers if update % r.every == 0],
        )


class StepResult(NamedTuple):
    """Gradients of the trainable parameters, in their order and memory layout, and detached scalars by name."""

    gradients: tuple[Tensor, ...]
    metrics: dict[str, Tensor]


def critic_step(networks: Networks, terms: Terms, inputs: StepInputs) -> StepResult:
    """Return the gradients of the critic's loss: adversarial, auxiliary and regularizing terms, added.

    Shape:
        - `inputs`: see `StepInputs`; `x` is needed.
    """
    generator, critic = networks.generator, networks.critic
    x, apart = _required(inputs.x, "x"), networks.scored_apart
    with torch.no_grad(), _precision(terms, inputs):
        x_fake = generator(inputs.z, inputs.y_fake).to(x.dtype)
    if isinstance(terms.augment, PseudoAugmentation):
        x = terms.augment.replace_real(x, x_fake, _required(inputs.augmentation, "augmentation")[0])
    x, x_fake = _augment(terms, inputs, x, x_fake)
    # `cached`: a spectral norm, with its power iteration, is computed once per step and not at every read.
    with parametrize.cached():
        with _precision(terms, inputs):
            real, fake = _score_both(critic, x, inputs.y, x_fake, inputs.y_fake, apart=apart)
        losses = {"adversarial": terms.loss.critic(real.score, fake.score)}
        for auxiliary in terms.auxiliary:
            y, y_fake = _required(inputs.y, "y"), _required(inputs.y_fake, "y_fake")
            _add_term(losses, auxiliary, _faded(terms, auxiliary.critic(real, y, fake, y_fake)))
        batch = CriticBatch(x, inputs.y, x_fake, inputs.y_fake, real, fake, inputs)
        with _precision(terms, inputs):
            for regularizer in terms.critic_regularizers:
                _add_term(losses, regularizer, regularizer(critic, batch))
    gradients = gradients_as_laid_out(torch.stack(list(losses.values())).sum(), trainable(critic))
    metrics = {f"critic/{name}": value.detach() for name, value in losses.items()}
    metrics |= {"critic/real_score": real.score.detach().mean(), "critic/fake_score": fake.score.detach().mean()}
    metrics |= _class_accuracy("critic/real_class_accuracy", real, inputs.y)
    if isinstance(terms.augment, AdaptiveAugmentation):
        metrics["critic/augment_p"] = terms.augment.observe(real.score.detach(), fake.score.detach())
    return StepResult(gradients, metrics)


def generator_step(networks: Networks, terms: Terms, inputs: StepInputs) -> StepResult:
    """Return the gradients of the generator's loss: adversarial, auxiliary and regularizing terms, added.

    Shape:
        - `inputs`: see `StepInputs`; `x` is needed if the loss compares with real scores, or a term is a
          `GeneratorObjective`.
    """
    generator, critic, apart = networks.generator, networks.critic, networks.scored_apart
    with parametrize.cached():
        with _precision(terms, inputs):
            x_fake_plain = generator(inputs.z, inputs.y_fake).to(inputs.z.dtype)
        compared = inputs.x if terms.loss.needs_real_scores else None
        x, x_fake = _augment(terms, inputs, compared, x_fake_plain)
        with _precision(terms, inputs):
            if x is None:
                real_score, fake = None, _wide(critic(x_fake, inputs.y_fake))
            else:
                real, fake = _score_both(critic, x, inputs.y, x_fake, inputs.y_fake, apart=apart)
                real_score = real.score
        losses = {"adversarial": terms.loss.generator(real_score, fake.score)}
        for auxiliary in terms.auxiliary:
            value = auxiliary.generator(fake, _required(inputs.y_fake, "y_fake"))
            _add_term(losses, auxiliary, _faded(terms, value))
        batch = GeneratorBatch(x_fake_plain, fake, inputs)
        with _precision(terms, inputs):
            for regularizer in terms.generator_regularizers:
                _add_term(losses, regularizer, regularizer(generator, batch))
    gradients = gradients_as_laid_out(torch.stack(list(losses.values())).sum(), trainable(generator))
    metrics = {f"generator/{name}": value.detach() for name, value in losses.items()}
    metrics |= _class_accuracy("generator/class_accuracy", fake, inputs.y_fake)
    return StepResult(gradients, metrics)


def pretraining_step(networks: Networks, terms: Terms, inputs: StepInputs) -> StepResult:
    """Return the gradients of the generator's objectives on real images, added, without a critic.

    Shape:
        - `inputs`: see `StepInputs`; `x` is needed.
    """
    generator = networks.generator
    losses: dict[str, Tensor] = {}
    with parametrize.cached(), _precision(terms, inputs):
        for term in terms.generator_regularizers:
            if isinstance(term, GeneratorObjective):
                _add_term(losses, term, term.weighted(term.objective(generator, inputs)))
    gradients = gradients_as_laid_out(torch.stack(list(losses.values())).sum(), trainable(generator))
    return StepResult(gradients, {f"generator/{name}": value.detach() for name, value in losses.items()})


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require gradients, in the order of a step's gradients."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def gradients_as_laid_out(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of a scalar, each in the memory layout of its parameter; zeros for unused parameters.

    Second derivatives of convolutions come transposed in memory, and fused optimizers on the CPU pair parameters and
    gradients by their position in memory: they would silently apply a permuted gradient.
    """
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return tuple(
        gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
        for parameter, gradient in zip(parameters, gradients, strict=True)
    )


def _score_both(
    critic: Critic, x: Tensor, y: Tensor | None, x_fake: Tensor, y_fake: Tensor | None, *, apart: bool
) -> tuple[CriticOutput, CriticOutput]:
    if apart:
        return _wide(critic(x, y)), _wide(critic(x_fake, y_fake))
    # One forward pass for both is faster, and exact because no output depends on other samples.
    labels = None if y is None or y_fake is None else torch.cat([y, y_fake])
    return _wide(critic(torch.cat([x, x_fake]), labels)).split((len(x), len(x_fake)))


def _augment(terms: Terms, inputs: StepInputs, x: Real, x_fake: Tensor) -> tuple[Real, Tensor]:
    if terms.augment is None:
        return x, x_fake
    real_draws, fake_draws = _required(inputs.augmentation, "augmentation")
    return None if x is None else terms.augment(x, real_draws), terms.augment(x_fake, fake_draws)


def _faded(terms: Terms, value: Tensor) -> Tensor:
    return value if terms.class_strength is None else terms.class_strength * value


def _precision(terms: Terms, inputs: StepInputs) -> AbstractContextManager[object]:
    return torch.autocast(inputs.z.device.type, torch.bfloat16, enabled=terms.precision == "bf16")


def _wide(output: CriticOutput) -> CriticOutput:
    """Return all outputs in at least float32: losses are not computed in half precision."""
    return output._replace(**{name: precise(x) for name, x in output._asdict().items() if x is not None})


def _class_accuracy(name: str, output: CriticOutput, y: Tensor | None) -> dict[str, Tensor]:
    if output.class_logits is None or y is None:
        return {}
    return {name: (output.class_logits.detach().argmax(1) == y).to(output.score.dtype).mean()}


def _add_term(losses: dict[str, Tensor], term: object, value: Tensor) -> None:
    """Add a term under the name of its class, with a number if that name is taken."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(term).__name__).lower().removesuffix("_loss")
    unique, number = name, 1
    while unique in losses:
        number += 1
        unique = f"{name}_{number}"
    losses[unique] = value


def _required(value: T | None, name: str) -> T:
    if value is None:
        raise ValueError(
            f"this step needs StepInputs.{name}, got None. The critic, and losses that compare with real images, need "
            "x; class terms need y and y_fake (and networks with num_classes); an augmentation needs its parameters."
        )
    return value
