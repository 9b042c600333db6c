import urllib.error
import warnings

import pytest
import torch
from torch import nn

from condgan.metrics import extractors as pretrained
from condgan.metrics.extractors import clip, dinov2, inception
from condgan.metrics.fidelity import inception_score, kid

URL = "weights-inception-2015-12-05-6726825d.pth"


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


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def draw_images(n, seed, size=16):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, size, size), generator=rng, dtype=torch.uint8)


def test_inception_gives_the_figures_of_torch_fidelity(inception_file):
    from torch_fidelity import calculate_metrics

    fake, real = draw_images(3, 0), draw_images(3, 1)
    extractor = inception(inception_file, device="cpu")
    assert extractor.info.name == "Inception v3, layer 2048"
    assert extractor.info.resize.startswith("to 299x299, bilinear as in TensorFlow 1")
    expected = calculate_metrics(
        input1=Images(fake.expand(-1, 3, -1, -1)),
        input2=Images(real.expand(-1, 3, -1, -1)),
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
    assert extractor(draw_images(2, 0)).shape == (2, 64)
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
    assert extractor(draw_images(3, 0)).shape == (3, 8)
    assert extractor.info.resize.startswith("to 32x32")
    assert extractor.extract(draw_images(3, 0)).logits is None


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
    x = draw_images(3, 0, size=224)
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
    with pytest.raises(ValueError, match=r"name must be one of .*, got 'vit'"):
        make(name="vit")


def test_reading_a_file_of_tensors_is_safe(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(2)}, path)
    assert torch.equal(pretrained._load_tensors(path)["a"], torch.ones(2))
