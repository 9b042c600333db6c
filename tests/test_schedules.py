import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from condgan.schedules import CosineSchedule, ends, value_at

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


def test_numbers_are_schedules_that_do_not_change():
    assert value_at(0.3, 0.9) == 0.3
    assert ends(0.3) == {0.3}
    assert ends(CosineSchedule(2.0, 1.0)) == {2.0, 1.0}
