import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.augmentation import DiffAugment
from condgan.types import Augmentation

CPU = torch.device("cpu")
ALL = "brightness,saturation,contrast,translation,cutout"


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, shape, seed=0, dtype=torch.float64):
    return torch.rand(count, *shape, generator=rng(seed), dtype=dtype) * 2 - 1


def augment_by_hand(policy, x, draws, translation_ratio=0.125, cutout_ratio=0.5):
    """Pixel by pixel, in NumPy."""
    out = x.numpy().copy()
    for n, image in enumerate(out):
        _, height, width = image.shape
        for name in policy.split(","):
            draw = draws[name][n].double().numpy()
            if name == "brightness":
                image += draw
            elif name == "saturation":
                for row in range(height):
                    for column in range(width):
                        grey = image[:, row, column].mean()
                        image[:, row, column] = draw * (image[:, row, column] - grey) + grey
            elif name == "contrast":
                grey = image.mean()
                image[:] = draw * (image - grey) + grey
            elif name == "translation":
                before, image[:] = image.copy(), 0
                for row in range(height):
                    for column in range(width):
                        there = row - int(draw[0]), column - int(draw[1])
                        if 0 <= there[0] < height and 0 <= there[1] < width:
                            image[:, row, column] = before[:, there[0], there[1]]
            else:
                sides = [int(size * cutout_ratio + 0.5) for size in (height, width)]
                for row in range(height):
                    for column in range(width):
                        place = row - int(draw[0]) + sides[0] // 2, column - int(draw[1]) + sides[1] // 2
                        if 0 <= place[0] < sides[0] and 0 <= place[1] < sides[1]:
                            image[:, row, column] = 0
    return torch.from_numpy(out)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 9, 6), (2, 5, 12)])
@pytest.mark.parametrize("policy", [*ALL.split(","), ALL, "cutout,translation,brightness"])
def test_parity_with_loops_over_pixels(policy, shape):
    augment = DiffAugment(policy=policy)
    x = images(12, shape)
    draws = augment.draw(12, shape, rng=rng(1), device=CPU)
    torch.testing.assert_close(augment(x, draws), augment_by_hand(policy, x, draws))


def test_ratios_are_arguments():
    augment = DiffAugment(policy="translation,cutout", translation_ratio=0.5, cutout_ratio=0.25)
    x = images(12, (1, 8, 10))
    draws = augment.draw(12, (1, 8, 10), rng=rng(1), device=CPU)
    assert draws["translation"].abs().max() > 1
    expected = augment_by_hand("translation,cutout", x, draws, cutout_ratio=0.25)
    torch.testing.assert_close(augment(x, draws), expected)
    still = DiffAugment(policy="translation,cutout", translation_ratio=0, cutout_ratio=0)
    assert torch.equal(still(x, still.draw(12, (1, 8, 10), rng=rng(), device=CPU)), x)


def test_draws_have_the_ranges_of_the_paper():
    count, shape = 4_000, (3, 64, 33)
    draws = DiffAugment(policy=ALL).draw(count, shape, rng=rng(), device=CPU)
    assert list(draws) == ALL.split(",")
    for name, low, high in (("brightness", -0.5, 0.5), ("saturation", 0, 2), ("contrast", 0.5, 1.5)):
        assert draws[name].shape == (count,)
        assert draws[name].dtype == torch.float32
        assert low <= draws[name].min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < draws[name].max() < high
    for name, low, high in (("translation", (-8, -4), (8, 4)), ("cutout", (0, 0), (64, 32))):
        assert draws[name].shape == (count, 2)
        assert tuple(draws[name].amin(0).tolist()) == low
        assert tuple(draws[name].amax(0).tolist()) == high


def test_cutout_covers_the_image_as_often_at_both_ends():
    augment = DiffAugment(policy="cutout")
    for shape in ((1, 8, 7), (1, 6, 10)):
        holes = augment(torch.ones(40_000, *shape), augment.draw(40_000, shape, rng=rng(), device=CPU)) == 0
        rows = holes.any(dim=3).double().mean(0).squeeze()
        torch.testing.assert_close(rows, rows.flip(0), atol=0.015, rtol=0)


def test_draws_come_from_the_given_source_alone():
    augment = DiffAugment(policy=ALL)
    before = torch.get_rng_state()
    first, again, other = (augment.draw(5, (3, 8, 8), rng=rng(seed), device=CPU) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    for name in first:
        assert torch.equal(first[name], again[name])
    assert any(not torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(0)
    default = augment.draw(5, (3, 8, 8), rng=None, device=CPU)
    torch.manual_seed(0)
    assert torch.equal(default["contrast"], augment.draw(5, (3, 8, 8), rng=None, device=CPU)["contrast"])


def test_draws_follow_the_device():
    draws = DiffAugment().draw(2, (1, 8, 8), rng=None, device=torch.device("meta"))
    assert {value.device.type for value in draws.values()} == {"meta"}


def test_every_image_has_its_own_draw():
    augment = DiffAugment(policy="brightness")
    x = torch.zeros(6, 1, 4, 4)
    levels = augment(x, augment.draw(6, (1, 4, 4), rng=rng(), device=CPU))[:, 0, 0, 0]
    assert len(levels.unique()) == 6


@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 5, 4)])
def test_gradients_of_first_and_second_order(shape):
    augment = DiffAugment(policy=ALL)
    draws = augment.draw(3, shape, rng=rng(2), device=CPU)
    x = images(3, shape).requires_grad_()
    torch.autograd.gradcheck(lambda x: augment(x, draws), (x,))
    torch.autograd.gradgradcheck(lambda x: augment(x, draws).square(), (x,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_type_and_shape_are_kept(dtype):
    augment = DiffAugment(policy=ALL)
    x = images(4, (3, 6, 9), dtype=torch.float32).to(dtype)
    out = augment(x, augment.draw(4, (3, 6, 9), rng=rng(), device=CPU))
    assert out.dtype == dtype
    assert out.shape == x.shape


def test_input_is_left_alone():
    augment = DiffAugment(policy=ALL)
    x = images(4, (3, 6, 6))
    before = x.clone()
    draws = augment.draw(4, (3, 6, 6), rng=rng(), device=CPU)
    assert torch.equal(augment(x, draws), augment(x, draws))
    assert torch.equal(x, before)


def test_saturation_leaves_greyscale_alone():
    augment = DiffAugment(policy="saturation")
    x = images(4, (1, 6, 6))
    assert torch.equal(augment(x, augment.draw(4, (1, 6, 6), rng=rng(), device=CPU)), x)


def test_values_stay_near_the_range_of_images():
    augment = DiffAugment()
    x = images(64, (1, 16, 16))
    out = augment(x, augment.draw(64, (1, 16, 16), rng=rng(), device=CPU))
    # Brightness adds at most 0.5, contrast then stretches by at most 1.5 around the mean.
    assert out.abs().max() < 1.5 * 1.5 + 0.75


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.permutations(range(5)))
def test_permuting_the_batch_permutes_the_result(seed, order):
    augment = DiffAugment(policy=ALL)
    x = images(5, (3, 6, 8), seed=seed)
    draws = augment.draw(5, (3, 6, 8), rng=rng(seed), device=CPU)
    permuted = augment(x[order], {name: value[order] for name, value in draws.items()})
    torch.testing.assert_close(permuted, augment(x, draws)[order])


def test_translation_there_and_back():
    augment = DiffAugment(policy="translation")
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    shift = torch.tensor([[2, -3]])
    there = augment(x, {"translation": shift})
    assert there[0, 0, 6, 1] == 1
    assert torch.equal(augment(there, {"translation": -shift}), x)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("brightnes,contrast", "got 'brightnes'. Did you mean 'brightness'?"),
        ("flip", "must be among brightness, contrast, cutout, saturation, translation, got 'flip'"),
        ("", "got ''"),
        ("cutout,cutout", "must differ from each other, got cutout, cutout"),
    ],
)
def test_bad_policies_are_refused(policy, message):
    with pytest.raises(ValueError, match="the operations in policy must") as error:
        DiffAugment(policy=policy)
    assert message in str(error.value)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, math.nan])
def test_bad_ratios_are_refused(ratio):
    with pytest.raises(ValueError, match=r"translation_ratio must be in \[0, 1\]"):
        DiffAugment(translation_ratio=ratio)
    with pytest.raises(ValueError, match=r"cutout_ratio must be in \[0, 1\]"):
        DiffAugment(cutout_ratio=ratio)


def test_bad_calls_are_refused():
    augment = DiffAugment(policy="brightness, cutout")
    x = images(4, (1, 6, 6))
    draws = augment.draw(4, (1, 6, 6), rng=rng(), device=CPU)
    with pytest.raises(ValueError, match=r"x must be floating-point images of shape \(N, C, H, W\)"):
        augment(x[0], draws)
    with pytest.raises(ValueError, match=r"x must be floating-point images.*got torch.uint8"):
        augment(x.to(torch.uint8), draws)
    with pytest.raises(ValueError, match="draws must hold 3 rows of 'brightness', one per image, got 4 rows"):
        augment(x[:3], draws)
    with pytest.raises(ValueError, match="draws must hold 4 rows of 'cutout', one per image, got none"):
        augment(x, {"brightness": draws["brightness"]})
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\), got the sample shape \(7,\)"):
        augment.draw(4, (7,), rng=rng(), device=CPU)


def test_is_an_augmentation():
    assert isinstance(DiffAugment(), Augmentation)
    assert DiffAugment() == DiffAugment(policy="brightness,contrast,translation,cutout")
    assert np.isclose(DiffAugment().translation_ratio, 1 / 8)
