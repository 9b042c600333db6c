import shutil
from collections import Counter
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from condgan.nn import DownBlock, DownResidualBlock, LeakyReLU, avg_pool2d, leaky_relu

SLOPES = (0.0, 0.2)


def plain_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True)


def score(x, weights, activation, pool):
    for weight in weights:
        x = pool(activation(F.conv2d(x, weight, padding=1)))
    return x.flatten(1).tanh().sum(1)


def make(seed=0):
    rng = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=rng, dtype=torch.float64)
    return draw(3, 2, 9, 6), [draw(6, 2, 3, 3).requires_grad_(), draw(5, 6, 3, 3).requires_grad_()]


def penalty_gradients(x, weights, activation, pool):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(x, weights, activation, pool).sum(), x, create_graph=True)
    loss = (gradient.flatten(1).norm(dim=1) - 1).square().mean() + score(x, weights, activation, pool).mean()
    return torch.autograd.grad(loss, weights)


@pytest.mark.parametrize("slope", SLOPES)
def test_penalty_gradients_equal_plain_double_backward(slope):
    x, weights = make()
    ours = penalty_gradients(x, weights, partial(leaky_relu, negative_slope=slope), avg_pool2d)
    plain = penalty_gradients(x, weights, partial(F.leaky_relu, negative_slope=slope), plain_pool)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("slope", SLOPES)
def test_third_derivatives_equal_plain_ones(slope):
    def third(activation, pool):
        x, weights = make()
        x.requires_grad_()
        value = score(x, weights, activation, pool).sum()
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        return torch.autograd.grad(second.pow(3).sum(), weights)

    ours = third(partial(leaky_relu, negative_slope=slope), avg_pool2d)
    plain = third(partial(F.leaky_relu, negative_slope=slope), plain_pool)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pool", [avg_pool2d, partial(leaky_relu, negative_slope=0.2)])
def test_gradcheck_and_gradgradcheck(pool):
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(pool, x)
    assert torch.autograd.gradgradcheck(pool, x)


class CountOps(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def count_convolution_backwards(activation, pool):
    x, (first, second) = make()
    x.requires_grad_()
    h = pool(activation(F.conv2d(pool(activation(F.conv2d(x, first, padding=1))), second, padding=1)))
    (gradient,) = torch.autograd.grad(h.sum(), x, create_graph=True)
    with CountOps() as ops:
        torch.autograd.grad(gradient.square().sum(), [first, second])
    return ops.counts["convolution_backward"]


def test_zeros_are_not_sent_back_through_the_convolutions():
    ours = count_convolution_backwards(partial(leaky_relu, negative_slope=0.2), avg_pool2d)
    plain = count_convolution_backwards(partial(F.leaky_relu, negative_slope=0.2), plain_pool)
    assert (ours, plain) == (0, 2)


@pytest.mark.parametrize("slope", SLOPES)
def test_under_functorch_the_plain_formula_is_exact(slope):
    x, weights = make()

    def loss(weights, activation, pool):
        def one(sample):
            return score(sample[None], weights, activation, pool).sum()

        gradients = torch.func.vmap(torch.func.grad(one))(x)
        return (gradients.flatten(1).norm(dim=1) - 1).square().mean()

    ours = torch.func.grad(loss)(weights, LeakyReLU(slope), avg_pool2d)
    plain = torch.func.grad(loss)(weights, torch.nn.LeakyReLU(slope), plain_pool)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.slow  # guards second derivatives under torch.compile; those of convolutions are tested by default
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch 2.11, from within
def test_a_users_compiled_penalty_is_exact():
    x, weights = make()

    def loss(weights, x):
        gradient = torch.func.grad(lambda x: score(x, weights, LeakyReLU(0.2), avg_pool2d).sum())(x)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    compiled = torch.compile(torch.func.grad(loss), fullgraph=True)([w.detach() for w in weights], x)
    eager = torch.func.grad(loss)([w.detach() for w in weights], x)
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_slope_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"negative_slope must lie in \[0, 1\), got 1.5"):
        LeakyReLU(1.5)


def test_critic_blocks_use_them():
    for block in (DownBlock(2, 3), DownResidualBlock(2, 3)):
        x = torch.randn(2, 2, 8, 8, requires_grad=True)
        (gradient,) = torch.autograd.grad(block(x).sum(), x, create_graph=True)
        # The gradient depends on the weights alone: there is no way back to the image.
        assert torch.autograd.grad(gradient.sum(), x, allow_unused=True)[0] is None
