from __future__ import annotations

import inspect

import pytest
import torch

import condgan as cg
from condgan import augmentation, auxiliary, losses, regularizers
from condgan.types import (
    AdversarialLoss,
    AuxiliaryLoss,
    CriticBatch,
    CriticOutput,
    GeneratorBatch,
    StepInputs,
)


def test_split_is_torch_split_of_every_field() -> None:
    score, logits = torch.arange(5.0), torch.randn(5, 3)
    first, second = CriticOutput(score, class_logits=logits).split((2, 3))
    assert isinstance(first, CriticOutput)
    assert isinstance(second, CriticOutput)
    assert torch.equal(first.score, score[:2])
    assert torch.equal(second.score, score[2:])
    assert torch.equal(first.class_logits, logits[:2])
    assert torch.equal(second.class_logits, logits[2:])
    assert first.twin_logits is first.embedding is second.twin_logits is second.embedding is None


def test_split_keeps_the_graph() -> None:
    score = torch.zeros(4, requires_grad=True)
    CriticOutput(score * 2).split((1, 3))[1].score.sum().backward()
    assert score.grad.tolist() == [0, 2, 2, 2]


def test_protocols_tell_the_losses_of_the_library_apart() -> None:
    adversarial = [cg.MinimaxLoss(), cg.HingeLoss(), cg.WassersteinLoss(), cg.LeastSquaresLoss(), cg.RelativisticLoss()]
    assert all(isinstance(loss, AdversarialLoss) for loss in adversarial)
    assert isinstance(cg.AuxiliaryClassifierLoss(), AuxiliaryLoss)
    assert not isinstance(cg.AuxiliaryClassifierLoss(), AdversarialLoss)
    assert not isinstance(cg.GradientPenalty(), (AdversarialLoss, AuxiliaryLoss))


TERMS = [
    value
    for module in (augmentation, auxiliary, losses, regularizers)
    for name, value in vars(module).items()
    if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("term", TERMS)
def test_terms_take_their_first_argument_by_position_and_the_rest_by_name(term: type) -> None:
    first, *rest = inspect.signature(term).parameters.values()
    value = "brightness" if term is cg.DiffAugment else 2.0
    assert repr(term(value)) == repr(term(**{first.name: value}))
    assert getattr(term(value), first.name) == value
    assert {parameter.kind for parameter in rest} <= {inspect.Parameter.KEYWORD_ONLY}
    with pytest.raises(TypeError, match="positional argument"):
        term(value, 1)


@pytest.mark.parametrize("record", [StepInputs, CriticBatch, GeneratorBatch])
def test_records_of_a_step_are_frozen(record: type) -> None:
    fields = record.__dataclass_fields__
    instance = record(**dict.fromkeys(fields))
    for name in (*fields, "other"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(instance, name, torch.zeros(()))
