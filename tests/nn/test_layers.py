from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from condgan.nn import ConcatenatedEmbedding, ConditionalBatchNorm2d, SelfAttention2d, spectral_normalize
from condgan.nn.layers import without_synchronization


@settings(max_examples=20, deadline=None)
@given(
    num_classes=st.sampled_from([None, 2, 5]),
    momentum=st.sampled_from([0.1, 1.0, None]),
    shape=st.tuples(st.integers(2, 6), st.integers(1, 7), st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 2**16),
)
def test_gain_one_and_shift_zero_are_batch_norm(
    num_classes: int | None, momentum: float | None, shape: tuple[int, ...], seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    norm = ConditionalBatchNorm2d(shape[1], num_classes, momentum=momentum).double()
    reference = nn.BatchNorm2d(shape[1], momentum=momentum).double()
    y = None if num_classes is None else torch.randint(num_classes, shape[:1], generator=rng)
    for _ in range(3):
        x = torch.randn(shape, generator=rng, dtype=torch.float64) * 3 + 1
        torch.testing.assert_close(norm(x, y), reference(x))
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    assert norm.num_batches_tracked == reference.num_batches_tracked == 3
    torch.testing.assert_close(norm.eval()(x, y), reference.eval()(x))


def test_gain_and_shift_are_those_of_the_class() -> None:
    norm = ConditionalBatchNorm2d(3, 4).double()
    nn.init.normal_(norm.gain)
    nn.init.normal_(norm.shift)
    x, y = torch.randn(6, 3, 4, 5, dtype=torch.float64), torch.tensor([3, 1, 1, 0, 2, 3])
    normalized = F.batch_norm(x, None, None, training=True)
    out = norm(x, y)
    for i, label in enumerate(y.tolist()):
        expected = norm.gain[label, :, None, None] * normalized[i] + norm.shift[label, :, None, None]
        torch.testing.assert_close(out[i], expected)


def test_conditional_batch_norm_gradients() -> None:
    norm = ConditionalBatchNorm2d(2, 3).double()
    x = torch.randn(4, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 2, 2, 1])
    assert torch.autograd.gradcheck(lambda x, *_: norm(x, y), (x, norm.gain, norm.shift))


def test_wrong_labels_leave_the_running_statistics_alone() -> None:
    norm = ConditionalBatchNorm2d(2, 3)
    with pytest.raises(ValueError, match="needs the labels y, got None"):
        norm(torch.randn(4, 2, 2, 2))
    assert norm.num_batches_tracked == 0
    assert not norm.running_mean.any()


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_outside_the_classes_are_refused(label: int) -> None:
    for layer, first in (
        (ConditionalBatchNorm2d(2, 3), torch.randn(2, 2, 3, 3)),
        (ConcatenatedEmbedding(3, 4), torch.randn(2, 5)),
    ):
        with pytest.raises(ValueError, match=rf"labels must lie in \[0, 3\), the classes, got .*{label}"):
            layer(first, torch.tensor([0, label]))


@pytest.fixture
def two_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[list[ConditionalBatchNorm2d], list[Tensor]], list[Tensor]]:
    """Run one layer for each of two ranks, one after the other, with their all-reduce joined on one graph."""
    rank, deposits = 0, [torch.zeros(()), torch.zeros(())]

    def all_reduce(tensor: Tensor) -> Tensor:
        deposits[rank] = tensor
        return deposits[0] + deposits[1]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr("condgan.nn.layers._AllReduce", SimpleNamespace(apply=all_reduce))

    def run(layers: list[ConditionalBatchNorm2d], inputs: list[Tensor]) -> list[Tensor]:
        nonlocal rank
        for rank in (0, 1):  # what each sends, found on copies
            copy.deepcopy(layers[rank])(inputs[rank])
        outputs = []
        for rank in (0, 1):
            outputs.append(layers[rank](inputs[rank]))
        return outputs

    return run


@pytest.mark.parametrize("momentum", [0.1, None])
def test_global_statistics_are_those_of_the_joined_batch(
    momentum: float | None, two_processes: Callable[..., list[Tensor]]
) -> None:
    reference = nn.BatchNorm2d(3, momentum=momentum).double()
    nn.init.normal_(reference.weight)
    layers = [ConditionalBatchNorm2d(3, momentum=momentum).double() for _ in range(2)]
    for layer in layers:
        layer.load_state_dict(reference.state_dict())
    for _ in range(2):
        halves = [(torch.randn(4, 3, 2, 5, dtype=torch.float64) * (i + 1) + i).requires_grad_() for i in range(2)]
        joined = torch.cat(halves).detach().requires_grad_()
        out, expected = torch.cat(two_processes(layers, halves)), reference(joined)
        torch.testing.assert_close(out, expected)
        weights = torch.randn_like(expected)
        gradients = torch.autograd.grad((out * weights).sum(), halves)
        torch.testing.assert_close(torch.cat(gradients), *torch.autograd.grad((expected * weights).sum(), joined))
    for layer in layers:
        for name, buffer in reference.named_buffers():
            torch.testing.assert_close(layer.get_buffer(name), buffer)


def test_global_statistics_survive_a_large_mean(two_processes: Callable[..., list[Tensor]]) -> None:
    """The mean of squares minus the square of the mean would lose all digits of a small variance."""
    halves = [torch.randn(16, 2, 8, 8) * 0.1 + 1000 for _ in range(2)]
    out = torch.cat(two_processes([ConditionalBatchNorm2d(2) for _ in range(2)], halves))
    torch.testing.assert_close(out, F.batch_norm(torch.cat(halves), None, None, training=True), rtol=1e-2, atol=1e-2)


def test_without_synchronization_a_process_is_on_its_own(two_processes: Callable[..., list[Tensor]]) -> None:
    halves = [torch.randn(4, 2, 3, 3) + i for i in range(2)]
    layers = [ConditionalBatchNorm2d(2) for _ in range(2)]
    with without_synchronization():
        alone = two_processes(layers, halves)
    for out, half in zip(alone, halves, strict=True):
        torch.testing.assert_close(out, F.batch_norm(half, None, None, training=True))
    together = two_processes(layers, halves)
    assert not torch.allclose(together[0], alone[0], atol=0.1)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (1, 6), (2, 2)])
def test_self_attention_equals_a_loop(height: int, width: int) -> None:
    layer = SelfAttention2d(16).double()
    nn.init.constant_(layer.gain, 0.7)
    x = torch.randn(2, 16, height, width, dtype=torch.float64)
    query, key, value, out = (m.weight[:, :, 0, 0] for m in (layer.query, layer.key, layer.value, layer.out))
    expected = x.clone()
    for n in range(2):
        side = 2 if min(height, width) >= 2 else 1
        corners = [(i, j) for i in range(0, height + 1 - side, side) for j in range(0, width + 1 - side, side)]
        windows = [x[n, :, i : i + side, j : j + side].flatten(1) for i, j in corners]
        keys, values = ([(m @ window).amax(1) for window in windows] for m in (key, value))
        for i in range(height):
            for j in range(width):
                similarity = torch.stack([(query @ x[n, :, i, j]) @ k for k in keys]).exp()
                weights = similarity / similarity.sum()
                attended = sum(w * v for w, v in zip(weights, values, strict=True))
                expected[n, :, i, j] += 0.7 * (out @ attended)
    torch.testing.assert_close(layer(x), expected)


def test_self_attention_starts_as_the_identity_and_can_leave_it() -> None:
    layer = SelfAttention2d(8)
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.gain.grad != 0


def test_self_attention_second_derivative() -> None:
    layer = SelfAttention2d(8).double()
    nn.init.constant_(layer.gain, 0.5)
    x = torch.randn(1, 8, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_self_attention_needs_8_channels() -> None:
    with pytest.raises(ValueError, match="channels must be at least 8, got 7"):
        SelfAttention2d(7)


def test_concatenated_embedding() -> None:
    layer = ConcatenatedEmbedding(3, 4)
    z, y = torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 2])
    out = layer(z, y)
    assert torch.equal(out[:, :2], z)
    assert torch.equal(out[:, 2:], layer.embedding.weight[y])
    assert layer.extra_features == 4
    with pytest.raises(ValueError, match="needs the labels y, got None"):
        layer(z, None)
    plain = ConcatenatedEmbedding(None, 4)
    assert plain(z, None) is z
    assert plain.extra_features == 0


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 6, 3),
        nn.Conv1d(3, 6, 3),
        nn.ConvTranspose2d(3, 6, 3),
        nn.Linear(7, 4),
        nn.Embedding(5, 8),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_spectral_normalize_brings_the_largest_singular_value_to_one(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(layer)
    nn.init.normal_(layer.weight, std=3.0)
    spectral_normalize(layer)
    for _ in range(50):
        layer.weight  # noqa: B018 - each read in training mode is one power iteration
    weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1.0, abs=1e-3)


def test_spectral_normalize_takes_each_layer_once() -> None:
    shared = nn.Linear(3, 3)
    elsewhere = spectral_norm(nn.Linear(3, 3))
    network = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared, elsewhere), nn.BatchNorm1d(3))
    assert spectral_normalize(spectral_normalize(network)) is network
    for layer in (shared, elsewhere):
        assert len(layer.parametrizations.weight) == 1
        assert not parametrize.is_parametrized(layer, "bias")
    assert not parametrize.is_parametrized(network[3])


def test_one_power_iteration_for_all_reads_of_a_cached_context() -> None:
    layer = spectral_normalize(nn.Linear(6, 6))
    norm = layer.parametrizations.weight[0]
    nn.init.normal_(layer.parametrizations.weight.original)
    twin = copy.deepcopy(layer)
    with parametrize.cached():
        reads = [layer.weight for _ in range(4)]
        layer(torch.randn(2, 6))
    assert all(read is reads[0] for read in reads)
    assert not torch.equal(norm._u, twin.parametrizations.weight[0]._u)
    once = twin.weight
    assert torch.equal(norm._u, twin.parametrizations.weight[0]._u)
    assert torch.equal(reads[0], once)


def test_spectral_norms_are_computed_outside_of_autocast() -> None:
    """On CUDA it would cast products of a matrix and a vector to half precision."""
    seen = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.mv:
                seen.append(torch.is_autocast_enabled("cpu"))
            return func(*args, **(kwargs or {}))

    layer = spectral_normalize(nn.Linear(6, 6))
    with torch.autocast("cpu", torch.bfloat16), Watch():
        out = layer(torch.randn(2, 6))
    assert out.dtype == torch.bfloat16
    assert seen
    assert not any(seen)


def test_evaluation_mode_iterates_nothing() -> None:
    layer = spectral_normalize(nn.Linear(6, 6)).eval()
    before = copy.deepcopy(layer.state_dict())
    layer(torch.randn(2, 6))
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())
