from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import condgan as cg
from condgan.types import (
    AdversarialLoss,
    AuxiliaryLoss,
    CriticBatch,
    CriticOutput,
    CriticRegularizer,
    GeneratorBatch,
    GeneratorRegularizer,
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


class Constant(CriticRegularizer):
    def penalty(self, critic: Any, batch: Any) -> Tensor:
        return torch.tensor(3.0)


class ConstantOfGenerator(GeneratorRegularizer):
    def penalty(self, generator: Any, batch: Any) -> Tensor:
        return torch.tensor(3.0)


@pytest.mark.parametrize("regularizer", [Constant, ConstantOfGenerator])
class TestRegularizers:
    def test_weight_and_laziness_multiply(self, regularizer: type[Constant | ConstantOfGenerator]) -> None:
        assert regularizer(0.5, every=4)(None, None) == 6.0
        assert regularizer(0.0)(None, None) == 0.0
        assert "weight=0.5, every=4" in repr(regularizer(0.5, every=4))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"weight": -1.0}, "weight must be at least 0, got -1"),
            ({"weight": 1.0, "every": 0}, "every must be at least 1"),
        ],
    )
    def test_wrong_values_are_refused(
        self, regularizer: type[Constant | ConstantOfGenerator], wrong: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            regularizer(**wrong)


@pytest.mark.parametrize("base", [CriticRegularizer, GeneratorRegularizer])
def test_a_regularizer_without_penalty_is_not_silent(base: type[CriticRegularizer | GeneratorRegularizer]) -> None:
    with pytest.raises(NotImplementedError):
        base(1.0)(None, None)


def test_protocols_tell_the_losses_of_the_library_apart() -> None:
    adversarial = [cg.MinimaxLoss(), cg.HingeLoss(), cg.WassersteinLoss(), cg.LeastSquaresLoss(), cg.RelativisticLoss()]
    assert all(isinstance(loss, AdversarialLoss) for loss in adversarial)
    assert isinstance(cg.AuxiliaryClassifierLoss(), AuxiliaryLoss)
    assert not isinstance(cg.AuxiliaryClassifierLoss(), AdversarialLoss)
    assert not isinstance(cg.GradientPenalty(), (AdversarialLoss, AuxiliaryLoss))


@pytest.mark.parametrize("record", [StepInputs, CriticBatch, GeneratorBatch])
def test_records_of_a_step_are_frozen(record: type) -> None:
    fields = record.__dataclass_fields__
    instance = record(**dict.fromkeys(fields))
    for name in (*fields, "other"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(instance, name, torch.zeros(()))
