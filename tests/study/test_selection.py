import dataclasses
import json

import pytest

from condgan.runs import RecipeConfig
from condgan.study.cells import make_cells
from condgan.study.config import StudyConfig
from condgan.study.study import Study

TINY = RecipeConfig(recipe="acgan", steps=6, batch_size=8, base_channels=4, keep="best_kid", evaluations=3)


@pytest.mark.usefixtures("tiny_classifier")
def test_a_study_selects_on_validation_images(small_config, phantoms, tmp_path):
    config = small_config(recipes={"acgan": TINY}, arms=("real", "synthetic_1x"), classifier_seeds=1)
    (gan,) = (cell for cell in make_cells(config) if cell.kind == "gan")
    assert gan.needs == ("classifier-real-c0-p100",)
    study = Study(config, *phantoms, tmp_path / "study", device="cpu")
    assert study.run()
    outcome = json.loads((tmp_path / "study" / "cells" / f"{gan.name}.json").read_text())
    looks = outcome["kept"]["evaluations"]
    assert outcome["kept"]["step"] == min(looks, key=lambda look: look["value"])["step"]
    assert study.folder.test_evaluations() == {"acgan/synthetic_1x": 1, "real": 1}


def test_a_study_that_selects_needs_a_control(small_config):
    with pytest.raises(ValueError, match="Add 'real', or keep the last step"):
        small_config(recipes={"acgan": TINY}, arms=("synthetic_1x",))


def test_the_choice_survives_json(small_config):
    plan_of = dataclasses.replace(TINY, auxiliary={"real_weight": 1.0, "fake_weight": 0.0, "generator_weight": 0.2})
    config = small_config(recipes={"acgan": plan_of})
    assert StudyConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
