"""The parts of the benchmark beside the training step: what they compare computes the same."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import condgan as cg
from condgan.images import to_float

PARTS = ("data_paths", "sampling", "classifier", "scaling")
SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "speed"


def test_files_hold_the_images_of_the_library(load, tmp_path):
    data_paths = load("data_paths")
    data = data_paths.make_data(16, 64)
    datasets = data_paths.make_datasets(data, tmp_path)
    assert len(datasets) == 4
    for name, dataset in datasets.items():
        images = torch.stack([x for x, _ in dataset])
        assert images.shape == data.images.shape
        labels = torch.tensor([y for _, y in dataset])
        assert labels.bincount().tolist() == list(data.class_counts)
        tolerance = 0.15 if "224" in name else 0.05 if "jpg" in name else 1e-6
        assert abs(float(images.mean() - to_float(data.images).mean())) < tolerance
        assert abs(float(images.std() - to_float(data.images).std())) < tolerance


def test_both_sides_draw_the_classes_equally_often(load, monkeypatch):
    data_paths = load("data_paths")
    data = data_paths.make_data(16, 4096)
    assert data.class_counts == (1024, 3072)
    loader = data_paths.make_loader(torch.utils.data.TensorDataset(data.labels), data.labels, "cpu", 0)
    assert float(torch.cat([y for (y,) in loader]).double().mean()) == pytest.approx(0.5, abs=0.05)
    inputs = data_paths.make_inputs(data, "cpu", data_paths.STORES["streamed"])
    ours = [next(inputs) for _ in range(64)]
    assert float(torch.cat([step.y for step in ours]).double().mean()) == pytest.approx(0.5, abs=0.05)


def test_loops_sample_the_same_images(load):
    sampling, subjects = load("sampling"), load("subjects")
    generator, _ = subjects.make_networks("dcgan", 16, 4)
    torch.manual_seed(1)
    ours = cg.sample(generator, cg.sampling.class_grid(2, 16), batch_size=16)
    torch.manual_seed(1)
    theirs = sampling.class_by_class(generator.eval(), 16, "cpu")
    torch.testing.assert_close(ours, theirs)
    assert sampling.one_by_one(generator, 3, "cpu").shape == (3, 1, 16, 16)


def test_the_plain_classifier_takes_as_many_steps_and_learns(load):
    classifier = load("classifier")
    torch.manual_seed(0)
    y = torch.arange(40) % 2
    data = cg.data.ArrayDataset((torch.rand(40, 1, 16, 16) * 100 + 100 * y.view(-1, 1, 1, 1)).byte(), y)
    steps = []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    probabilities = classifier.train_plainly(data, data, 12, 16, "cpu")
    hook.remove()
    assert len(steps) == 12  # more than one epoch
    assert probabilities.shape == (40, 2)
    assert probabilities[y == 1, 1].mean() > probabilities[y == 0, 1].mean()


@pytest.mark.slow  # guards the measure of memory, which needs processes of its own
def test_memory_is_that_of_the_training_alone(load):
    scaling, timing = load("scaling"), load("timing")
    ballast = torch.ones(100_000_000)
    settings = timing.Settings("cpu", quick=True)
    tiny = scaling.peak_in_own_process(scaling.TINY, settings)
    images = scaling.peak_in_own_process(scaling.Point(images=100_000, batch_size=2, base_channels=4), settings)
    assert tiny < 30e6 < 100e6 < images < ballast.nbytes


RIVALS = ("image_folder", "image_folder_resized", "tensor_dataset")


@pytest.mark.slow  # guards the speed benchmark beyond the training step, from its command line to its file
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_every_part_runs(load, tmp_path):
    main = runpy.run_path(str(SCRIPTS / "__main__.py"))["main"]
    main(["--device", "cpu", "--quick", "--out", str(tmp_path), "--parts", ",".join(PARTS)])
    results = json.loads((tmp_path / "cpu_quick.json").read_text())
    assert all(results["parts"][name]["rows"] and not results["parts"][name]["left_out"] for name in PARTS)
    assert set(results["ratios"]) == {
        *(f"data_path{store}.{rival}" for store in ("", "_streamed") for rival in RIVALS),
        *(f"sampling_32px_{kind}_b4.{loop}" for kind in ("fp32", "bf16") for loop in ("tutorial", "one_by_one")),
        "sampling.tutorial",
        "classifier_fp32.tutorial",
        "classifier_bf16.tutorial",
        "scaling.classes_1000",
        "scaling.images_1e5",
    }
    assert results["ratios"]["data_path.image_folder"] < 1
