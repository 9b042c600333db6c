import pytest
import torch
from torch.utils.data import TensorDataset

from condgan import metrics, recipes
from condgan.classifier import train_classifier
from condgan.data import ArrayDataset
from condgan.devices import best_device
from condgan.stats import best_threshold, classification_report, group_bootstrap, seed_interval
from condgan.study import keep_patients
from condgan.training import as_labelled


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda:1"), (False, True, "mps"), (False, False, "cpu")]
)
def test_cuda_comes_before_mps_and_mps_before_the_cpu(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == torch.device(expected)


@pytest.fixture
def other_defaults():
    """A default device that holds no values, so that nothing made on it can be used, and another default type."""
    torch.set_default_dtype(torch.float64)
    with torch.device("meta"):
        yield
    torch.set_default_dtype(torch.float32)


PROBABILITIES = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).softmax(1)
LABELS = torch.arange(40) % 2

CALLS = {
    "labels": lambda fake, train, test, pool: metrics.label_report(
        fake, test, metrics.CrossFit((metrics.Fold(pool, LABELS),), train.fingerprint), resamples=20
    ),
    "fidelity": lambda fake, train, test, pool: metrics.fidelity_report(fake, train, test, pool),
    "diversity": lambda fake, train, test, pool: metrics.diversity_report(fake, train, pool),
    "memorization": lambda fake, train, test, pool: metrics.memorization_report(fake, train, test, pool, resamples=20),
    "evaluate": lambda fake, train, test, pool: metrics.evaluate(fake, train, test=test, held_out=test, extractor=pool),
    "ms_ssim": lambda fake, train, test, pool: metrics.ms_ssim(fake.images, train.images).tolist(),
    "density": lambda fake, train, test, pool: metrics.density_coverage(pool(fake.images), pool(test.images)),
    "classification": lambda *sets: classification_report(PROBABILITIES, LABELS, resamples=20),
    "bootstrap": lambda *sets: group_bootstrap(lambda w: w @ LABELS.double() / w.sum(1), LABELS, resamples=20),
    "threshold": lambda *sets: best_threshold(PROBABILITIES[:, 1], LABELS),
    "seeds": lambda *sets: seed_interval(
        lambda p, w: (w @ p[:, 1].double()) / w.sum(1), [[PROBABILITIES, PROBABILITIES.flip(0)]], range(40)
    ),
}


@pytest.fixture(scope="module")
def judged(phantoms):
    train, _, test = phantoms
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), Twice())
    pool = metrics.module_extractor(module, name="pool", image_shape=(1, 16, 16), device="cpu")
    fake = ArrayDataset(train.images.flip(3), train.labels, class_names=train.class_names)
    return fake, train, test, pool


class Twice(torch.nn.Module):
    """Features that are class logits too."""

    def forward(self, h):
        return h, h[:, :2]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_figures_do_not_depend_on_the_callers_default_device_and_type(call, judged, request):
    expected = call(*judged)
    request.getfixturevalue("other_defaults")
    assert call(*judged) == expected
    assert torch.get_default_dtype() == torch.float64
    assert torch.zeros(1).is_meta


def split_and_train(sets):
    """Return images of a generator that was trained on a part of some data, and figures of the data."""
    data = ArrayDataset(sets.images.numpy(), sets.labels.tolist(), groups=range(len(sets)))
    part, _ = data.split(0.4)
    few = keep_patients(part, 1, 50).subset(range(20))
    read = as_labelled(TensorDataset(few.images, few.labels), class_names=few.class_names)
    trainer = recipes.small_data(few, base_channels=2, device="cpu", pretraining=0.5)
    trainer.fit(read, steps=2, batch_size=4)
    return part.fingerprint, few.fingerprint, read.fingerprint, trainer.sample([0, 1], seed=0)


def test_data_and_training_do_not_depend_on_the_callers_default_device(phantoms):
    *expected, images = split_and_train(phantoms[0])
    with torch.device("meta"):
        *found, same = split_and_train(phantoms[0])
    assert found == expected
    assert torch.equal(images, same)


@pytest.mark.usefixtures("other_defaults")
def test_classifiers_and_extractors_do_not_depend_on_them(phantoms):
    train, validation, test = phantoms
    classifier = train_classifier(train, validation, epochs=1, steps=1, batch_size=4, precision="fp32", device="cpu")
    assert {p.dtype for p in classifier.model.parameters()} == {torch.float32}
    assert classifier.predict_proba(test.images).shape == (len(test), 2)
    module = torch.nn.Conv2d(1, 4, 16, device="cpu")  # of float64, as it is the default
    extractor = metrics.module_extractor(
        torch.nn.Sequential(module, torch.nn.Flatten()), name="own", image_shape=(1, 16, 16), device="cpu"
    )
    assert extractor(test.images).dtype == torch.float32
