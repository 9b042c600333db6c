import copy
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from condgan.schedules import CosineSchedule, PiecewiseLinearSchedule, ends, value_at

values = st.floats(-1e3, 1e3)
shares = st.floats(0, 1)


@given(values, values, st.floats(0.01, 1), shares)
def test_the_way_from_start_to_end(start, end, until, progress):
    schedule = CosineSchedule(start, end, until)
    assert schedule(0.0) == pytest.approx(start)
    assert schedule(until) == pytest.approx(end)
    assert schedule(1.0) == schedule(until)
    low, high = sorted((start, end))
    assert low - 1e-9 <= schedule(progress) <= high + 1e-9
    assert schedule(until / 2) == pytest.approx((start + end) / 2)


@given(shares, shares)
def test_it_never_turns_back(one, other):
    first, second = sorted((one, other))
    assert CosineSchedule(2.0, 0.2)(first) >= CosineSchedule(2.0, 0.2)(second)


def test_by_hand():
    assert CosineSchedule(1.0, 0.0)(1 / 3) == pytest.approx(0.75)
    assert CosineSchedule(1.0, 0.0, until=0.5)(0.25) == pytest.approx((1 + math.cos(math.pi / 2)) / 2)


@pytest.mark.parametrize("until", [0.0, 1.5, float("nan")])
def test_the_share_must_be_one(until):
    with pytest.raises(ValueError, match=r"until must lie in \(0, 1\]"):
        CosineSchedule(1.0, 0.0, until)


points = st.dictionaries(shares, values, min_size=1, max_size=5).map(lambda found: sorted(found.items()))


@given(points, shares)
def test_lines_stay_between_the_points_and_hit_them(points, progress):
    schedule = PiecewiseLinearSchedule(points)
    places, numbers = zip(*points, strict=True)
    assert [schedule(place) for place in places] == list(numbers)
    low, high = min(numbers), max(numbers)
    assert low - 1e-9 <= schedule(progress) <= high + 1e-9
    if progress <= places[0]:
        assert schedule(progress) == numbers[0]
    if progress >= places[-1]:
        assert schedule(progress) == numbers[-1]


@given(values, values, st.floats(0, 0.4), st.floats(0.6, 1), shares)
def test_between_two_points_there_is_a_line(start, end, first, last, share):
    schedule = PiecewiseLinearSchedule([(first, start), (last, end)])
    assert schedule(first + share * (last - first)) == pytest.approx(start + share * (end - start), abs=1e-9)


def test_lines_by_hand():
    schedule = PiecewiseLinearSchedule([(0.2, 1.0), (0.4, 3.0), (0.5, 0.0)])
    assert [schedule(p) for p in (0.0, 0.2, 0.3, 0.4, 0.45, 0.5, 1.0)] == pytest.approx([1, 1, 2, 3, 1.5, 0, 0])
    assert PiecewiseLinearSchedule([(0.3, 7.0)])(0.9) == 7
    assert type(schedule(0.3)) is float


def test_lines_are_values():
    """Equal ones are equal, and they can be written and copied as they were made."""
    schedule = PiecewiseLinearSchedule([(0.0, 1.0), (1.0, 0.5)])
    assert repr(schedule) == "PiecewiseLinearSchedule(points=((0.0, 1.0), (1.0, 0.5)))"
    assert eval(repr(schedule)) == schedule
    assert copy.deepcopy(schedule) == schedule == pickle.loads(pickle.dumps(schedule))
    assert hash(schedule) == hash(PiecewiseLinearSchedule([(0.0, 1.0), (1.0, 0.5)]))
    assert schedule != PiecewiseLinearSchedule([(0.0, 1.0)])
    assert PiecewiseLinearSchedule([[0, 1], [1.0, 0.5]]) == schedule


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(-0.1, 1.0)],
        [(0.0, 1.0), (1.1, 2.0)],
        [(0.5, 1.0), (0.5, 2.0)],
        [(0.5, 1.0), (0.2, 2.0)],
        [(float("nan"), 1.0)],
        [(0.1, 1.0), (float("nan"), 1.0), (0.3, 2.0)],
    ],
)
def test_points_must_be_in_order_within_the_training(points):
    with pytest.raises(ValueError, match=r"points must be pairs .* the progress rising within \[0, 1\], got "):
        PiecewiseLinearSchedule(points)


def test_numbers_are_schedules_that_do_not_change():
    assert value_at(0.3, 0.9) == 0.3
    assert ends(0.3) == {0.3}
    assert ends(CosineSchedule(2.0, 1.0)) == {2.0, 1.0}
