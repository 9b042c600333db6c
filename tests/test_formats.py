"""Files of every format that was ever released are read, as those of today are.

`python tests/test_formats.py FOLDER` writes a folder in the format of the installed version; `fixtures/format-0` is of
the versions before formats had numbers.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import condgan as cg
from condgan.classifier import Classifier
from condgan.training import checkpoint

FORMATS = sorted((Path(__file__).parent / "fixtures").glob("format-*"))


class TinyGenerator(cg.Generator):
    def __init__(self, *, num_classes=2, latent_dim=2):
        super().__init__(latent_dim=latent_dim, num_classes=num_classes, image_shape=(2,))
        self.body = nn.Linear(latent_dim + num_classes, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, z, y=None):
        return self.norm(self.body(torch.cat([z, nn.functional.one_hot(y, self.num_classes).to(z.dtype)], dim=1)))


class TinyCritic(cg.Critic):
    def __init__(self, *, num_classes=2):
        super().__init__(feature_dim=2, num_classes=num_classes, image_shape=(2,))
        self.body = nn.Linear(2, 2)

    def features(self, x):
        return self.body(x)


def make_trainer():
    torch.manual_seed(0)
    options = {"schedule": "linear", "regularizers": [cg.LeCam()], "device": "cpu", "seed": 3}
    return cg.Trainer(TinyGenerator(), TinyCritic(), loss=cg.HingeLoss(), **options)


def make_classifier():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    return Classifier(model, ("a", "b"), (1, 4, 4), 0.5, ({"epoch": 1, "loss": 0.25},), {"precision": "fp32"}, 1.5)


def make_points():
    rng = torch.Generator().manual_seed(0)
    return cg.data.ArrayDataset(torch.randn(8, 2, generator=rng), [0, 1] * 4)


def make_images():
    return torch.arange(48, dtype=torch.uint8).view(3, 1, 4, 4)


def write(folder):
    trainer, classifier = make_trainer(), make_classifier()
    trainer.fit(make_points(), steps=2, batch_size=4)
    trainer.save(folder / "checkpoints")
    trainer.ema.save_pretrained(folder / "generator")
    classifier.save(folder / "classifier.safetensors")
    expected = {
        "samples": trainer.sample([0, 1, 1], seed=0).tolist(),
        "probabilities": classifier.predict_proba(make_images()).tolist(),
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


def assert_expected(folder, name, values):
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))[name]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=values.dtype))


def test_there_is_a_file_of_each_format():
    assert [folder.name for folder in FORMATS] == [f"format-{number}" for number in range(checkpoint.FORMAT + 1)]


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_checkpoints_of_each_format_continue(folder):
    trainer = make_trainer()
    assert trainer.resume(folder / "checkpoints")
    assert_expected(folder, "samples", trainer.sample([0, 1, 1], seed=0))
    with pytest.warns(UserWarning, match=r"continues in another way than it was saved: steps was 2 and is 3\."):
        trainer.fit(make_points(), steps=3, batch_size=4)


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_weights_of_each_format_are_read(folder):
    generator = TinyGenerator.from_pretrained(folder / "generator")
    rng = torch.Generator().manual_seed(0)
    assert_expected(folder, "samples", cg.sampling.sample(generator, [0, 1, 1], rng=rng))


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_classifiers_of_each_format_are_read(folder, monkeypatch):
    monkeypatch.setattr("condgan.classifier.training.build_network", lambda *_, **__: make_classifier().model)
    classifier = Classifier.load(folder / "classifier.safetensors")
    assert_expected(folder, "probabilities", classifier.predict_proba(make_images()))
    assert (classifier.class_names, classifier.history) == (("a", "b"), ({"epoch": 1, "loss": 0.25},))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
