import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.augmentation.warp import warp

SHAPE = (2, 7, 9)


def images(count=3, seed=0, dtype=torch.float64):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def amounts(count=3, *, shift=(0.0, 0.0), scale=1.0, angle=0.0, dtype=torch.float64):
    return {
        "shift": torch.tensor([shift] * count, dtype=dtype),
        "scale": torch.full((count,), scale, dtype=dtype),
        "angle": torch.full((count,), angle, dtype=dtype),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_change_is_exact(dtype):
    x = images(dtype=dtype)
    out = warp(x, **amounts(dtype=torch.float32))
    assert out.dtype == dtype
    assert torch.equal(out, x)


def test_whole_pixels_are_shifted_exactly():
    x = images()
    out = warp(x, **amounts(shift=(2.0, -3.0)))
    assert torch.equal(out[:, :, 2:, :-3], x[:, :, :-2, 3:])
    assert not out[:, :, :2].any()
    assert not out[:, :, :, -3:].any()


def test_half_a_pixel_is_the_mean_of_two():
    x = images()
    out = warp(x, **amounts(shift=(0.0, 0.5)))
    torch.testing.assert_close(out[..., 1:], (x[..., 1:] + x[..., :-1]) / 2)
    torch.testing.assert_close(out[..., 0], x[..., 0] / 2)


def test_a_quarter_turn_is_a_permutation():
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(warp(x, **amounts(1, angle=math.pi / 2)), x.rot90(1, (2, 3)))


def test_twice_the_size_shows_the_middle():
    x = images(1)
    out = warp(x, **amounts(1, scale=2.0))
    torch.testing.assert_close(out[..., 3, 4], x[..., 3, 4])
    torch.testing.assert_close(out[..., 1, 4], x[..., 2, 4])
    torch.testing.assert_close(out[..., 3, 6], x[..., 3, 5])


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.floats(-3, 3), st.floats(-3, 3)), st.floats(0.5, 2), st.floats(-math.pi, math.pi), st.integers(0, 99)
)
def test_parity_with_grid_sample(shift, scale, angle, seed):
    x = images(2, seed)
    height, width = SHAPE[1:]
    # the inverse map in PyTorch's coordinates, in which the image spans [-1, 1] and x comes before y
    sine, cosine = math.sin(angle) / scale, math.cos(angle) / scale
    half = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    matrix = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    offset = -matrix @ torch.tensor([shift[1], shift[0]], dtype=torch.float64)
    theta = torch.cat([matrix * half / half[:, None], (offset / half)[:, None]], dim=1)
    grid = F.affine_grid(theta.expand(2, 2, 3), [2, *SHAPE], align_corners=True)
    expected = F.grid_sample(x, grid, align_corners=True, padding_mode="zeros")
    torch.testing.assert_close(warp(x, **amounts(2, shift=shift, scale=scale, angle=angle)), expected)


def test_derivatives_of_first_and_second_order():
    x = images(2).requires_grad_()
    change = amounts(2, shift=(0.3, -1.2), scale=0.8, angle=0.4)
    torch.autograd.gradcheck(lambda x: warp(x, **change), (x,))
    torch.autograd.gradgradcheck(lambda x: warp(x, **change).square(), (x,))
