import pytest
import torch

from condgan.images import dequantize, image_grid, to_float, to_uint8

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_grey_levels_survive_the_way_there_and_back():
    x = to_float(LEVELS)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(to_uint8(x), LEVELS)
    assert torch.equal(to_uint8(x.double()), LEVELS)


def test_the_source_is_not_overwritten():
    for convert in (to_float, lambda images: dequantize(images, torch.full(images.shape, 0.5))):
        images = LEVELS.clone()
        convert(images)
        assert torch.equal(images, LEVELS)


def test_samples_that_are_floats_pass_unchanged():
    points = torch.tensor([[300.0, -2.0]], dtype=torch.float64)
    assert to_float(points) is points


@pytest.mark.parametrize("noise", [0.0, 0.5, 0.999])
def test_dequantized_levels_keep_their_order_and_place(noise):
    x = dequantize(LEVELS, torch.full(LEVELS.shape, noise, dtype=torch.float64))
    torch.testing.assert_close((x + 1) * 128, LEVELS + torch.tensor(noise, dtype=torch.float64))
    assert torch.equal(((x + 1) * 128).floor().to(torch.uint8), LEVELS)


def test_values_out_of_range_are_clipped():
    x = torch.tensor([-9.0, -1.001, 1.001, 9.0], requires_grad=True)
    assert to_uint8(x).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(("count", "columns", "rows"), [(6, 3, 2), (5, 3, 2), (2, 4, 1), (1, 1, 1)])
def test_a_sheet_holds_the_images_row_by_row(count, columns, rows):
    images = torch.arange(1, count + 1, dtype=torch.uint8)[:, None, None, None].expand(count, 3, 4, 5)
    sheet = image_grid(images, columns=columns, padding=2, background=200)
    assert sheet.shape == (3, rows * 6 + 2, columns * 7 + 2)
    for i in range(rows * columns):
        top, left = 2 + i // columns * 6, 2 + i % columns * 7
        tile = sheet[:, top : top + 4, left : left + 5]
        assert bool((tile == (i + 1 if i < count else 200)).all())
        sheet[:, top : top + 4, left : left + 5] = 200
    assert bool((sheet == 200).all())


def test_a_sheet_without_padding():
    images = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]).to(torch.uint8)
    assert image_grid(images, columns=2, padding=0).tolist() == [[[0, 0, 1, 1], [0, 0, 1, 1]]]
