import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condgan.stats import Estimate
from study.builders import seed_estimate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))

from figures import COLORS, comparison_chart, sample_grid, training_curves, wrap


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def images(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_samples_are_enlarged_and_not_smoothed(tmp_path, channels):
    generated, real = images(2, 4, channels, 28, 28), images(2, 3, channels, 28, 28, seed=1)
    path = tmp_path / "grid.png"
    sample_grid(generated, ["normal", "ill"], path, "Samples", real=real, caption="Credit where it is due.")
    sheet = read(path)
    # three pixels for each of the 28 come nearest to 96
    enlarged = (
        generated[0, 0].permute(1, 2, 0).expand(28, 28, 3).repeat_interleave(3, 0).repeat_interleave(3, 1).numpy()
    )
    corners = np.argwhere((sheet[:-83, :-83] == enlarged[0, 0]).all(-1))
    assert any(np.array_equal(sheet[y : y + 84, x : x + 84], enlarged) for y, x in corners)
    assert "matplotlib.pyplot" not in sys.modules


def test_real_rows_must_fit(tmp_path):
    with pytest.raises(ValueError, match="real must have the image shape"):
        sample_grid(images(2, 2, 1, 8, 8), ["a", "b"], tmp_path / "x.png", real=images(2, 2, 1, 9, 9))
    with pytest.raises(ValueError, match="one row for each class name"):
        sample_grid(images(2, 2, 1, 8, 8), ["a", "b", "c"], tmp_path / "x.png")
    with pytest.raises(ValueError, match="must be uint8"):
        sample_grid(torch.zeros(2, 2, 1, 8, 8), ["a", "b"], tmp_path / "x.png")


def test_curves_read_numbers_and_text(tmp_path):
    rows = [
        {"step": str(step), "images_seen": 64 * step, "critic/adversarial": f"{-step}", "evaluate/kid": "", "note": "x"}
        for step in range(100)
    ]
    training_curves(rows, tmp_path / "curves.png", "Training")
    assert read(tmp_path / "curves.png").shape[1] > 300
    training_curves([{"step": 0, "loss": 1.0}], tmp_path / "one.png")
    with pytest.raises(ValueError, match="at least one metric"):
        training_curves([{"step": 1}], tmp_path / "none.png")


def test_comparison_of_arms(tmp_path):
    arms = {
        "real": {"AUROC": Estimate(0.9, 0.85, 0.95), "accuracy": Estimate(0.8, 0.75, 0.85)},
        "generated only": {"AUROC": seed_estimate(0.7, generators=1), "accuracy": seed_estimate(0.6)},
    }
    kinds = {"real": 0, "generated only": 1}
    comparison_chart(arms, tmp_path / "arms.png", "Comparison", chance={"AUROC": 0.5}, kinds=kinds, caption="Why.")
    chart = read(tmp_path / "arms.png")
    assert chart.shape[1] > 600
    for place in kinds.values():
        color = [int(COLORS[place][i : i + 2], 16) for i in (1, 3, 5)]
        assert (chart == color).all(-1).sum() > 20  # the dots of both arms
    comparison_chart({"one": {"accuracy": Estimate(1.0, 1.0, 1.0)}}, tmp_path / "flat.png")
    with pytest.raises(ValueError, match="same metrics"):
        comparison_chart({**arms, "other": {"accuracy": Estimate(0.5, 0.4, 0.6)}}, tmp_path / "x.png")
    with pytest.raises(ValueError, match="at least one"):
        comparison_chart({}, tmp_path / "x.png")


def test_captions_keep_their_lines():
    assert wrap("one two\nthree", 2.0, 0.05) == ["one two", "three"]
    assert wrap(None, 2.0, 0.05) == []
