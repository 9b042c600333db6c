"""The chest X-ray example from data to report, small, interrupted and resumed."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "chest_xray"


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Return the example's modules, with a preset that takes seconds, in an empty working directory."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delenv("CONDGAN_CHEST_XRAY", raising=False)
    monkeypatch.chdir(tmp_path)
    import pipeline
    import presets

    tiny = dataclasses.replace(
        presets.PRESETS["smoke"],
        image_size=16,
        base_channels=4,
        steps={"acgan": 4, "acwgan_gp": 2},
        batch_size=8,
        generator_batch_size=8,
        classifier_epochs=1,
        precision="fp32",
        phantoms=60,
    )
    monkeypatch.setitem(presets.PRESETS, "smoke", tiny)
    yield pipeline
    for name in ("pipeline", "presets", "report", "source"):
        sys.modules.pop(name, None)


def options(pipeline, **changes):
    defaults = {
        "data": "phantom",
        "classes": 3,
        "recipes": ("acgan", "acwgan_gp"),
        "preset": "smoke",
        "image_size": None,
        "steps": None,
        "seed": 0,
        "out": Path("out"),
        "resume": False,
        "device": "cpu",
        "real_images": True,
    }
    return pipeline.Options(**{**defaults, **changes})


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "commit")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def test_a_run_leaves_everything_it_promises(example):
    folder = example.run(options(example))
    results = json.loads((folder / "results.json").read_text())
    for arm in results["arms"].values():
        assert sum(map(sum, arm["test"]["confusion"])) == results["data"]["test"]["images"]
        assert arm["test"]["balanced_accuracy"]["low"] <= arm["test"]["balanced_accuracy"]["high"]
        assert arm["training_images"] == results["data"]["train"]["images"]
    assert list(results["arms"]) == ["real", "acgan", "acwgan_gp"]
    assert results["test_evaluations"] == 3
    assert results["data"]["train"]["fingerprint"] != results["data"]["test"]["fingerprint"]
    report = (folder / "report.md").read_text()
    assert report.splitlines()[0].startswith("**NO REAL X-RAY WAS USED")
    for picture in ("acgan_samples.png", "acwgan_gp_samples.png", "acgan_training.png", "comparison.png"):
        assert (folder / picture).stat().st_size > 1000
        assert f"({picture})" in report
    for recipe in ("acgan", "acwgan_gp"):
        assert (folder / recipe / "generator" / "model.safetensors").is_file()
    assert "For research only" in report


def test_an_interrupted_run_resumes_to_the_same_results(example, monkeypatch):
    whole = json.loads((example.run(options(example, out=Path("whole"))) / "results.json").read_text())
    for stage in ("train_gan", "train_arm"):
        with monkeypatch.context() as patch:
            patch.setattr(example, stage, fail_second_call(getattr(example, stage)))
            with pytest.raises(KeyboardInterrupt):
                example.run(options(example, out=Path("parts"), resume=stage == "train_arm"))
    resumed = json.loads((example.run(options(example, out=Path("parts"), resume=True)) / "results.json").read_text())
    assert without_times(resumed) == without_times(whole)


def fail_second_call(stage):
    calls = []

    def call(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return stage(*args)

    return call


def test_a_used_folder_and_changed_settings_are_refused(example):
    folder = example.run(options(example, recipes=("acgan",)))
    with pytest.raises(SystemExit, match="is not empty: add --resume"):
        example.run(options(example, recipes=("acgan",)))
    with pytest.raises(SystemExit, match=r"other settings \(seed"):
        example.run(options(example, recipes=("acgan",), seed=1, out=folder, resume=True))
    with pytest.raises(SystemExit, match="no run to resume"):
        example.run(options(example, out=Path("nowhere"), resume=True))


def test_a_report_to_share_shows_no_real_image(example, monkeypatch):
    shown = []
    import report

    monkeypatch.setattr(report, "sample_grid", lambda *args, real, **rest: shown.append(real))
    example.run(options(example, recipes=("acgan",), real_images=False))
    assert shown == [None]
    example.run(options(example, recipes=("acgan",), out=Path("other")))
    assert shown[1] is not None
