import pytest
import torch

from condgan.data.dataset import ArrayDataset
from condgan.metrics.crossfit import crossfit_extractor
from condgan.metrics.fidelity_report import fidelity_report

TINY = {"epochs": 1, "precision": "fp32", "device": "cpu", "batch_size": 16}


@pytest.fixture
def shown(monkeypatch):
    """The images that each training was shown, for training and for validation."""
    from condgan.metrics import crossfit as extractor

    calls, train_classifier = [], extractor.train_classifier

    def record(fit, validation, **options):
        calls.append((fit, validation, options))
        return train_classifier(fit, validation, **options)

    monkeypatch.setattr(extractor, "train_classifier", record)
    return calls


def draw(counts=(48, 72), seed=0, *, groups=True):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(2).repeat_interleave(torch.tensor(counts))
    images = (80 + 60 * y[:, None, None, None] + 30 * torch.randn(len(y), 1, 8, 8, generator=rng)).clamp(0, 255)
    return ArrayDataset(images.to(torch.uint8), y, groups=torch.arange(len(y)) // 3 if groups else None, source="noise")


@pytest.mark.usefixtures("tiny_classifier")
@pytest.mark.parametrize("folds", [2, 3])
def test_no_network_sees_the_patients_it_judges(folds, shown):
    train = draw()
    fitted = crossfit_extractor(train, folds=folds, **TINY)
    held_out = torch.cat([fold.held_out for fold in fitted.folds])
    assert torch.equal(held_out.sort().values, torch.arange(len(train)))
    assert fitted.fingerprint == train.fingerprint
    for number, (fold, (fit, validation, options)) in enumerate(zip(fitted.folds, shown, strict=True)):
        judged = {train.group_names[number] for number in train.groups[fold.held_out]}
        assert judged & {*fit.group_names, *validation.group_names} == set()
        assert not set(fit.group_names) & set(validation.group_names)
        assert len(fit) + len(validation) + len(fold.held_out) == len(train)
        assert train.labels[fold.held_out].bincount().tolist() == pytest.approx([48 / folds, 72 / folds], abs=3)
        assert options["seed"] == number
    assert len({fold.extractor.info.weights_hash for fold in fitted.folds}) == folds


@pytest.mark.usefixtures("tiny_classifier")
def test_the_report_takes_it_as_it_is():
    train = draw()
    fitted = crossfit_extractor(train, **TINY)
    assert fitted.info.name == "ResNet-18 trained on noise, by group, cross-fitted in 2 folds"
    report = fidelity_report(draw(seed=1), train, draw(seed=2), fitted, kid_subsets=2)
    assert report.overall["inception_score"].generated.value > 1
    assert report.extractor == fitted.info


@pytest.mark.usefixtures("tiny_classifier")
def test_same_seed_same_networks_and_no_groups_are_said():
    train = draw(groups=False)
    first, second, other = (crossfit_extractor(train, **TINY, seed=seed).info for seed in (0, 0, 1))
    assert first == second
    assert first.weights_hash != other.weights_hash
    assert "by image (no groups given)" in first.name


def test_features_are_those_before_the_head():
    data = draw((8, 8), groups=False)
    fitted = crossfit_extractor(data, **TINY)
    extractor = fitted.folds[0].extractor
    features, logits = extractor.extract(data.images)
    assert features.shape == (16, 512)
    network = extractor.module.module.network
    torch.testing.assert_close(network.head(features), logits, atol=1e-4, rtol=1e-4)


def test_one_fold_is_none():
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        crossfit_extractor(draw(), folds=1)
