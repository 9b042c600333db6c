"""The ablation: its training sets, its peers, and how images are judged."""

import dataclasses
from pathlib import Path

import pytest
import torch

import condgan as cg
from condgan.files import from_json, to_json, write_json

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "ablation"


def two_levels(normal=40, ill=60, seed=0):
    y = torch.arange(normal + ill) >= normal
    rng = torch.Generator().manual_seed(seed)
    grey = 80 + 90 * y.view(-1, 1, 1, 1) + 10 * torch.randn(len(y), 1, 16, 16, generator=rng)
    return cg.data.ArrayDataset(grey.clamp(0, 255).byte(), y.long(), class_names=("normal", "pneumonia"))


def test_reduced_sets_have_the_counts_of_their_names(load):
    parts = load("images").Parts(two_levels(300, 900), two_levels(), two_levels())
    assert parts.reduced("full") is parts.train
    assert parts.reduced("800").class_counts == (160, 640)
    assert parts.reduced("rare-100").class_counts == (100, 900)
    assert parts.reduced("800").fingerprint == parts.reduced("800").fingerprint


def test_steps_are_what_is_left_after_drawing(load):
    main = load("trials")
    trial = main.Trial(entry="flow", set="full", side=32, minutes=5, seed=0)
    assert main.steps_of(trial, main.StepTime(milliseconds=100.0, draw_seconds=25.0), 4000) == 2000


def test_gaussians_have_the_moments_of_each_class(load):
    data = two_levels(400, 400)
    draw = load("alternatives").ClassGaussian().train(data, steps=1, seed=0)
    y = torch.arange(4000) % 2
    images = draw(y, 1)
    assert torch.equal(images, draw(y, 1))
    assert not torch.equal(images, draw(y, 2))
    for label in (0, 1):
        real, drawn = data.images[data.labels == label].double(), images[y == label].double()
        torch.testing.assert_close(drawn.mean(0), real.mean(0), atol=1.5, rtol=0)
        torch.testing.assert_close(drawn.std(0), real.std(0), atol=1.5, rtol=0)


@pytest.mark.slow  # diffusers takes seconds to import
@pytest.mark.parametrize("kind", ["flow", "ddpm"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_diffusion_models_learn_the_level_of_a_class(load, kind, guidance):
    pytest.importorskip("diffusers")
    peer = load("alternatives").Diffusion(kind, 8, guidance, widths=(8, 16))
    draw = peer.train(two_levels(), steps=60, seed=0)
    y = torch.arange(32) % 2
    images = draw(y, 0)
    assert images.shape == (32, 1, 16, 16)
    assert images.dtype == torch.uint8
    assert float(images[y == 1].double().mean()) > float(images[y == 0].double().mean())


def test_each_entry_can_be_made_and_stages_name_entries(load):
    entries = load("entries")
    assert set(cg.recipes.CONDITIONAL) <= set(entries.ENTRIES)
    for trials in entries.STAGES.values():
        assert {trial["entry"] for trial in trials()} <= set(entries.ENTRIES)


def test_real_images_teach_more_than_images_with_the_wrong_labels(load, tiny_classifier, monkeypatch, tmp_path):
    judging, main = load("judging"), load("trials")
    monkeypatch.setattr(judging, "CLASSIFIER_STEPS", 60)
    monkeypatch.setattr(judging, "LEARNING_RATE", 1e-2)
    train, validation = two_levels(seed=1), two_levels(seed=2)
    judge = judging.Judge(train, validation, tmp_path)
    good = judge.judge(two_levels(seed=3), train)
    other = two_levels(seed=4)
    wrong = judge.judge(cg.data.ArrayDataset(other.images, 1 - other.labels, class_names=other.class_names), train)
    assert good.auroc > 0.99
    assert wrong.auroc < 0.01
    assert min(good.recognized.values()) > 0.9
    assert max(wrong.recognized.values()) < 0.1
    assert good.memorization.keys() == good.coverage.keys() == {"normal", "pneumonia"}
    trial = main.Trial(entry="acgan", set="full", side=16, minutes=5, seed=0)
    outcome = main.Outcome(
        trial=trial,
        contestant="a recipe",
        steps=1,
        images=(40, 60),
        drawn=100,
        seconds=(1.0, 0.1),
        judged_on="validation",
        judgement=wrong,
    )
    assert from_json(main.Outcome, to_json(outcome)) == outcome
    write_json(tmp_path / "trials" / f"{trial.name}.json", to_json(outcome))
    again = dataclasses.replace(outcome, trial=dataclasses.replace(trial, seed=1), judgement=good)
    write_json(tmp_path / "trials" / "again.json", to_json(again))
    row = main.table(tmp_path).splitlines()[-1]
    assert row.startswith("| full | 16 | 5 | validation | 300 | acgan | 2 | 0.5")
    assert f"({wrong.auroc:.3f} to {good.auroc:.3f})" in row
    assert row.endswith("| 1 |")
    (tmp_path / "trials" / "again.json").unlink()
    row = main.table(tmp_path).splitlines()[-1]
    assert row.startswith("| full | 16 | 5 | validation | 300 | acgan | 1 | 0.0")
    assert row.endswith("| 1 |")


def test_the_page_of_methods_shows_the_committed_trials(load):
    table = load("trials").table(SCRIPTS / "results")
    page = (SCRIPTS.parents[1] / "docs/pages/methods.md").read_text(encoding="utf-8")
    assert f"<!-- ablation -->\n{table}\n<!-- /ablation -->" in page, "run python docs/update.py --ablation"
