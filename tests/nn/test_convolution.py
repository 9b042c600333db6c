import copy
import shutil
from collections import Counter
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from condgan.nn import Conv2d, DownBlock, DownResidualBlock, SelfAttention2d, conv2d, leaky_relu, spectral_normalize
from condgan.nn.convolution import pays as rule


@pytest.fixture(autouse=True, scope="module")
def everywhere():
    """Use the functions where they would not pay too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condgan.nn.convolution.pays", lambda *_: True)
        yield


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def derivatives(convolve, tensors, order):
    """Return the gradients of a smooth function of a convolution, of a function of these, and so on."""
    value, found = convolve(*tensors).tanh().square().sum(), []
    for _ in range(order):
        gradients = torch.autograd.grad(value, tensors, create_graph=True)
        found += [gradient.detach() for gradient in gradients]
        value = torch.stack([gradient.pow(3).sum() for gradient in gradients]).sum()
    return found


def check_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 1e-12 * b.norm()


Pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None, max_examples=60)
@given(
    stride=Pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=Pairs,
    kernel=Pairs,
    groups=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(7, 10), st.integers(7, 10)),
    bias=st.booleans(),
)
def test_derivatives_up_to_the_third_equal_pytorchs(stride, padding, dilation, kernel, groups, channels, size, bias):
    c_in, c_out = (groups * c for c in channels)
    tensors = [draw(2, c_in, *size), draw(c_out, channels[0], *kernel, seed=1)]
    tensors += [draw(c_out, seed=2)] if bias else []
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    check_equal(*(derivatives(partial(f, **options), tensors, 3) for f in (conv2d, F.conv2d)))


def test_gradcheck_and_gradgradcheck():
    tensors = (draw(2, 2, 4, 3), draw(3, 2, 3, 3, seed=1), draw(3, seed=2))
    assert torch.autograd.gradcheck(partial(conv2d, padding=1), tensors)
    assert torch.autograd.gradgradcheck(partial(conv2d, stride=2, padding=1), tensors)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_any_of_the_derivatives_alone(needed):
    def gradients(convolve):
        tensors = [draw(2, 2, 5, 5).detach(), draw(3, 2, 3, 3, seed=1).detach(), draw(3, seed=2).detach()]
        wanted = [tensors[i].requires_grad_() for i in needed]
        return torch.autograd.grad(convolve(*tensors).tanh().sum(), wanted)

    check_equal(gradients(conv2d), gradients(F.conv2d))


class CountOps(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.counts[f"{name} {args[-1]}" if name == "convolution_backward" else name] += 1
        return func(*args, **(kwargs or {}))


def test_a_penalty_runs_the_kernels_that_it_needs():
    x, first, second = draw(2, 3, 8, 8), draw(4, 3, 3, 3, seed=1), draw(5, 4, 3, 3, seed=2)
    score = conv2d(leaky_relu(conv2d(x, first, padding=1), 0.2), second, padding=1).sum()
    with CountOps() as ops:
        (gradient,) = torch.autograd.grad(score, x, create_graph=True)
    assert ops.counts["convolution_backward [True, False, False]"] == 2
    assert ops.counts["convolution_backward [False, True, False]"] == 0, "nobody asked for the weights' gradients"
    with CountOps() as ops:
        torch.autograd.grad(gradient.square().sum(), [first, second])
    assert ops.counts["convolution_backward [False, True, False]"] == 2, "weight gradients as weight gradients"
    assert ops.counts["convolution"] == 1
    assert ops.counts.total() - sum(n for name, n in ops.counts.items() if "conv" not in name) == 3


def test_a_generators_step_computes_no_weight_gradients_of_the_critic():
    x, critic = draw(2, 3, 8, 8), Conv2d(3, 4, 3).double()
    with CountOps() as ops:
        torch.autograd.grad(critic(x).sum(), x)
    assert ops.counts["convolution_backward [True, False, False]"] == 1
    assert sum(n for name, n in ops.counts.items() if "convolution_backward" in name) == 1


def test_a_first_derivative_takes_weight_and_bias_in_one_call():
    x, layer = draw(2, 3, 8, 8).detach(), Conv2d(3, 4, 3).double()
    with CountOps() as ops:
        layer(x).sum().backward()
    assert ops.counts["convolution_backward [False, True, True]"] == 1
    assert sum(n for name, n in ops.counts.items() if "convolution_backward" in name) == 1


def test_memory_changed_in_place_is_noticed():
    x, weight = draw(1, 2, 4, 4), draw(2, 2, 3, 3, seed=1)
    y = x * 1
    out = conv2d(y, weight)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_the_layer_has_the_state_of_pytorchs_and_loads_it():
    theirs = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    ours = Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 7, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(copy.deepcopy(ours)(x), theirs(x))
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_other_paddings_are_pytorchs(options):
    theirs, ours = nn.Conv2d(2, 3, 3, **options), Conv2d(2, 3, 3, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 2, 6, 6, requires_grad=True)
    assert torch.equal(ours(x), theirs(x))


def test_one_sample_without_a_batch_and_what_does_not_fit():
    layer = Conv2d(2, 3, 3)
    assert layer(torch.randn(2, 5, 5)).shape == (3, 3, 3)
    assert layer(torch.randn(0, 2, 5, 5)).shape == (0, 3, 3, 3)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        layer(torch.randn(1, 2, 2, 2))
    with pytest.raises(RuntimeError, match="expected input"):
        layer(torch.randn(1, 3, 5, 5))


def penalty_gradients(layer, x, **autocast):
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, **autocast):
        out = layer(x)
        (gradient,) = torch.autograd.grad(out.float().tanh().sum(), x, create_graph=True)
    return out.dtype, torch.autograd.grad(gradient.square().sum() + out.float().mean(), list(layer.parameters()))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_types_layouts_and_roundings_under_autocast_are_pytorchs(norm, memory_format):
    x = draw(4, 8, 9, 9, dtype=torch.float32).to(memory_format=memory_format)
    results = []
    for layer_class in (Conv2d, nn.Conv2d):
        torch.manual_seed(0)
        layer = layer_class(8, 6, 3, stride=2, padding=1).to(memory_format=memory_format)
        layer = spectral_normalize(layer).eval() if norm else layer
        dtype, gradients = penalty_gradients(layer, x)
        exact = penalty_gradients(layer, x, enabled=False)[1]
        assert dtype == torch.bfloat16
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        results.append([float((a - b).norm() / b.norm()) for a, b in zip(gradients, exact, strict=True)])
    for ours, theirs in zip(*results, strict=True):
        assert ours < max(1.5 * theirs, 1e-6), "no rounding beyond autocast's own"


def test_float64_stays_float64_under_autocast():
    layer = Conv2d(2, 3, 3).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(draw(1, 2, 5, 5)).dtype == torch.float64


def test_channels_last_maps_stay_channels_last():
    layer = Conv2d(4, 6, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    out = layer(x)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("hooks", ["offloaded", "checkpointed"])
def test_saved_tensors_may_be_packed(hooks):
    layer = Conv2d(2, 3, 3).double()
    x = draw(2, 2, 6, 6)

    def penalty(run):
        (gradient,) = torch.autograd.grad(run(x).tanh().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), layer.parameters())

    if hooks == "offloaded":
        with torch.autograd.graph.save_on_cpu():
            packed = penalty(layer)
    else:
        packed = penalty(partial(torch.utils.checkpoint.checkpoint, layer, use_reentrant=False))
    check_equal(packed, penalty(layer))


def make_loss(convolve, x):
    """Return a gradient penalty as a function of two weights, by torch.func."""

    def score(weights, sample):
        h = leaky_relu(convolve(sample[None], weights[0], padding=1), 0.2)
        return convolve(h, weights[1], stride=2).tanh().sum()

    def loss(weights):
        gradients = torch.func.vmap(torch.func.grad(score, argnums=1), in_dims=(None, 0))(weights, x)
        return (gradients.flatten(1).norm(dim=1) - 1).square().mean()

    return loss


def test_under_functorch_it_is_pytorchs():
    x, weights = draw(3, 2, 7, 6).detach(), [draw(4, 2, 3, 3, seed=1).detach(), draw(3, 4, 3, 3, seed=2).detach()]
    check_equal(*(torch.func.grad(make_loss(f, x))(weights) for f in (conv2d, F.conv2d)))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch 2.11, from within
def test_a_users_compiled_penalty_is_exact():
    x, weights = draw(3, 2, 7, 6).detach(), [draw(4, 2, 3, 3, seed=1).detach(), draw(3, 4, 3, 3, seed=2).detach()]

    def loss(weights, x):
        def score(x):
            h = leaky_relu(conv2d(x, weights[0], padding=1), 0.2)
            return conv2d(h, weights[1], stride=2).tanh().sum()

        return (torch.func.grad(score)(x).flatten(1).norm(dim=1) - 1).square().mean()

    compiled = torch.compile(torch.func.grad(loss), fullgraph=True, dynamic=False)(weights, x)
    check_equal(compiled, torch.func.grad(loss)(weights, x))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_exported_and_traced_layers_are_pytorchs():
    layer, x = Conv2d(2, 3, 3), torch.randn(2, 2, 6, 6)
    operators = {str(node.target) for node in torch.export.export(layer, (x,)).graph.nodes if node.op != "placeholder"}
    assert any("conv2d" in name for name in operators)
    traced = torch.jit.trace(layer, x)
    assert "aten::_convolution" in str(traced.inlined_graph)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(64, 3, 1, True), (16, 4, 2, True), (8, 4, 2, False), (8, 3, 1, True), (4, 3, 1, False), (4, 1, 1, True)],
)
def test_the_rule_compares_map_and_kernel_on_the_cpu(size, kernel, stride, expected):
    x, weight = torch.empty(1, 2, size, size), torch.empty(3, 2, kernel, kernel)
    assert rule(x, weight, stride) is expected
    assert rule(x.to("meta"), weight, stride)


def test_where_it_does_not_pay_it_is_pytorchs(monkeypatch):
    monkeypatch.setattr("condgan.nn.convolution.pays", rule)
    x, layer = torch.randn(1, 2, 4, 4), Conv2d(2, 3, 3)
    assert layer(x).grad_fn.name().startswith("ConvolutionBackward")


def test_critic_blocks_use_it():
    for block in (DownBlock(2, 3), DownResidualBlock(2, 3), SelfAttention2d(8)):
        assert all(isinstance(m, Conv2d) for m in block.modules() if isinstance(m, nn.Conv2d))
