import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from condgan.nn import ConvPool2d, TransposedConv2d, UpsampleConv2d, spectral_normalize

EVEN, ODD = [(8, 6), (2, 2), (4, 10)], [(7, 6), (5, 5), (1, 1), (2, 3)]


def pool_after(layer, x):
    return F.avg_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=1), 2, ceil_mode=True)


def enlarge_before(layer, x, size):
    return F.conv2d(F.interpolate(x, size), layer.weight, layer.bias, padding=1)


def make(layer_class, memory_format=torch.contiguous_format, **options):
    torch.manual_seed(0)
    return layer_class(3, 5, **options).double().to(memory_format=memory_format)


def draw(size, memory_format=torch.contiguous_format):
    return torch.randn(2, 3, *size, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()


def penalty_gradients(layer, x, out):
    (gradient,) = torch.autograd.grad(out.tanh().sum(), x, create_graph=True)
    return torch.autograd.grad(gradient.square().sum() + out.pow(3).sum(), [x, *layer.parameters()])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [*EVEN, *ODD])
def test_a_convolution_with_pooling_is_both_in_turn(size, bias, memory_format):
    layer, x = make(ConvPool2d, memory_format, bias=bias), draw(size, memory_format)
    torch.testing.assert_close(layer(x), pool_after(layer, x), rtol=1e-12, atol=1e-14)
    ours, plain = (penalty_gradients(layer, x, f(x)) for f in (layer, lambda x: pool_after(layer, x)))
    torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("size", "to"), [((3, 4), (6, 8)), ((1, 1), (2, 2)), ((3, 4), (5, 8)), ((4, 4), (7, 11))])
def test_a_convolution_with_enlarging_is_both_in_turn(size, to, bias, memory_format):
    layer, x = make(UpsampleConv2d, memory_format, bias=bias), draw(size, memory_format)
    ours, plain = layer(x, to), enlarge_before(layer, x, to)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-14)
    ours, plain = (penalty_gradients(layer, x, out) for out in (ours, plain))
    torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-13)


def test_the_small_map_is_convolved():
    def operations(run):
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    x, layers = torch.randn(2, 3, 8, 8), [ConvPool2d(3, 5), UpsampleConv2d(3, 5)]
    assert operations(lambda: layers[0](x)) / operations(lambda: pool_after(layers[0], x)) == 16 / 36
    plain = operations(lambda: enlarge_before(layers[1], x, (16, 16)))
    assert operations(lambda: layers[1](x, (16, 16))) / plain == 16 / 36


def test_states_are_those_of_a_convolution():
    plain = nn.Conv2d(3, 5, 3, padding=1)
    for layer in (ConvPool2d(3, 5), UpsampleConv2d(3, 5)):
        layer.load_state_dict(plain.state_dict())


def test_spectral_norm_is_that_of_the_plain_weight():
    layer = spectral_normalize(make(ConvPool2d)).eval()
    x = draw((8, 8))
    torch.testing.assert_close(layer(x), pool_after(layer, x), rtol=1e-12, atol=1e-14)
    assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2) < 1.2


@pytest.mark.parametrize("layer_class", [ConvPool2d, UpsampleConv2d])
def test_autocast_rounds_no_more_than_it_does_to_both_in_turn(layer_class):
    torch.manual_seed(0)
    layer, x = layer_class(32, 16), torch.randn(4, 32, 8, 8)
    arguments = (x,) if layer_class is ConvPool2d else (x, (16, 16))
    plain = pool_after if layer_class is ConvPool2d else enlarge_before
    exact = layer(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        low, low_plain = layer(*arguments), plain(layer, *arguments)
    assert low.dtype == torch.bfloat16
    assert (low - exact).norm() < 1.5 * (low_plain - exact).norm()


@pytest.mark.parametrize("layer_class", [ConvPool2d, UpsampleConv2d])
def test_per_sample_gradients_under_vmap(layer_class):
    layer, x = make(layer_class), draw((4, 6)).detach()
    size = () if layer_class is ConvPool2d else ((8, 12),)
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}

    def loss(parameters, sample):
        return functional_call(layer, parameters, (sample[None], *size)).tanh().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for i, sample in enumerate(x):
        layer.zero_grad()
        layer(sample[None], *size).tanh().sum().backward()
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(each[name][i], parameter.grad)


@pytest.mark.slow  # guards the switch to plain convolutions under torch.compile
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch 2.11, from within
def test_a_users_compiled_penalty_is_exact():
    enlarge, reduce = make(UpsampleConv2d), ConvPool2d(5, 3).double()
    x = draw((4, 6)).detach()
    weights = [layer.weight.detach() for layer in (enlarge, reduce)]

    def loss(weights, x):
        def score(x):
            h = functional_call(enlarge, {"weight": weights[0]}, (x, (8, 12))).tanh()
            return functional_call(reduce, {"weight": weights[1]}, (h,)).tanh().sum()

        return grad(score)(x).square().sum()

    compiled = torch.compile(grad(loss), fullgraph=True, dynamic=False)(weights, x)
    torch.testing.assert_close(compiled, grad(loss)(weights, x), rtol=1e-10, atol=1e-12)


def test_a_transposed_convolution_is_the_adjoint_of_one_of_stride_two():
    layer = TransposedConv2d(3, 2, bias=False).double()
    for height, width in ((8, 10), (7, 9), (8, 9)):
        x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
        image = torch.randn(2, 2, height, width, dtype=torch.float64)
        down = F.conv2d(image, layer.weight, stride=2, padding=2)
        torch.testing.assert_close((layer(x, (height, width)) * image).sum(), (x * down).sum())
    with pytest.raises(ValueError, match="output size"):
        layer(x, (10, 10))
