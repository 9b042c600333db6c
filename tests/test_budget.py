import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import condgan as cg
from condgan import budget
from condgan.budget import TrainingPlan, batch_size_for, plan_in, plan_training, seconds_per_step
from condgan.files import load_record, to_json
from condgan.runs import RecipeConfig, train_generator

TINY = RecipeConfig(recipe="acgan")
NARROW = dataclasses.replace(TINY, base_channels=4)
READINGS = 7  # of the clock for each measured trainer: two blocks of warm-up, five that count


class Clock:
    """Stands still but for what it is told: a step of the first trainer takes `seconds[0]`, and so on."""

    def __init__(self, *seconds: float):
        self.seconds = seconds
        self.now = 100.0
        self.readings = 0

    def __call__(self) -> float:
        self.now += self.seconds[self.readings // READINGS]
        self.readings += 1
        return self.now


def plan(seconds: float | None = 0.1, steps: int = 10, **changes) -> TrainingPlan:
    config = dataclasses.replace(TINY, steps=steps, batch_size=8, base_channels=4)
    return TrainingPlan(config=config, image_shape=(1, 16, 16), device="cpu", seconds_per_step=seconds, **changes)


@given(st.floats(1e-4, 100), st.floats(0.01, 1e4))
def test_steps_fill_the_minutes_and_no_more(seconds, minutes):
    steps = plan(seconds).within(minutes).config.steps
    assert steps >= 1
    if steps > 1:
        assert steps * seconds <= 60 * minutes * (1 + 1e-9)
    assert 1.2 * (steps + 1) * seconds > 60 * minutes, "at most a tenth is lost to rounding"
    assert str(steps)[2:].strip("0") == ""


def test_only_steps_differ_between_plans_for_different_minutes():
    one, other = plan().within(1), plan().within(10)
    assert (one.config.steps, other.config.steps) == (600, 6000)
    assert dataclasses.replace(one, config=dataclasses.replace(one.config, steps=6000)) == other


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_must_be_positive(minutes, phantoms):
    with pytest.raises(ValueError, match="minutes must be positive"):
        plan().within(minutes)
    with pytest.raises(ValueError, match="minutes must be positive"):
        plan_training(TINY, phantoms[0], minutes=minutes, device="cpu", clock=Clock())


def test_a_plan_without_measured_steps_fits_into_no_minutes():
    with pytest.raises(ValueError, match="needs measured steps"):
        plan(None).within(1)


def test_the_median_step_counts_and_warming_up_does_not(phantoms):
    times = iter([50.0, 90.0, 91.0, 93.0, 94.0, 99.0, 100.5])  # steps of 1, 2, 1, 5 and 1.5 seconds
    config = dataclasses.replace(TINY, base_channels=4, batch_size=8)
    measured = seconds_per_step(config, phantoms[0], precision="fp32", device="cpu", clock=lambda: next(times))
    assert measured == 1.5


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9, 0.99])
def test_steps_with_and_without_a_critic_count_by_their_shares(share, phantoms, monkeypatch):
    """Of which one takes three times as long as the other; each is measured equally often, however few there are."""
    seconds = {"pretraining": 1.0, "generator": 3.0}
    trainer = pretrained(share)
    monkeypatch.setattr(budget, "make_trainer", lambda *args, **options: trainer)
    clock = Clock(*[1.0] * 99)

    def tell():
        clock.now += seconds[trainer._phases(trainer.state.step - 1)[-1]] - 1
        return clock()

    measured = seconds_per_step(dataclasses.replace(TINY, batch_size=4), phantoms[0], device="cpu", clock=tell)
    assert measured == pytest.approx(share * 1 + (1 - share) * 3)
    assert clock.readings == 2 * READINGS


def pretrained(share):
    shape = {"num_classes": 2, "image_shape": (1, 16, 16), "base_channels": 2}
    return cg.Trainer(
        cg.FlowGenerator(**shape),
        cg.DCGANCritic(**shape),
        loss=cg.HingeLoss(),
        regularizers=[cg.FlowMatching()],
        pretraining=share,
        device="cpu",
    )


def test_lazy_terms_of_either_network_are_measured_in_their_proportion(phantoms, monkeypatch):
    trainer = pretrained(0.0)
    trainer.terms.generator_regularizers[0].every = 3
    monkeypatch.setattr(budget, "make_trainer", lambda *args, **options: trainer)
    clock = Clock(*[6.0] * 99)
    measured = seconds_per_step(dataclasses.replace(TINY, batch_size=4), phantoms[0], device="cpu", clock=clock)
    assert (measured, trainer.state.step) == (2.0, 3 * READINGS)


@pytest.mark.parametrize(
    ("minutes", "seconds", "width", "steps"),
    [
        (10, [0.125, 0.1875, 0.25], 32, 3200),
        (10, [0.0625, 0.125, 0.1875], 64, 3200),
        (10, [0.125, 0.25], 16, 4800),
        (10, [1.0], 16, 600),
        (64, [0.125, 0.25, 0.5], 64, 7600),
    ],
)
def test_the_widest_network_that_leaves_enough_steps_is_chosen(phantoms, monkeypatch, minutes, seconds, width, steps):
    monkeypatch.setattr(budget, "make_trainer", made := MakeTrainer())
    clock = Clock(*seconds)
    chosen = plan_training(TINY, phantoms[0], minutes=minutes, precision="fp32", device="cpu", clock=clock)
    assert (chosen.config.base_channels, chosen.config.batch_size, chosen.config.steps) == (width, 32, steps)
    assert clock.readings == READINGS * len(seconds), "no wider network is tried once the steps are too few"
    assert made.widths == [16, 32, 64][: len(seconds)]
    assert chosen.config == dataclasses.replace(TINY, base_channels=width, batch_size=32, steps=steps)


class MakeTrainer:
    """Makes narrow networks whatever the width, which it notes."""

    def __init__(self):
        self.widths = []
        self.make = budget.make_trainer

    def __call__(self, config, *args, **options):
        self.widths.append(config.base_channels)
        return self.make(dataclasses.replace(config, base_channels=2), *args, **options)


def test_given_sizes_are_kept(phantoms):
    config = dataclasses.replace(TINY, base_channels=3)
    chosen = plan_training(config, phantoms[0], minutes=1, batch_size=4, device="cpu", clock=Clock(0.5))
    assert (chosen.config.base_channels, chosen.config.batch_size, chosen.config.steps) == (3, 4, 120)


def test_the_batch_size_follows_pixels_and_device():
    sides = (16, 32, 64, 65, 128, 129, 256, 512, 1024)
    assert [batch_size_for((1, side, side), "cuda") for side in sides] == [64, 64, 64, 32, 32, 16, 16, 8, 8]
    assert [batch_size_for((3, side, side), "cpu") for side in sides] == [32, 32, 32, 16, 16, 8, 8, 8, 8]
    assert batch_size_for((1, 32, 128), "cpu") == batch_size_for((1, 64, 64), "cpu")


def test_plans_in_words():
    assert plan(0.066, 4300).in_words() == (
        "about 5 min: 4 300 steps of 8 images, base_channels 4, measured 66 ms a step on average"
    )
    assert plan(None, 20_000).in_words() == "20 000 steps of 8 images, base_channels 4"
    assert "measured 20.0 s a step on average. So few steps seldom suffice" in plan(20.0, 30).in_words()


@pytest.fixture
def run(tmp_path, phantoms):
    """Plans in a folder, with narrow networks on the CPU."""

    def run(*, clock=None, config=NARROW, **sizes) -> TrainingPlan:
        options = {"precision": "fp32", "device": "cpu", "clock": clock or Clock()}
        planned = plan_in(tmp_path, config, phantoms[0], **options, **sizes)
        planned.save(tmp_path)
        return planned

    return run


def test_a_plan_is_kept_and_nothing_is_measured_again(run, tmp_path):
    first = run(clock=Clock(0.125), minutes=10)
    assert first.config.steps == 4800
    assert load_record(TrainingPlan, tmp_path / "plan.json") == first
    assert run(minutes=10) == first
    assert run() == first
    assert run(minutes=5).config.steps == 2400
    assert run().config.steps == 2400
    assert run(config=TINY, minutes=5).config.base_channels == 4
    longer = run(steps=7000)
    assert longer.config == dataclasses.replace(first.config, steps=7000)


def test_without_a_length_it_is_half_an_hour(run):
    assert run(clock=Clock(0.125)).config.steps == 14_000


def test_a_run_of_given_steps_is_measured_only_when_minutes_are_asked_for(run):
    first = run(steps=50, batch_size=8)
    assert (first.config.steps, first.config.batch_size, first.seconds_per_step) == (50, 8, None)
    assert run() == first
    later = run(clock=Clock(0.25), minutes=1)
    assert later.config == dataclasses.replace(first.config, steps=240)


def test_a_plan_of_given_steps_has_the_sizes_of_the_recipe(run):
    assert run(config=TINY, steps=50).config == dataclasses.replace(TINY, steps=50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": RecipeConfig(recipe="cgan")}, "recipe was 'acgan' and is 'cgan'"),
        ({"config": dataclasses.replace(TINY, base_channels=8)}, "base_channels was 4 and is 8"),
        ({"batch_size": 16}, "batch_size was 8 and is 16"),
        ({"steps": 5, "minutes": 5}, "exclude each other"),
    ],
)
def test_another_training_in_the_same_folder_is_refused(run, changes, message):
    run(steps=50, batch_size=8)
    with pytest.raises(ValueError, match=message):
        run(**changes)


def test_an_interrupted_run_continues_with_its_plan(run, tmp_path, phantoms):
    """And ends with the same weights as one that was not interrupted."""
    planned = run(clock=Clock(8.0), minutes=1, batch_size=8)
    assert planned.config.steps == 7
    options = {"precision": "fp32", "device": "cpu"}
    assert train_generator(planned.config, phantoms[0], tmp_path, deadline=0.0, **options) is None
    resumed = train_generator(run(minutes=1).config, phantoms[0], tmp_path, **options)
    whole = train_generator(planned.config, phantoms[0], tmp_path / "whole", **options)
    assert resumed.last_metrics == whole.last_metrics
    assert to_json(resumed.kept) == to_json(whole.kept)


def test_fewer_steps_than_are_done_are_refused_and_the_plan_stays(run, tmp_path, phantoms):
    planned = run(steps=4, batch_size=8)
    train_generator(planned.config, phantoms[0], tmp_path, precision="fp32", device="cpu")
    with pytest.raises(ValueError, match="steps must be at least the 4 that are done, got 2"):
        run(steps=2)
    assert run() == planned


@pytest.mark.parametrize("content", ["", "{", "[]", '{"steps": 3}'])
def test_a_damaged_plan_is_named(run, tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ValueError, match=r"plan\.json must "):
        run(steps=3)
