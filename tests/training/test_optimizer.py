import pytest
import torch

import condgan as cg
from condgan.training.optimizer import schedule_factor, set_learning_rate


@pytest.mark.parametrize(("weight_decay", "kind"), [(0.0, torch.optim.Adam), (0.1, torch.optim.AdamW)])
def test_one_step_is_adam_with_decoupled_decay(weight_decay, kind):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    config = cg.OptimizerConfig(lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=weight_decay)
    optimizer = config.build([weight])
    assert type(optimizer) is kind
    gradient = torch.tensor([0.3, -0.004], dtype=torch.float64)
    weight.grad = gradient.clone()
    optimizer.step()
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    expected = start * (1 - 0.1 * weight_decay) - 0.1 * gradient / (gradient.abs() + 1e-3)
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("options", [{"lr": 0}, {"eps": -1}, {"weight_decay": -1}, {"betas": (0.9, 1.0)}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        cg.OptimizerConfig(**options)


def test_a_rate_on_the_device_is_float32_whatever_the_default_is():
    optimizer = cg.OptimizerConfig().build([torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))])
    optimizer.param_groups[0]["lr"] = torch.zeros((), device="meta")  # as if read into memory of another device
    torch.set_default_dtype(torch.float64)
    try:
        set_learning_rate(optimizer, 0.1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(optimizer.param_groups[0]["lr"], torch.tensor(0.1))


def test_schedules():
    assert [schedule_factor("linear", p) for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert schedule_factor("constant", 0.7) == 1.0
    assert schedule_factor(lambda p: p**2, 0.5) == 0.25
    with pytest.raises(ValueError, match=r"\['constant', 'linear'\] or a callable, got 'cosine'"):
        schedule_factor("cosine", 0.0)
