import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.metrics.diversity import ms_ssim, ms_ssim_scales

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def noise(*shape, seed=0):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def constant(value, side=32):
    return torch.full((1, 1, side, side), value, dtype=torch.uint8)


def slow_ms_ssim(x, y, weights):
    """One window after the other, in float64."""
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    result = 1.0
    for scale, weight in enumerate(weights):
        values = []
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                spread = (window * (a - mean_a) ** 2).sum() + (window * (b - mean_b) ** 2).sum()
                value = (2 * (window * (a - mean_a) * (b - mean_b)).sum() + C2) / (spread + C2)
                if scale == len(weights) - 1:
                    value *= (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
                values.append(value)
        result *= max(np.mean(values), 0) ** weight
        half = [2 * (side // 2) for side in x.shape]
        x, y = (image[: half[0], : half[1]].reshape(half[0] // 2, 2, half[1] // 2, 2).mean((1, 3)) for image in (x, y))
    return result


def test_constant_images_by_hand():
    # contrast and structure are 1, so only the luminance of the coarsest of two scales is left
    luminance = (2 * 100 * 50 + C1) / (100**2 + 50**2 + C1)
    expected = luminance ** (0.2856 / (0.0448 + 0.2856))
    assert float(ms_ssim(constant(100), constant(50))) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("height", "width", "weights"), [(16, 13, [1.0]), (25, 22, [0.0448, 0.2856])])
def test_equals_one_window_after_the_other(height, width, weights):
    base = noise(1, 1, height, width)
    other = (base.float() * 0.7 + noise(1, 1, height, width, seed=1).float() * 0.3).to(torch.uint8)
    weights = np.array(weights) / sum(weights)
    expected = slow_ms_ssim(base[0, 0].double().numpy(), other[0, 0].double().numpy(), weights)
    assert 0.3 < expected < 0.95
    assert float(ms_ssim(base, other)) == pytest.approx(expected, rel=1e-4)


@given(st.integers(11, 50), st.integers(11, 50), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_equal_images_are_one_and_order_does_not_matter(height, width, channels, seed):
    x, y = noise(3, channels, height, width, seed=seed), noise(3, channels, height, width, seed=seed + 1)
    assert torch.equal(ms_ssim(x, x), torch.ones(3))
    assert torch.allclose(ms_ssim(x, y), ms_ssim(y, x))
    assert torch.allclose(ms_ssim(x, y).flip(0), ms_ssim(x.flip(0), y.flip(0)))


def test_channels_are_averaged_and_batches_do_not_matter(monkeypatch):
    x, y = noise(5, 3, 24, 30), noise(5, 3, 24, 30, seed=1)
    x[:, 0] = y[:, 0]
    whole = ms_ssim(x, y)
    single = torch.stack([ms_ssim(x[:, c : c + 1], y[:, c : c + 1]) for c in range(3)]).mean(0)
    assert torch.allclose(whole, single)
    monkeypatch.setattr("condgan.metrics.diversity._PAIRS_AT_ONCE", 2)
    assert torch.allclose(whole, ms_ssim(x, y))


def test_negatives_of_each_other_have_no_similarity():
    x = noise(2, 1, 32, 32)
    assert torch.equal(ms_ssim(x, 255 - x), torch.zeros(2))


def test_scales_follow_the_size():
    assert [ms_ssim_scales((1, s, 300)) for s in (11, 21, 22, 43, 44, 88, 175, 176, 999)] == [1, 1, 2, 2, 3, 4, 4, 5, 5]


def test_messages():
    x = noise(1, 1, 32, 32)
    with pytest.raises(ValueError, match="uint8 images of one shape"):
        ms_ssim(x, x.float())
    with pytest.raises(ValueError, match="uint8 images of one shape"):
        ms_ssim(x, x[..., :30])
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ms_ssim(x[..., :8, :8], x[..., :8, :8])
