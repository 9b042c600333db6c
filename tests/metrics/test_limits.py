import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from condgan.metrics.limits import difference_limits, logit_limits, plain_limits, robit_limits

SCORES = st.floats(0.01, 0.99)
ERRORS = st.floats(0.001, 0.3)
QUANTILES = st.floats(0.1, 6)
SHARES = st.floats(0, 1)
BOUNDED = pytest.mark.parametrize("limits", [logit_limits, robit_limits])


@BOUNDED
@given(SCORES, ERRORS, QUANTILES)
def test_limits_of_scores_stay_inside_and_grow_with_t(limits, score, error, t):
    near, far = limits(score, error**2, t), limits(score, error**2, 2 * t)
    assert 0 <= far.low <= near.low <= near.center <= near.high <= far.high <= 1
    assert near.center == far.center == limits(score, error**2, 0.0).low


@BOUNDED
@given(SCORES, ERRORS, QUANTILES)
def test_limits_of_the_errors_mirror_those_of_the_score(limits, score, error, t):
    there, back = limits(score, error**2, t), limits(1 - score, error**2, t)
    assert back == pytest.approx((1 - there.high, 1 - there.center, 1 - there.low), abs=1e-9)


@BOUNDED
@given(SCORES, QUANTILES)
def test_short_limits_are_the_plain_ones(limits, score, t):
    error = 1e-5 * score * (1 - score)
    assert limits(score, error**2, t) == pytest.approx(plain_limits(score, error**2, t), rel=1e-7)


@BOUNDED
@given(SCORES, ERRORS)
def test_the_center_takes_off_the_bias_of_the_scale(limits, score, error):
    # the mean of g over two values at the score -+ error is g(score) + g'' error^2 / 2 but for higher orders
    error = error * score * (1 - score) / 10
    to_scale = stats.logistic.ppf if limits is logit_limits else stats.t(2).ppf
    bias = (to_scale(score - error) + to_scale(score + error)) / 2 - to_scale(score)
    shift = to_scale(score) - to_scale(limits(score, error**2, 1.0).center)
    assert shift == pytest.approx(bias, rel=0.02, abs=1e-9)


def test_near_one_the_robit_reaches_further_down_than_the_logit():
    logit, robit = logit_limits(0.97, 0.01**2, 3.0), robit_limits(0.97, 0.01**2, 3.0)
    assert robit.low < logit.low < 0.97 - 0.03
    assert 0.97 < robit.high < logit.high < 1
    assert robit.low == pytest.approx(
        stats.t(2).cdf(
            stats.t(2).ppf(0.97)
            - 0.01**2 * 0.75 * 0.94 / 2 / (0.97 * 0.03) ** 2.5 / math.sqrt(2)
            - 3 * 0.01 / stats.t(2).pdf(stats.t(2).ppf(0.97))
        )
    )


@pytest.mark.parametrize("error", [0.001, 0.0015, 0.002])
def test_where_the_error_is_as_large_as_the_distance_to_one_the_robit_is_held_at_five_logit_reaches(error):
    logit, robit = logit_limits(0.998, error**2, 4.3), robit_limits(0.998, error**2, 4.3)
    free = stats.t(2).ppf(robit.center) - 4.3 * error / stats.t(2).pdf(stats.t(2).ppf(0.998))
    assert stats.t(2).cdf(free) < robit.low
    assert robit.center - robit.low == pytest.approx(5 * (logit.center - logit.low))
    assert robit.center < robit.high <= 1


@pytest.mark.parametrize("score", [0.0, 1.0])
@BOUNDED
def test_scores_at_an_end_have_no_width(limits, score):
    assert limits(score, 0.0, 2.0) == limits(score, 0.1, 2.0) == (score, score, score)


@given(SCORES, SCORES, ERRORS, SHARES, QUANTILES)
def test_the_difference_the_other_way_round_is_mirrored(a, b, error, share, t):
    there = difference_limits((a, b), (share, 1 - share), error**2, t, robit_limits)
    back = difference_limits((b, a), (1 - share, share), error**2, t, robit_limits)
    assert back == pytest.approx((-there.high, -there.center, -there.low))


@given(SCORES, SCORES, ERRORS, QUANTILES)
def test_an_arm_against_a_known_score_keeps_its_reach(a, b, error, t):
    arm = robit_limits(a, error**2, t)
    difference = difference_limits((a, b), (1.0, 0.0), error**2, t, robit_limits)
    assert difference == pytest.approx((arm.low - b, arm.center - b, arm.high - b))


@given(st.floats(-3, 3), st.floats(-3, 3), ERRORS, SHARES, QUANTILES)
def test_plain_arms_have_the_plain_difference(a, b, error, share, t):
    found = difference_limits((a, b), (share, 1 - share), error**2, t, plain_limits)
    assert found == pytest.approx(plain_limits(a - b, error**2, t))


@given(SCORES, ERRORS, QUANTILES)
def test_the_skewness_of_arms_alike_cancels(score, error, t):
    low, center, high = difference_limits((score, score), (0.5, 0.5), error**2, t, robit_limits)
    assert center == pytest.approx(0, abs=1e-12)
    assert -low == pytest.approx(high)


@given(SCORES, SCORES, st.floats(0.01, 1.4), SHARES, QUANTILES)
def test_differences_grow_with_t_and_hold_the_estimate(a, b, relative, share, t):
    assume(0 < share < 1)
    # one unit of n that is far off, as far as scores in [0, 1] allow, gives a mean an error of 1 - mean; so do patients
    error = relative * min(a * (1 - a), b * (1 - b))
    near, far = (difference_limits((a, b), (share, 1 - share), error**2, q, robit_limits) for q in (t, 1.5 * t))
    assert far.low < near.low < near.center < near.high < far.high
    low, _, high = difference_limits((a, b), (share, 1 - share), error**2, 1.96, robit_limits)
    assert low < a - b < high
