import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from condgan.images import to_float
from condgan.metrics import extractors as features
from condgan.metrics.extractors import CrossFit, Extractor, Fold, weights_hash

module_extractor = partial(features.module_extractor, device="cpu")


def images(n=7, channels=1, size=8, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=rng, dtype=torch.uint8)


class Flat(nn.Module):
    """Features and logits of one linear layer each, with dropout and batch norm that only evaluation mode tames."""

    def __init__(self, pixels=64):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(pixels, 6), nn.BatchNorm1d(6))
            self.head = nn.Linear(6, 3)

    def forward(self, x):
        h = self.body(x)
        return h, self.head(h)


def flat_extractor(**options):
    return module_extractor(Flat(), name="flat", image_shape=(1, 8, 8), **options)


def test_features_are_those_of_the_module_in_evaluation_mode():
    module, x = Flat(), images()
    extractor = module_extractor(module, name="flat", image_shape=(1, 8, 8))
    h, logits = extractor.extract(x)
    expected = module.eval()(to_float(x))
    torch.testing.assert_close(h, expected[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(logits, expected[1], atol=1e-6, rtol=1e-5)
    assert torch.equal(extractor(x), h)
    assert h.dtype == torch.float32
    assert not h.requires_grad


def test_batches_change_nothing():
    x = images(10)
    torch.testing.assert_close(flat_extractor(batch_size=3)(x), flat_extractor()(x))


def test_the_module_is_copied():
    module, x = Flat(), images()
    extractor = module_extractor(module, name="flat", image_shape=(1, 8, 8))
    before = extractor(x)
    nn.init.zeros_(module.body[2].weight)
    extractor.module.train()
    assert torch.equal(extractor(x), before)
    assert module.head.weight.requires_grad


def test_normalization_and_repeated_channels():
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    extractor = module_extractor(pool, name="mean", image_shape=(3, 8, 8), mean=mean, std=std)
    x = images(5)
    level = x.float().mean((2, 3)) / 255
    torch.testing.assert_close(extractor(x), (level - torch.tensor(mean)) / torch.tensor(std))
    torch.testing.assert_close(extractor(x.expand(-1, 3, -1, -1)), extractor(x))


def test_resize_is_antialiased_and_said():
    extractor = module_extractor(nn.Flatten(), name="pixels", image_shape=(1, 4, 4), mean=0.0, std=1.0)
    stripes = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    stripes[..., ::2] = 255
    # without antialiasing the stripes would alias to plain black or white
    assert (extractor(stripes) - 0.5).abs().max() < 0.1
    assert extractor.info.resize == "to 4x4, bilinear, antialiased"


def test_hash_tells_weights_apart_and_nothing_else():
    module = Flat()
    assert weights_hash(module) == weights_hash(Flat()) == flat_extractor().info.weights_hash
    assert len(weights_hash(module)) == 16
    convolution = nn.Conv2d(4, 4, 3)
    before = weights_hash(convolution)
    assert weights_hash(convolution.to(memory_format=torch.channels_last)) == before
    module.body[3].running_mean += 1
    assert weights_hash(module) != weights_hash(Flat())
    assert weights_hash(Flat().bfloat16()) != weights_hash(Flat())


def test_crossfit_names_all_its_networks():
    extractors = [module_extractor(nn.Linear(2, 2), name="net", image_shape=(1, 8, 8)) for _ in range(2)]
    info = CrossFit(tuple(Fold(e, torch.arange(2)) for e in extractors), "abc").info
    assert info.name == "net, cross-fitted in 2 folds"
    assert info.weights_hash == "+".join(e.info.weights_hash for e in extractors)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 1, 8, 8), "to_uint8"),
        (images()[0], "must be uint8 of the shape"),
        (images(0), "must be uint8 of the shape"),
        (images(channels=3), "takes images of 1 channels"),
    ],
)
def test_images_are_checked(x, message):
    with pytest.raises(ValueError, match=message):
        flat_extractor()(x)


@pytest.mark.parametrize(
    ("module", "got"),
    [(nn.Identity(), r"\(7, 1, 8, 8\)"), (nn.Flatten(0, 2), r"\(56, 8\)"), (nn.LSTM(8, 4), "")],
)
def test_outputs_are_checked(module, got):
    class Squeezed(nn.Module):
        def forward(self, x):
            return module(x[:, 0] if isinstance(module, nn.LSTM) else x)

    extractor = module_extractor(Squeezed(), name="odd", image_shape=(1, 8, 8))
    with pytest.raises(ValueError, match=rf"odd must map 7 images.*{got}.*Pool over positions"):
        extractor(images())


def test_broken_weights_are_not_hidden():
    module = Flat()
    module.body[2].weight.data[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="finite"):
        module_extractor(module, name="broken", image_shape=(1, 8, 8))(images())


def test_options_are_checked():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        flat_extractor(batch_size=0)
    with pytest.raises(ValueError, match="std must be one number or one for each of 3"):
        module_extractor(Flat(), name="flat", image_shape=(3, 8, 8), std=(1.0, 2.0))


def test_any_module_over_uint8_images_can_be_used():
    class Means(nn.Module):
        def forward(self, x):
            return x.double().mean((2, 3))

    info = flat_extractor().info
    assert Extractor(info, Means(), channels=3)(images(4)).shape == (4, 3)


def test_nothing_heavy_is_loaded_before_it_is_needed():
    code = "import condgan.metrics, sys; sys.exit(bool({'torch_fidelity', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
