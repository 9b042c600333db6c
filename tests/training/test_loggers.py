import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import condgan as cg
from condgan.training import Callback


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_image(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image))


def fit(make_trainer, tiny_images, *callbacks, steps=4, **options):
    trainer = make_trainer(callbacks=callbacks, **options)
    trainer.fit(tiny_images, steps=steps, batch_size=6)
    return trainer


def test_csv_rows_are_the_metrics(make_trainer, tiny_images, tmp_path):
    path = tmp_path / "deep" / "log.csv"
    trainer = fit(make_trainer, tiny_images, cg.CSVLogger(path, every=2), steps=5, critic_steps=2)
    rows = read_csv(path)
    assert [(row["step"], row["images_seen"]) for row in rows] == [("2", "24"), ("4", "48"), ("5", "60")]
    last = {name: float(value) for name, value in rows[-1].items() if name not in ("step", "images_seen")}
    assert last == trainer.state.metrics
    assert {"critic/adversarial", "generator/auxiliary_classifier", "critic/gradient_norm"} <= set(last)


def test_a_metric_that_comes_late_adds_a_column(make_trainer, tiny_images, tmp_path):
    path = tmp_path / "log.csv"
    evaluate = cg.Evaluate(lambda trainer: {"quality": trainer.state.step / 10}, every=3)
    fit(make_trainer, tiny_images, evaluate, cg.CSVLogger(path, every=1), steps=5)
    rows = read_csv(path)
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["quality"] for row in rows] == ["", "", "0.3", "0.3", "0.5"]
    assert path.read_text().count("quality") == 1


@pytest.mark.parametrize(("logger", "read"), [(cg.CSVLogger, read_csv), (cg.JSONLLogger, None)])
def test_rows_of_steps_that_are_redone_are_dropped(make_trainer, tiny_images, tmp_path, logger, read):
    read = read or (lambda path: [json.loads(line) for line in path.read_text().splitlines()])
    path, run = tmp_path / "log", tmp_path / "run"
    fit(make_trainer, tiny_images, logger(path, every=1), steps=2).save(run)
    first = path.read_text()
    resumed = make_trainer(callbacks=[logger(path, every=1)])
    resumed.resume(run)
    resumed.fit(tiny_images, steps=5, batch_size=6)
    whole = path.read_text()
    assert whole.startswith(first)
    with path.open("a") as file:
        file.write(whole.splitlines()[-1][:20])  # a killed process leaves half a line
    for _ in range(2):
        resumed = make_trainer(callbacks=[logger(path, every=1)])
        resumed.resume(run)
        resumed.fit(tiny_images, steps=5, batch_size=6)
        assert path.read_text() == whole
    assert [int(row["step"]) for row in read(path)] == [1, 2, 3, 4, 5]


def test_a_logger_that_never_wrote_leaves_an_earlier_file_alone(make_trainer, tiny_images, tmp_path):
    class Fail(Callback):
        def on_fit_start(self, trainer):
            raise RuntimeError

    path = tmp_path / "log.csv"
    fit(make_trainer, tiny_images, cg.CSVLogger(path), steps=1)
    before = path.read_text()
    with pytest.raises(RuntimeError):
        fit(make_trainer, tiny_images, cg.CSVLogger(path), Fail())
    assert path.read_text() == before


def test_sample_grids_have_a_row_for_each_class(make_trainer, tiny_images, tmp_path):
    trainer = fit(make_trainer, tiny_images, cg.SampleGrid(tmp_path, every=2, columns=5, seed=7), steps=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples-000000002.png", "samples-000000003.png"]
    pixels = read_image(tmp_path / "samples-000000003.png")
    assert pixels.shape == (3 * 18 + 2, 5 * 18 + 2)
    expected = cg.images.to_uint8(trainer.sample(cg.class_grid(3, 5), seed=7))
    assert torch.equal(pixels[2:18, 2:18], expected[0, 0])
    assert torch.equal(pixels[38:54, 20:36], expected[11, 0])


def test_sample_grids_of_colour_images_without_classes(tmp_path):
    shape = {"num_classes": None, "image_shape": (3, 16, 20), "base_channels": 2}
    data = cg.data.ArrayDataset(torch.zeros(8, 3, 16, 20, dtype=torch.uint8), [0, 1] * 4)
    trainer = cg.Trainer(
        cg.DCGANGenerator(latent_dim=4, **shape),
        cg.DCGANCritic(**shape),
        loss=cg.HingeLoss(),
        device="cpu",
        callbacks=[cg.SampleGrid(tmp_path, every=1, columns=3)],
    )
    trainer.fit(data, steps=1, batch_size=4)
    assert read_image(tmp_path / "samples-000000001.png").shape == (3 * 18 + 2, 3 * 22 + 2, 3)


def test_the_progress_bar_shows_steps_and_losses(make_trainer, tiny_images, capsys):
    fit(make_trainer, tiny_images, cg.ProgressBar(every=2, description="phantom"), steps=5)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert shown.startswith("phantom: 100%")
    assert "5/5" in shown
    assert "generator=" in shown
    assert "img/s=" in shown


def test_the_progress_bar_closes_on_errors(make_trainer, tiny_images, capsys):
    class Fail(Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 3:
                raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        fit(make_trainer, tiny_images, cg.ProgressBar(every=1), Fail())
    assert "3/4" in capsys.readouterr().err.split("\r")[-1]


def test_sample_grids_of_other_channels_show_the_first(tmp_path):
    shape = (2, 16, 16)
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, *shape), dtype=torch.uint8, generator=rng)
    data = cg.data.ArrayDataset(images, torch.arange(8) % 2)
    trainer = cg.recipes.acgan(data, base_channels=2, device="cpu", callbacks=[cg.SampleGrid(tmp_path, columns=3)])
    trainer.fit(data, steps=1, batch_size=4)
    assert read_image(tmp_path / "samples-000000001.png").shape == (2 * 18 + 2, 3 * 18 + 2)


def test_sample_grids_of_points_are_refused(point_networks, tmp_path):
    data = cg.data.ArrayDataset(torch.randn(8, 2), torch.arange(8) % 2)
    generator, critic = point_networks(2)
    callbacks = [cg.SampleGrid(tmp_path)]
    trainer = cg.Trainer(generator, critic, loss=cg.HingeLoss(), device="cpu", callbacks=callbacks)
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\), got samples of shape \(2,\)"):
        trainer.fit(data, steps=1, batch_size=4)
