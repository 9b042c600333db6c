from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from condgan.nn import (
    ConditionalBatchNorm2d,
    DownBlock,
    DownResidualBlock,
    UpBlock,
    UpResidualBlock,
    pyramid,
    upsample,
)

Sides = st.integers(min_value=16, max_value=600)


@given(height=Sides, width=Sides)
def test_pyramid_halves_down_to_a_side_in_4_to_7(height: int, width: int) -> None:
    sizes = pyramid(height, width)
    assert sizes[-1] == (height, width)
    assert 4 <= min(sizes[0]) < 8
    for smaller, larger in itertools.pairwise(sizes):
        assert smaller == ((larger[0] + 1) // 2, (larger[1] + 1) // 2)
    assert pyramid(width, height) == [(w, h) for h, w in sizes]


@given(height=Sides, width=Sides, base=st.integers(min_value=1, max_value=8))
def test_pyramid_stops_at_the_base(height: int, width: int, base: int) -> None:
    assert base <= min(pyramid(height, width, base=base)[0]) < 2 * base or min(height, width) < 2 * base


@pytest.mark.parametrize("size", [(15, 64), (64, 15), (0, 0)])
def test_pyramid_refuses_small_images(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"at least 16 pixels high and wide, got {size[0]}x{size[1]}"):
        pyramid(*size)


@pytest.mark.parametrize("block_class", [UpBlock, UpResidualBlock])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (13, 11)])
def test_up_blocks_reach_any_size(block_class: type[UpBlock | UpResidualBlock], size: tuple[int, int]) -> None:
    block = block_class(3, 5, size=size, norm=partial(ConditionalBatchNorm2d, num_classes=2))
    assert block(torch.randn(2, 3, 4, 5), torch.tensor([0, 1])).shape == (2, 5, *size)


@pytest.mark.parametrize("size", [(10, 12), (9, 11)])
def test_the_shortcut_commutes_with_up_sampling(size: tuple[int, int]) -> None:
    block = UpResidualBlock(3, 5, size=size, norm=ConditionalBatchNorm2d).double()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(block(x), block.shortcut(F.interpolate(x, size)))


def test_up_residual_block_against_its_formula() -> None:
    block = UpResidualBlock(3, 5, size=(8, 8), norm=partial(ConditionalBatchNorm2d, num_classes=2)).double().eval()
    for norm in (block.norm1, block.norm2):
        nn.init.normal_(norm.gain)
        nn.init.normal_(norm.shift)
    x, y = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.tensor([1, 0])
    enlarge = nn.Upsample(scale_factor=2)
    h = F.conv2d(enlarge(block.norm1(x, y).relu()), block.conv1.weight, padding=1)
    main = block.conv2(block.norm2(h, y).relu())
    torch.testing.assert_close(block(x, y), main + block.shortcut(enlarge(x)))


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (9, 5), (1, 1)])
def test_down_residual_block_rounds_sizes_up(size: tuple[int, int]) -> None:
    out = DownResidualBlock(3, 5)(torch.randn(2, 3, *size))
    assert out.shape == (2, 5, (size[0] + 1) // 2, (size[1] + 1) // 2)


def test_the_pooled_shortcut_commutes() -> None:
    """Also at the border of odd sizes, where the pool averages over fewer places."""
    block = DownResidualBlock(3, 5).double()
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    main = F.conv2d(F.relu(block.conv1(F.relu(x))), block.conv2.weight, block.conv2.bias, padding=1)
    expected = F.avg_pool2d(main, 2, ceil_mode=True) + F.avg_pool2d(block.shortcut(x), 2, ceil_mode=True)
    torch.testing.assert_close(block(x), expected)


def test_constant_maps_stay_constant_under_pooling() -> None:
    """Every pooled place weighs the same: no border of odd sizes is darker."""
    pooled = F.avg_pool2d(torch.ones(1, 1, 7, 9), 2, ceil_mode=True)
    block = DownResidualBlock(1, 1)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(block.shortcut.weight)
    assert torch.equal(block(torch.ones(1, 1, 7, 9)), pooled)
    assert torch.equal(pooled, torch.ones(1, 1, 4, 5))


def test_the_first_block_sees_negative_pixels() -> None:
    x = -torch.rand(2, 3, 8, 8)
    first, later = DownResidualBlock(3, 5, first=True), DownResidualBlock(3, 5)
    for block in (first, later):
        nn.init.zeros_(block.shortcut.weight)
    assert first(x).std((2, 3)).max() > 0
    constant = later(x)[..., 1:-1, 1:-1]
    torch.testing.assert_close(constant, constant[..., :1, :1].expand_as(constant))


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_down_block_rounds_sizes_down(size: tuple[int, int]) -> None:
    out = DownBlock(3, 5)(torch.randn(2, 3, *size))
    assert out.shape == (2, 5, size[0] // 2, size[1] // 2)


def test_down_block_has_a_bias_only_without_norm() -> None:
    assert DownBlock(3, 5).conv.bias is not None
    assert DownBlock(3, 5, norm=ConditionalBatchNorm2d).conv.bias is None


def test_upsampling_stays_in_its_type_under_autocast() -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        low = upsample(x.bfloat16(), (7, 10))
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low, F.interpolate(x.bfloat16(), (7, 10)), rtol=0, atol=0)
    torch.testing.assert_close(upsample(x, (8, 10)), x.repeat_interleave(2, 2).repeat_interleave(2, 3), rtol=0, atol=0)
