import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgan.data import ArrayDataset, ChestPhantom
from condgan.files import from_json, to_json
from condgan.metrics.diversity import (
    DiversityReport,
    MeanWithError,
    _mean_over_pairs,
    diversity_report,
    ms_ssim,
    ms_ssim_scales,
)

COUNT = 120
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@pytest.fixture(scope="module")
def halves():
    data = ChestPhantom((2 * COUNT, 2 * COUNT), classes=2, image_shape=(1, 32, 32), seed=5)
    return data.split(0.5, seed=0)


def as_generated(images, labels, real):
    return ArrayDataset(images, labels, class_names=real.class_names)


def one_image(real, label):
    """The first image of a class in place of all others of it, which may be told apart from a real half."""
    images = real.images.clone()
    images[real.labels == label] = images[(real.labels == label).nonzero()[0]]
    return as_generated(images, real.labels, real)


def with_noise(data, level):
    noise = level * torch.randn(data.images.shape, generator=torch.Generator().manual_seed(0))
    images = (data.images.float() + noise).round().clamp(0, 255).byte()
    return as_generated(images, data.labels, data)


def judge(generated, real, **options):
    return diversity_report(generated, real, **{"pairs": 400, **options})


def test_one_image_for_a_class_is_collapsed(halves):
    report = judge(one_image(halves[0], 1), halves[1])
    assert report.collapsed == ("pneumonia",)
    entry = report.per_class["pneumonia"]
    assert entry.generated.ms_ssim == MeanWithError(1.0, 0.0)
    assert entry.generated.distance == entry.generated.nearest == MeanWithError(0.0, 0.0)
    assert entry.explanation.startswith("Collapsed: compared with real images, pairs look 0% as different")


@pytest.mark.parametrize("level", [2.0, 5.0, 10.0])
def test_one_image_with_mild_noise_is_collapsed(halves, level):
    report = judge(with_noise(one_image(halves[0], 0), level), halves[1])
    assert report.per_class["normal"].collapsed


def test_one_image_at_changing_brightness_is_collapsed(halves):
    images = one_image(halves[0], 0).images.float()
    scale = 0.7 + 0.6 * torch.rand(len(images), 1, 1, 1, generator=torch.Generator().manual_seed(0))
    darker = as_generated((scale * images).clamp(0, 255).byte(), halves[0].labels, halves[0])
    assert "normal" in judge(darker, halves[1]).collapsed


@pytest.mark.parametrize("modes", [3, 20])
def test_a_handful_of_images_is_collapsed_though_pairs_look_different(halves, modes):
    real = halves[0]
    images = torch.cat([real.images[real.labels == label][torch.arange(COUNT) % modes] for label in (0, 1)])
    few = as_generated(images, torch.arange(2).repeat_interleave(COUNT), real)
    report = judge(few, halves[1])
    assert report.collapsed == real.class_names
    for entry in report.per_class.values():
        assert entry.generated.distance.value > 0.5 * entry.real.distance.value


def test_real_images_are_not_collapsed(halves):
    for generated, real in (halves, halves[::-1]):
        report = judge(as_generated(generated.images, generated.labels, generated), real)
        assert report.collapsed == ()
        for entry in report.per_class.values():
            difference = entry.generated.ms_ssim.value - entry.real.ms_ssim.value
            error = math.hypot(entry.generated.ms_ssim.standard_error, entry.real.ms_ssim.standard_error)
            assert abs(difference) < 4 * error
            assert entry.generated.distance.value == pytest.approx(entry.real.distance.value, rel=0.15)


def test_smooth_images_are_not_collapsed(halves):
    smooth = torch.nn.functional.avg_pool2d(halves[0].images.float(), 3, 1, 1, count_include_pad=False).byte()
    assert judge(as_generated(smooth, halves[0].labels, halves[0]), halves[1]).collapsed == ()


def test_numbers_are_those_of_all_pairs(halves):
    real = halves[1]
    rows = (real.labels == 0).nonzero().flatten()
    first, second = rows[torch.triu_indices(len(rows), len(rows), 1)]
    other = real.groups[first] != real.groups[second]
    first, second = first[other], second[other]
    flat = real.images.flatten(1).double()
    entry = judge(as_generated(real.images, real.labels, real), real, pairs=10**6).per_class["normal"].real
    assert entry.pairs == pytest.approx(len(first), rel=0.01)
    assert entry.groups == len(real.groups[rows].unique()) < entry.images == len(rows)
    assert entry.ms_ssim.value == pytest.approx(
        float(ms_ssim(real.images[first], real.images[second]).mean()), abs=1e-3
    )
    assert entry.distance.value == pytest.approx(float((flat[first] - flat[second]).norm(dim=1).mean()), rel=1e-3)
    among = torch.cdist(flat[rows], flat[rows])
    among[real.groups[rows, None] == real.groups[rows]] = torch.inf
    assert entry.nearest.value == pytest.approx(float(among.amin(1).mean()))


def test_pairs_are_of_two_patients_and_as_many_as_asked(halves):
    entry = judge(as_generated(halves[0].images, halves[0].labels, halves[0]), halves[1], pairs=77).per_class["normal"]
    assert entry.generated.pairs == 77
    assert entry.real.pairs <= 77
    assert entry.generated.compared == entry.real.compared == min(entry.generated.images, entry.real.images)


def test_error_of_a_mean_over_pairs_by_hand():
    # residuals 1, -1, 0 on the pairs (a, b), (b, c), (c, d): sums of patients 1, 0, -1, 0; variance (2 - 2) -> at
    # least that of independent pairs, 2 / 9
    found = _mean_over_pairs(torch.tensor([2.0, 0.0, 1.0]).double(), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]))
    assert found.value == 1.0
    assert found.standard_error == pytest.approx(math.sqrt(2) / 3)
    # residuals 2, 2, -4 on (a, b), (a, c), (d, e): a's sum is 4; (16 + 4 + 4 + 16 + 16 - 24) / 9
    found = _mean_over_pairs(torch.tensor([3.0, 3.0, -3.0]).double(), torch.tensor([0, 0, 3]), torch.tensor([1, 2, 4]))
    assert found.standard_error == pytest.approx(math.sqrt(32) / 3)


@pytest.mark.parametrize("shifts", [1, 5, 20])
def test_error_of_a_mean_over_pairs_is_the_spread_over_samples(shifts):
    rng = torch.Generator().manual_seed(0)
    first = torch.arange(60).repeat(shifts)
    second = torch.cat([torch.arange(60).roll(-shift) for shift in range(1, shifts + 1)])
    found = []
    for _ in range(400):
        x = torch.randn(60, generator=rng, dtype=torch.float64).exp()
        found.append(_mean_over_pairs((x[first] - x[second]).abs(), first, second))
    spread = torch.tensor([mean.value for mean in found]).std()
    claimed = torch.tensor([mean.standard_error for mean in found]).square().mean().sqrt()
    assert float(claimed) == pytest.approx(float(spread), rel=0.12)


def test_report_is_json_and_repeats_with_its_seed(halves):
    generated = as_generated(halves[0].images, halves[0].labels, halves[0])

    def corners(images):
        return images[..., :4, :4].flatten(1).float()

    first, again, other = (judge(generated, halves[1], extractor=corners, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.per_class != other.per_class
    tree = json.loads(json.dumps(to_json(first), allow_nan=False))
    assert from_json(DiversityReport, tree) == first
    assert tree["extractor"]["name"] == "corners"
    assert tree["settings"]["ms_ssim_scales"] == 2
    assert tree["settings"]["real"] == {"fingerprint": halves[1].fingerprint, "images": len(halves[1])}
    ours = tree["per_class"]["normal"]["generated"]["ms_ssim"]
    assert ours["value"] == first.per_class["normal"].generated.ms_ssim.value


def test_messages(halves):
    generated = as_generated(halves[0].images, halves[0].labels, halves[0])
    with pytest.raises(ValueError, match="generated must have the image shape of the real images"):
        diversity_report(generated.resize(16, 16), halves[1])
    rows = torch.cat([(halves[0].labels == label).nonzero().flatten()[: 30 - 21 * label] for label in (0, 1)])
    with pytest.raises(ValueError, match=r"at least 10 images, got 9 of pneumonia"):
        diversity_report(generated.subset(rows), halves[1])
    with pytest.raises(ValueError, match="margin must lie between 0 and 1"):
        diversity_report(generated, halves[1], margin=1.0)


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
    assert torch.allclose(ms_ssim(x, y), ms_ssim(y, x), atol=1e-4)
    assert torch.allclose(ms_ssim(x, y).flip(0), ms_ssim(x.flip(0), y.flip(0)), atol=1e-4)  # powers near 0


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


def test_ms_ssim_messages():
    x = noise(1, 1, 32, 32)
    with pytest.raises(ValueError, match="uint8 images of one shape"):
        ms_ssim(x, x.float())
    with pytest.raises(ValueError, match="uint8 images of one shape"):
        ms_ssim(x, x[..., :30])
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ms_ssim(x[..., :8, :8], x[..., :8, :8])
