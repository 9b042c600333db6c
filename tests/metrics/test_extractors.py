import urllib.error
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from condgan.images import to_float
from condgan.metrics import extractors
from condgan.metrics.extractors import CrossFit, Extractor, Fold, clip, dinov2, inception, weights_hash
from condgan.metrics.fidelity import inception_score, kid

URL = "weights-inception-2015-12-05-6726825d.pth"

module_extractor = partial(extractors.module_extractor, device="cpu")


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
    networks = [module_extractor(nn.Linear(2, 2), name="net", image_shape=(1, 8, 8)) for _ in range(2)]
    info = CrossFit(tuple(Fold(e, torch.arange(2)) for e in networks), "abc").info
    assert info.name == "net, cross-fitted in 2 folds"
    assert info.weights_hash == "+".join(e.info.weights_hash for e in networks)


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


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    """No network, and an empty hub folder."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights for torch-fidelity's Inception: the real ones are a download."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    path = tmp_path_factory.mktemp("weights") / URL
    torch.save(network.state_dict(), path)
    return path


def test_inception_gives_the_figures_of_torch_fidelity(inception_file):
    from torch_fidelity import calculate_metrics

    fake, real = images(3, size=16, seed=0), images(3, size=16, seed=1)
    extractor = inception(inception_file, device="cpu")
    assert extractor.info.name == "Inception v3, layer 2048"
    assert extractor.info.resize.startswith("to 299x299, bilinear as in TensorFlow 1")
    expected = calculate_metrics(
        input1=Subset(fake.expand(-1, 3, -1, -1), range(len(fake))),
        input2=Subset(real.expand(-1, 3, -1, -1), range(len(real))),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(inception_file),
        isc=True,
        kid=True,
        kid_subset_size=3,
        kid_subsets=3,
        isc_splits=2,
        rng_seed=0,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    features, logits = extractor.extract(fake)
    assert features.shape == (3, 2048)
    score = kid(features, extractor(real), subset_size=3, subsets=3)
    assert score.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)
    assert inception_score(logits, splits=2).value == pytest.approx(expected["inception_score_mean"], rel=1e-6)


def test_inception_is_found_in_the_hub_folder_and_has_smaller_layers(inception_file, tmp_path):
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / URL).symlink_to(inception_file)
    extractor = inception(layer="64", device="cpu")
    assert extractor(images(2, size=16, seed=0)).shape == (2, 64)
    assert extractor.info.name == "Inception v3, layer 64"


@pytest.mark.parametrize(("make", "file"), [(inception, URL), (clip, "ViT-B-32.pt")])
def test_nothing_is_fetched_in_silence(make, file, monkeypatch):
    monkeypatch.setattr(torch.hub, "urlopen", lambda *args, **kwargs: pytest.fail("downloads"))
    with pytest.raises(FileNotFoundError, match=rf"Get https://.*{file}.*weights=<file>.*allow_download=True"):
        make()
    with pytest.raises(FileNotFoundError, match="not at nowhere"):
        make("nowhere.pt", allow_download=True)


@pytest.mark.parametrize("make", [inception, clip])
def test_a_failed_download_says_so(make, tmp_path):
    with pytest.raises(ConnectionError, match=r"fetching https://.* failed: .*no network.*weights=<file>"):
        make(allow_download=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_download_is_checked_against_its_hash(inception_file, monkeypatch):
    asked = {}

    def fetch(url, path, hash_prefix, progress):
        asked.update(url=url, hash_prefix=hash_prefix)
        torch.save(torch.load(inception_file, weights_only=True), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert inception(allow_download=True, device="cpu").channels == 3
    assert asked["url"].endswith(URL)
    assert asked["hash_prefix"] == "6726825d"


def test_files_of_other_networks_and_objects_are_refused(tmp_path):
    other, pickled, text = tmp_path / "other.pth", tmp_path / "pickled.pth", tmp_path / "text.pth"
    torch.save({"conv.weight": torch.zeros(3)}, other)
    torch.save(nn.Linear(2, 2), pickled)
    text.write_text("not weights")
    with pytest.raises(ValueError, match="torchvision's is another network"):
        inception(other)
    for path in (pickled, text):
        with pytest.raises(ValueError, match="dictionary of tensors and nothing else"):
            inception(path)
    with pytest.raises(ValueError, match="TorchScript archive of clip-vit-b-32"):
        clip(text)


def test_clip_reads_a_torchscript_archive(tmp_path):
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    class Archive(CLIPVisual):
        def __init__(self):
            super().__init__(8, 32, 1, 64, 16)
            self.text_projection = nn.Parameter(torch.zeros(4, 8))

        def forward(self, x):
            return self.visual(x) @ self.text_projection.T

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        archive = Archive().eval()
    path = tmp_path / "clip.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(archive, torch.zeros(1, 3, 32, 32)).save(str(path))
    extractor = clip(path, device="cpu")
    assert extractor(images(3, size=16, seed=0)).shape == (3, 8)
    assert extractor.info.resize.startswith("to 32x32")
    assert extractor.extract(images(3, size=16, seed=0)).logits is None


HUBCONF = """
import torch

def dinov2_vits14(pretrained=True):
    if pretrained:
        raise OSError("no network")
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 5))
"""


def test_dinov2_takes_a_clone_and_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XFORMERS_DISABLED", "1")
    repository, weights = tmp_path / "dinov2", tmp_path / "dinov2_vits14_pretrain.pth"
    repository.mkdir()
    (repository / "hubconf.py").write_text(HUBCONF)
    linear = nn.Linear(12, 5)
    torch.save({"2.weight": linear.weight, "2.bias": linear.bias}, weights)
    extractor = dinov2(weights, repository=repository, device="cpu")
    x = images(3, size=224, seed=0)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    prepared = (x.float() / 255 - mean[:, None, None]) / std[:, None, None]
    expected = linear(nn.functional.adaptive_avg_pool2d(prepared, 2).flatten(1))
    torch.testing.assert_close(extractor(x), expected, atol=1e-5, rtol=1e-5)
    assert extractor.info.resize.startswith("to 224x224")
    with pytest.raises(ConnectionError, match="fetching dinov2_vits14 failed: no network"):
        dinov2(repository=repository, allow_download=True)
    torch.save({"0.weight": linear.weight}, weights)
    with pytest.raises(ValueError, match="weights of dinov2_vits14, but does not fit"):
        dinov2(weights, repository=repository)


def test_dinov2_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "load", lambda *args, **kwargs: pytest.fail("loads"))
    with pytest.raises(
        FileNotFoundError, match=r"weights= and repository=.*Clone https://.*dinov2_vitb14_pretrain.pth"
    ):
        dinov2(name="dinov2-vit-b-14")
    with pytest.raises(FileNotFoundError, match=r"needs repository="):
        dinov2(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        dinov2(tmp_path, repository=tmp_path)


@pytest.mark.parametrize("make", [clip, dinov2])
def test_unknown_networks(make):
    with pytest.raises(ValueError, match=r"name must be among .*, got 'vit'"):
        make(name="vit")
