import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from condgan.classifier.augmentation import ClassicalAugment

STILL = ClassicalAugment(rotation=0, translation=0, scale=0, brightness=0, contrast=0)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n=6, shape=(1, 20, 24)):
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=rng(7))


@given(
    rotation=st.floats(0, 180),
    translation=st.floats(0, 1),
    scale=st.floats(0, 0.9),
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 1),
    flip=st.booleans(),
    shape=st.sampled_from([(1, 9, 12), (3, 8, 8)]),
)
def test_keeps_shape_and_type(shape, **strengths):
    images = noise(3, shape)
    before = images.clone()
    changed = ClassicalAugment(**strengths)(images, rng=rng())
    assert changed.dtype == torch.uint8
    assert changed.shape == images.shape
    assert torch.equal(images, before)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 31, 50), (1, 128, 96)])
def test_no_strength_changes_nothing(shape):
    images = noise(4, shape)
    assert torch.equal(STILL(images, rng=rng()), images)


def test_is_seeded_and_leaves_the_global_state_alone():
    images, augment, state = noise(), ClassicalAugment(), torch.get_rng_state()
    assert torch.equal(augment(images, rng=rng(1)), augment(images, rng=rng(1)))
    assert not torch.equal(augment(images, rng=rng(1)), augment(images, rng=rng(2)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["rotation", "translation", "scale", "brightness", "contrast"])
def test_every_strength_changes_each_image_on_its_own(name):
    image = noise(1).expand(6, -1, -1, -1)
    changed = dataclasses.replace(STILL, **{name: getattr(ClassicalAugment(), name)})(image, rng=rng())
    assert len(changed.flatten(1).unique(dim=0)) == 6


def test_brightness_and_contrast_follow_their_formulas():
    images = torch.full((2000, 1, 2, 2), 100, dtype=torch.uint8)
    images[:, :, 0] = 140
    bright = dataclasses.replace(STILL, brightness=0.2)(images, rng=rng()).float() - images
    assert bool((bright == bright[:, :, :1, :1]).all())
    assert bright.min() == -51
    assert bright.max() == 51
    contrast = dataclasses.replace(STILL, contrast=0.5)(images, rng=rng()).float()
    assert bool(((contrast.mean((1, 2, 3)) - 120).abs() <= 0.5).all())
    spread = contrast[:, 0, 0, 0] - contrast[:, 0, 1, 0]
    assert (spread.min(), spread.max()) == (20, 60)


def test_a_turn_keeps_its_angle_in_images_that_are_not_square():
    """A bar of twelve pixels through the middle stays as long, wherever it points."""
    image = torch.zeros(1, 1, 21, 61, dtype=torch.uint8)
    image[:, :, 9:12, 24:37] = 255
    turned = dataclasses.replace(STILL, rotation=90)(image.expand(40, -1, -1, -1), rng=rng()).float() / 255
    rows, columns = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(61) - 30.0, indexing="ij")
    length = (turned[:, 0] * (rows**2 + columns**2)).sum((1, 2)) / turned.sum((1, 2, 3))
    assert turned.sum((1, 2, 3)).std() < 1
    assert length.std() / length.mean() < 0.05
    assert (turned[:, 0, :5] > 0.5).any(2).any(1).sum() > 5, "some bars stand upright"


def test_shifts_are_parts_of_the_size_and_bring_in_black():
    image = torch.full((2000, 1, 20, 40), 200, dtype=torch.uint8)
    shifted = dataclasses.replace(STILL, translation=0.25)(image, rng=rng())
    black = shifted == 0
    assert black.all(3).sum(2).max() in (4, 5)
    assert black.all(2).sum(2).max() in (9, 10)


def test_scale_changes_the_size_both_ways():
    image = torch.zeros(500, 1, 40, 40, dtype=torch.uint8)
    image[:, :, 10:30, 10:30] = 255
    area = (dataclasses.replace(STILL, scale=0.2)(image, rng=rng()).float() / 255).sum((1, 2, 3)).sqrt() / 20
    assert area.min() == pytest.approx(0.8, abs=0.02)
    assert area.max() == pytest.approx(1.2, abs=0.02)


def test_a_flip_is_left_to_right_and_off_by_default():
    images = noise(64)
    changed = dataclasses.replace(STILL, flip=True)(images, rng=rng())
    mirrored = (changed == images.flip(3)).flatten(1).all(1)
    same = (changed == images).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 16 < mirrored.sum() < 48
    assert not ClassicalAugment().flip


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ({"rotation": -1}, r"rotation must lie in \[0, 180\], degrees, got -1"),
        ({"translation": 5}, r"translation must lie in \[0, 1\], a fraction, got 5"),
        ({"scale": 1}, "scale must lie"),
        ({"contrast": float("nan")}, "contrast must lie"),
    ],
)
def test_strengths_are_checked(strengths, message):
    with pytest.raises(ValueError, match=message):
        ClassicalAugment(**strengths)


def test_images_are_checked():
    with pytest.raises(ValueError, match="images must be uint8"):
        ClassicalAugment()(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="images must be uint8"):
        ClassicalAugment()(noise()[0])


@pytest.mark.cuda
def test_on_the_gpu_nothing_waits_and_the_generator_may_live_elsewhere():
    images, augment = noise().to("cuda"), ClassicalAugment(flip=True)
    drawn_on_host = augment(images, rng=rng())
    assert (drawn_on_host.cpu().float() - augment(noise(), rng=rng()).float()).abs().max() <= 1
    on_device = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(images, rng=on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
