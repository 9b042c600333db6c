import json

import pytest

from condgan.files import from_json, to_json
from condgan.runs import RecipeConfig
from condgan.study.cells import Cell, make_cells
from condgan.study.config import StudyConfig


def config(**changes):
    defaults = {
        "image_shape": (1, 16, 16),
        "recipes": {"acgan": RecipeConfig(recipe="acgan"), "wide": RecipeConfig(recipe="acwgan_gp", networks="dcgan")},
        "arms": ("real", "real_augmented", "synthetic_1x", "pretrained"),
        "seeds": 2,
        "classifier_seeds": 3,
    }
    return StudyConfig(**{**defaults, **changes})


def test_json_there_and_back():
    weights = {"real_weight": 1.0, "fake_weight": 0.0, "generator_weight": 0.25}
    recipe = RecipeConfig(recipe="acgan", auxiliary=weights, keep="best_kid", options={"ema_decay": 0.9})
    given = config(percents=(100.0, 10.0), reduced_class="ill", recipes={"acgan": recipe})
    assert from_json(StudyConfig, json.loads(json.dumps(to_json(given)))) == given


def test_every_combination_is_planned_once():
    cells = make_cells(config())
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names) == 2 * 3 + 2 * 2 * (1 + 2 * 3 + 1)
    assert "classifier-wide-s1-pretrained-c2-p100" in names
    assert "classifier-real-c0-p100" in names


@pytest.mark.parametrize("changes", [{}, {"percents": (10.0, 100.0), "reduced_class": "ill"}])
def test_cells_come_after_what_they_need(changes):
    seen = set()
    for cell in make_cells(config(**changes)):
        assert set(cell.needs) <= seen
        seen.add(cell.name)


def test_seeds_count_up_from_the_first():
    cells = make_cells(config(first_seed=7))
    assert {cell.seed for cell in cells} == {None, 7, 8}
    assert {cell.classifier_seed for cell in cells} == {None, 7, 8, 9}
    with pytest.raises(ValueError, match=r"first_seed must lie in \[0, "):
        config(first_seed=-1)


def test_partial_results_come_early():
    cells = make_cells(config())
    assert all(cell.recipe is None for cell in cells[:6])
    seeds = [cell.seed for cell in cells[6:]]
    assert seeds == sorted(seeds)


def test_the_sweep_trains_generators_on_the_reduced_data_and_judges_the_main_study_only():
    cells = make_cells(config(percents=(25.0, 100.0), reduced_class="ill"))
    assert [cell.percent for cell in cells] == sorted((cell.percent for cell in cells), reverse=True)
    assert {cell.percent for cell in cells if cell.kind == "gan"} == {25.0, 100.0}
    assert {cell.percent for cell in cells if cell.kind == "judge"} == {100.0}


def test_judging_can_be_left_out():
    assert all(cell.kind != "judge" for cell in make_cells(config(extractor=None)))


def test_names_are_fit_for_files():
    cell = Cell(kind="classifier", percent=2.5, recipe="acgan", seed=0, arm="synthetic_1x", classifier_seed=2)
    assert cell.name == "classifier-acgan-s0-synthetic_1x-c2-p2.5"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("real", "syntetic_1x")}, "Did you mean 'synthetic_1x'"),
        ({"arms": ("real", "real")}, "must differ"),
        ({"arms": ()}, "at least one arm"),
        ({"recipes": {}}, "a recipe for arms with generated images"),
        (
            {"recipes": {"acgan": RecipeConfig(recipe="acgan", keep="best_kid")}, "arms": ("synthetic_1x",)},
            "Add 'real', or keep the last step",
        ),
        ({"recipes": {"a/b": RecipeConfig(recipe="acgan")}}, "letters, digits"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"percents": (0.0,)}, "percents must lie in"),
        ({"percents": (50.0,)}, "need reduced_class"),
        ({"extractor": "inceptoin"}, "Did you mean 'inception'"),
        ({"classifier_steps": 2}, r"classifier_epochs must lie between 1 and classifier_steps \(2\), got 5"),
        ({"seeds": 10**7}, "seeds must be at most 1000, got 10000000"),
        ({"classifier_seeds": 1001}, "classifier_seeds must be at most 1000"),
        ({"level": 95}, "level must lie between"),
        ({"primary_metric": "auc"}, "primary_metric must be among"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "dcgan"}, r"got 'dcgan', which has no classes. Train it from Python: condgan\.recipes\.dcgan"),
        ({"recipe": "dgan"}, "recipe must be among acgan, "),
        ({"recipe": "acgan", "networks": "unet"}, "networks must be among"),
        ({"recipe": "acgan", "options": {"ema_decai": 0.9}}, "Did you mean 'ema_decay'"),
        ({"recipe": "acgan", "options": {"seed": 1}}, "options must be among"),
        ({"recipe": "acgan", "steps": 0}, "steps must be at least 1"),
    ],
)
def test_recipes_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        RecipeConfig(**changes)


def test_unknown_and_missing_keys_are_refused():
    content = to_json(config())
    with pytest.raises(ValueError, match="unknown key 'classifier_step', did you mean 'classifier_steps'"):
        from_json(StudyConfig, {**content, "classifier_step": 5})
    with pytest.raises(ValueError, match=r"recipes\['acgan'\]: unknown key 'step', did you mean 'steps'"):
        from_json(StudyConfig, {**content, "recipes": {"acgan": {"recipe": "acgan", "step": 5}}})
    del content["image_shape"]
    with pytest.raises(ValueError, match="image_shape is missing"):
        from_json(StudyConfig, content)
