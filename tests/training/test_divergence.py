import math

import pytest
import torch

from condgan.training.divergence import FiniteGuard, TrainingDivergedError


def metrics(**values):
    return {name.replace("__", "/"): torch.tensor(value) for name, value in values.items()}


def test_finite_metrics_pass():
    guard = FiniteGuard()
    guard.check()
    for step in range(5):
        guard.observe(metrics(critic__loss=1e30, generator__loss=-step), step)
    guard.check()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_bad_step_and_term_are_remembered(bad):
    guard = FiniteGuard()
    for step in range(6):
        guard.observe(metrics(critic__loss=bad if step == 4 else 1.0, critic__penalty=bad if step == 2 else 0.0), step)
        guard.observe(metrics(generator__loss=bad if step > 2 else 1.0), step)
    with pytest.raises(TrainingDivergedError, match="critic/penalty was not finite in step 2") as caught:
        guard.check()
    assert (caught.value.step, caught.value.term) == (2, "critic/penalty")


def test_within_a_step_the_critic_is_named_before_the_generator():
    guard = FiniteGuard()
    guard.observe(metrics(critic__loss=1.0, critic__lazy=1.0), 0, 0)
    guard.observe(metrics(generator__loss=1.0), 0, 1)
    guard.observe(metrics(critic__loss=math.nan), 1, 0)
    guard.observe(metrics(generator__loss=math.nan), 1, 1)
    with pytest.raises(TrainingDivergedError, match="critic/loss"):
        guard.check()


def test_the_first_of_several_updates_names_the_term():
    guard = FiniteGuard()
    guard.observe(metrics(critic__loss=1.0, critic__penalty=math.inf), torch.tensor(7), 1)
    guard.observe(metrics(critic__loss=math.nan, critic__penalty=math.nan), torch.tensor(7), 2)
    with pytest.raises(TrainingDivergedError, match="critic/penalty was not finite in step 7"):
        guard.check()
