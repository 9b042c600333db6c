"""Checks of networks, terms and data before training."""

from __future__ import annotations

import warnings
from typing import get_args

import torch
from torch import nn

from condgan.files import check_count, check_names
from condgan.networks.base import Critic
from condgan.regularizers import CriticRegularizer, GeneratorObjective, GeneratorRegularizer
from condgan.sampling import ClassDistribution, LabelDistribution, class_probabilities
from condgan.training.batch_dependence import is_compiled
from condgan.training.optimizer import Role
from condgan.training.step import Networks, Precision, Terms
from condgan.types import (
    AdaptiveAugmentation,
    AdversarialLoss,
    Augmentation,
    AuxiliaryLoss,
    LabelledData,
    PseudoAugmentation,
)


def check_parts(
    generator: object,
    critic: object,
    *,
    loss: object,
    auxiliary: object,
    regularizers: object,
    augment: object,
    transition: object,
) -> None:
    """Check that the parts of a trainer are objects of the right kind.

    Raises:
        TypeError: If one is not.
    """
    _check_network("generator", generator)
    _check_network("critic", critic)
    check_kind("loss", loss, AdversarialLoss, "an adversarial loss, such as condgan.HingeLoss()")
    listed = [auxiliary] if isinstance(auxiliary, AuxiliaryLoss) else auxiliary
    check_kinds("auxiliary", listed, AuxiliaryLoss, "auxiliary losses, such as AuxiliaryClassifierLoss()")
    of_both = (CriticRegularizer, GeneratorRegularizer)
    check_kinds("regularizers", regularizers, of_both, "critic or generator regularizers, such as R1(0.1)")
    if augment is not None:
        check_kind("augment", augment, Augmentation, 'an augmentation, such as DiffAugment("translation,cutout")')
    if transition is not None:
        check_kind("transition", transition, tuple, "a pair of shares of the training, such as (0.2, 0.4)")


def check_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Check that an argument is an object of a kind, and not a class.

    Raises:
        TypeError: If not.
    """
    if isinstance(value, type) or not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}, got {_kind(value)}.")


def check_kinds(name: str, values: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Check that an argument is a list or tuple of objects of a kind.

    Raises:
        TypeError: If not.
    """
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name} must be a list of {expected}, got {_kind(values)}. Pass {name}=[...].")
    for value in values:
        check_kind(name, value, kind, f"a list of {expected}")


def _check_network(role: Role, network: object) -> None:
    has_sizes = all(hasattr(network, name) for name in ("num_classes", "image_shape"))
    if isinstance(network, nn.Module) and has_sizes and hasattr(network, "latent_dim") == (role == "generator"):
        return
    base = role.capitalize()
    raise TypeError(
        f"{role} must be a condgan.networks.{base}, got {_kind(network)}. Derive a network of your own from {base}, "
        "which keeps its sizes, and pass it without a wrapper: with several devices, start one process for each."
    )


def check_labelled(data: object) -> None:
    """Check that data know their shape and classes.

    Raises:
        TypeError: If not.
    """
    if not all(hasattr(data, name) for name in ("image_shape", "num_classes", "class_counts")):
        raise TypeError(
            f"data must be a data set of condgan.data, such as ArrayDataset, got {_kind(data)}. Pass "
            "ArrayDataset(images, labels), or for PyTorch's data sets and loaders condgan.training.as_labelled(data)."
        )


def _kind(value: object) -> str:
    return f"the class {value.__name__} itself" if isinstance(value, type) else f"a {type(value).__name__}"


def check_terms(networks: Networks, terms: Terms, *, label_distribution: LabelDistribution, critic_steps: int) -> None:
    """Check networks and terms against one another.

    Raises:
        ValueError: If they do not fit.
    """
    generator, critic = networks.generator, networks.critic
    if generator.image_shape != critic.image_shape or generator.num_classes != critic.num_classes:
        raise ValueError(
            "generator and critic must have the same image_shape and num_classes, got "
            f"{generator.image_shape} and {generator.num_classes} for the generator, "
            f"{critic.image_shape} and {critic.num_classes} for the critic."
        )
    check_count("critic_steps", critic_steps)
    check_names("precision", [terms.precision], get_args(Precision))
    for regularizer in terms.critic_regularizers:
        regularizer.check_critic(critic)
    check_penalties(networks, terms)
    for generator_regularizer in terms.generator_regularizers:
        generator_regularizer.check_generator(generator)
    transforming = [type(r).__name__ for r in terms.critic_regularizers if r.transform is not None]
    if len(transforming) > 1:
        raise ValueError(f"one regularizer at most may transform images, got {', '.join(transforming)}. Combine them.")
    check_augmentation(terms)
    if generator.num_classes is None and terms.auxiliary:
        raise ValueError("auxiliary losses need classes, got networks with num_classes=None.")
    check_auxiliary(critic, terms)
    if generator.num_classes is not None and label_distribution != "paired":
        paired = [type(r).__name__ for r in terms.critic_regularizers if r.needs_pairs and critic.score_needs_labels]
        if terms.loss.needs_real_scores:
            paired.append(type(terms.loss).__name__)
        if isinstance(terms.augment, PseudoAugmentation):
            paired.append(type(terms.augment).__name__)
        if paired:
            raise ValueError(
                'label_distribution must be "paired" for terms that combine each real image with a generated one of '
                f'the same class ({", ".join(paired)}), got {label_distribution!r}. Pass label_distribution="paired".'
            )


def check_penalties(networks: Networks, terms: Terms) -> None:
    """Check that penalties for each sample alone are defined for the critic.

    Raises:
        ValueError: If its outputs depend on the whole batch, or it is compiled.
    """
    penalties = ", ".join(type(r).__name__ for r in terms.critic_regularizers if r.per_sample)
    name = type(networks.critic).__name__
    if networks.scored_apart and penalties:
        raise ValueError(
            f"{penalties} must be defined for each sample alone, got {name}, whose outputs for one sample change with "
            "the others of its batch. Leave out what compares samples, such as minibatch standard deviation, or the "
            "penalty."
        )
    if penalties and is_compiled(networks.critic):
        raise ValueError(
            f"{penalties} needs second derivatives, which compiled modules do not have, got a compiled {name}. Pass "
            "the critic as it was before torch.compile."
        )


def check_share(pretraining: float) -> None:
    """Check a share of the steps without a critic.

    Raises:
        ValueError: If it is out of range.
    """
    if not 0 <= pretraining < 1:
        raise ValueError(f"pretraining must lie in [0, 1), a share of the steps, got {pretraining}.")


def check_pretraining(share: float, terms: Terms) -> None:
    """Check that a share of the training without a critic has something that trains the generator.

    Raises:
        ValueError: If the share is out of range, or there is no objective in each of its steps.
    """
    check_share(share)
    if share and not any(isinstance(r, GeneratorObjective) and r.every == 1 for r in terms.generator_regularizers):
        raise ValueError(
            f"pretraining, a share of {share} of the steps, needs a GeneratorObjective with every=1 among the "
            "regularizers, got none. Pass, for instance, regularizers=[FlowMatching()] with a FlowGenerator."
        )


def check_auxiliary(critic: Critic, terms: Terms) -> None:
    """Try the losses on the critic's heads, so that a missing head is found before training, and warn of idle ones.

    A critic with a `forward` of its own is left to the first step.

    Raises:
        ValueError: If a loss does not find what it reads in the critic's output; the message names the mixin to add.
    """
    if type(critic).forward is not Critic.forward:
        return
    parameter = next(critic.parameters())
    y = torch.zeros(2, dtype=torch.int64, device=parameter.device) if critic.num_classes else None
    training = critic.training
    critic.eval()  # a head in training may change its state: spectral norms iterate, batch norms average
    try:
        with torch.enable_grad():
            output = critic.heads(parameter.new_zeros(2, critic.feature_dim), y)
            losses = [output.score.sum()]
            for auxiliary in terms.auxiliary:
                if y is not None:
                    losses += [auxiliary.critic(output, y, output, y), auxiliary.generator(output, y)]
    finally:
        critic.train(training)
    idle = _reached(critic, [value for value in output if value is not None]) - _reached(critic, losses)
    if idle:
        warnings.warn(
            f"no loss trains {', '.join(sorted(idle))} of the {type(critic).__name__}. Pass the auxiliary loss that "
            "reads this head, or a critic without it.",
            stacklevel=4,  # the caller of Trainer
        )


def _reached(critic: Critic, outputs: list[torch.Tensor]) -> set[str]:
    """Return the names of the parameters that outputs depend on."""
    named = [(name, parameter) for name, parameter in critic.named_parameters() if parameter.requires_grad]
    total = torch.stack([output.sum() for output in outputs]).sum()
    if not total.requires_grad:
        return set()
    gradients = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True, retain_graph=True)
    return {name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is not None}


def check_augmentation(terms: Terms) -> None:
    """Check that the scores under the loss tell an adaptive augmentation how far the critic overfits.

    Raises:
        ValueError: If their signs mean nothing.
    """
    if (
        isinstance(terms.augment, AdaptiveAugmentation)
        and not terms.augment.reads_differences()
        and _ignores_shifts(terms.loss)
    ):
        raise ValueError(
            f"{type(terms.augment).__name__} reads the sign of the scores of real images, which means nothing under "
            f"{type(terms.loss).__name__}: it ignores a common shift of all scores. Pass "
            f"{type(terms.augment).__name__}(relative=True), or train with another loss."
        )


def check_data(
    networks: Networks, data: LabelledData, *, steps: int, batch_size: int, generator_batch_size: int
) -> None:
    """Check data and the length of training against the networks.

    Raises:
        ValueError: If they do not fit.
    """
    generator = networks.generator
    if tuple(data.image_shape) != tuple(generator.image_shape):
        raise ValueError(
            f"the data must have the networks' image_shape {generator.image_shape}, got {tuple(data.image_shape)}. "
            "Load the data at that shape, or build the networks with image_shape=data.image_shape."
        )
    if generator.num_classes not in (None, data.num_classes):
        raise ValueError(
            f"the data must have the networks' {generator.num_classes} classes, got {data.num_classes}. "
            "Build the networks with num_classes=data.num_classes."
        )
    check_count("steps", steps)
    if min(batch_size, generator_batch_size) < 2:
        raise ValueError(
            f"batch_size and generator_batch_size must be at least 2, got {batch_size} and {generator_batch_size}."
        )


def warn_of_two_distributions(
    networks: Networks, data: LabelledData, *, label_distribution: LabelDistribution, sampling: ClassDistribution
) -> None:
    """Warn if generated images get other proportions of labels than real ones, under a score that sees no labels."""
    if networks.generator.num_classes is None or networks.critic.score_needs_labels or label_distribution == "paired":
        return
    real = class_probabilities(sampling, data.class_counts)
    fake = class_probabilities(label_distribution, data.class_counts)
    if torch.allclose(real, fake):
        return
    excess = fake - real
    warnings.warn(
        f"the classes are drawn with probabilities {_rounded(real)} for real images (sampling={sampling!r}) and "
        f"{_rounded(fake)} for generated ones (label_distribution={label_distribution!r}), and the score of "
        f"{type(networks.critic).__name__} does not see labels. It learns the proportions of the real classes, and the "
        f"generator is paid for making images of class {int(excess.argmin())} where class {int(excess.argmax())} is "
        'asked for. Pass one distribution for both, such as sampling="balanced" and label_distribution="balanced".',
        stacklevel=4,  # the caller of Trainer.fit
    )


def _rounded(probabilities: torch.Tensor) -> list[float]:
    return [round(p, 3) for p in probabilities.tolist()]


def _ignores_shifts(loss: AdversarialLoss) -> bool:
    real, fake = torch.tensor([0.5, -0.25]), torch.tensor([-0.75, 0.125])
    return bool(torch.isclose(loss.critic(real, fake), loss.critic(real + 1, fake + 1)))
