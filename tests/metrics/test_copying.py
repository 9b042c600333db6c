import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, ranksums
from sklearn.neighbors import NearestNeighbors

from condgan.metrics.copying import authenticity, c_t, copy_test, own_radius
from condgan.metrics.neighbors import nearest_neighbors


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_c_t_by_hand():
    # distances 1, 2 against 3, 4: no generated sample is farther, Z = (0 - 2) / sqrt(4 * 5 / 12)
    found = c_t(column(1, 2), column(3, 6), column(0, 10), least=1)
    assert found.value == pytest.approx(-1.5491933)
    assert found.p_value == pytest.approx(0.06067, abs=1e-5)
    # 4 against 1, 2, 3: all three pairs, Z = (3 - 1.5) / sqrt(3 * 5 / 12)
    assert c_t(column(1004), column(1001, 1002, 1003), column(1000, 1010), least=1).value == pytest.approx(1.3416408)


def test_c_t_asks_for_enough_samples():
    with pytest.raises(ValueError, match="at least 3 generated and 3 held-out samples, got 2 and 5"):
        c_t(normal(2, 3), normal(5, 3), normal(9, 3), least=3)


def test_c_t_counts_ties_half():
    found = c_t(column(1), column(-1, 3), column(0), least=1)
    assert found.value == pytest.approx((0.5 - 1) / (2 * 4 / 12) ** 0.5)


def test_c_t_is_the_rank_sum_test():
    generated, held_out, train = normal(40, 3), normal(50, 3, seed=1), normal(60, 3, seed=2)
    tree = NearestNeighbors(n_neighbors=1).fit(train)
    ours, theirs = (tree.kneighbors(x)[0][:, 0] for x in (generated, held_out))
    expected = ranksums(ours, theirs, alternative="less")
    found = c_t(generated, held_out, train)
    assert found.value == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_c_t_tells_copies_from_fresh_and_from_strange_samples():
    train, held_out, fresh = normal(400, 6), normal(150, 6, seed=1), normal(150, 6, seed=2)
    assert c_t(train[:150] + 0.01, held_out, train).value < -7
    assert abs(c_t(fresh, held_out, train).value) < 3
    assert c_t(2 * fresh, held_out, train).value > 4


def authentic(samples, train, groups=None):
    return authenticity(nearest_neighbors(samples, train), own_radius(train, groups))


def test_authenticity_by_hand():
    train = column(0, 1, 5)  # their own nearest are 1, 1 and 4 away
    samples = column(-0.9, -1.0, -1.1, 1.5, 3.5, 9.5)
    assert authentic(samples, train).tolist() == [False, False, True, False, False, True]


def test_authenticity_looks_at_other_patients():
    train = column(0.0, 0.1, 5.0)
    copy = column(-0.5)
    assert authentic(copy, train).tolist() == [True]
    assert authentic(copy, train, groups=torch.tensor([0, 0, 1])).tolist() == [False]


def test_authenticity_equals_the_definition():
    generated, train = normal(80, 4), normal(60, 4, seed=1)
    among = torch.cdist(train, train).fill_diagonal_(torch.inf).amin(1)
    across = torch.cdist(generated, train)
    expected = torch.tensor([bool(row.min() > among[row.argmin()]) for row in across])
    assert 0 < expected.sum() < 80
    assert torch.equal(authentic(generated, train), expected)


@given(st.integers(0, 10**6), st.floats(0.01, 100.0))
@settings(max_examples=20, deadline=None)
def test_scale_shift_and_order_do_not_matter(seed, scale):
    rng = torch.Generator().manual_seed(seed)
    generated, held_out, train = normal(25, 3, seed=seed), normal(30, 3, seed=seed + 1), normal(40, 3, seed=seed + 2)
    order, other = torch.randperm(25, generator=rng), torch.randperm(40, generator=rng)
    moved = [scale * x + 3.0 for x in (generated[order], held_out, train[other])]
    assert torch.equal(authentic(moved[0], moved[2]), authentic(generated, train)[order])
    assert c_t(*moved).value == pytest.approx(c_t(generated, held_out, train).value)


def test_copy_test_by_hand():
    held_out = torch.arange(1.0, 100.0)
    found = copy_test(torch.tensor([0.5, 0.9, 1.0, 60.0]), held_out)
    assert (found.count, found.threshold, found.false_rate, found.expected) == (2, 1.0, 0.01, 0.04)
    # of 103 exchangeable distances, the two smallest are both among the four generated ones
    assert found.p_value == pytest.approx(4 / 103 * 3 / 102)
    assert copy_test(torch.tensor([50.0]), held_out, rate=0.3).threshold == 30.0


def test_p_values_are_small_not_zero():
    found = copy_test(torch.zeros(200), torch.arange(1.0, 140.0))
    assert 0 < found.p_value < 1e-40


def uniform(count, rng):
    return torch.rand(count, generator=rng)


@pytest.mark.parametrize(("generated", "held_out", "rate"), [(100, 80, 0.01), (60, 150, 0.1)])
def test_false_alarms_are_as_rare_as_the_level_says(generated, held_out, rate):
    rng = torch.Generator().manual_seed(0)
    found = [copy_test(uniform(generated, rng), uniform(held_out, rng), rate=rate) for _ in range(400)]
    assert sum(test.p_value <= 0.05 for test in found) / 400 < 0.08
    share = sum(test.count for test in found) / (400 * generated)
    assert share == pytest.approx(found[0].false_rate, rel=0.25)


def test_a_binomial_test_would_forget_that_the_threshold_is_estimated():
    rng = torch.Generator().manual_seed(0)
    found = [copy_test(uniform(400, rng), uniform(80, rng)) for _ in range(300)]
    naive = [binom.sf(test.count - 1, 400, test.false_rate) for test in found]
    assert sum(p <= 0.05 for p in naive) / 300 > 0.1
    assert sum(test.p_value <= 0.05 for test in found) / 300 < 0.08


@pytest.mark.parametrize(("generated", "held_out"), [(200, 140), (1000, 400)])
def test_detectable_share_is_found_nine_times_in_ten(generated, held_out):
    rng = torch.Generator().manual_seed(0)
    share = copy_test(uniform(generated, rng), uniform(held_out, rng)).detectable
    assert 0.005 < share < 0.08
    found = 0
    for _ in range(300):
        distances = uniform(generated, rng)
        distances[uniform(generated, rng) < share] = 0.0
        found += copy_test(distances, uniform(held_out, rng)).p_value <= 0.01
    assert found / 300 > 0.86


def test_too_few_samples_detect_nothing():
    assert copy_test(torch.rand(3), torch.rand(5)).detectable == 1.0
    detectable = [copy_test(torch.rand(200), torch.rand(n)).detectable for n in (20, 50, 100, 200)]
    assert detectable == sorted(detectable, reverse=True)


@pytest.mark.parametrize("options", [{"rate": 1.0}, {"alpha": 0.0}, {"held_out": torch.zeros(0)}])
def test_messages(options):
    with pytest.raises(ValueError, match="rates between 0 and 1"):
        copy_test(**{"generated": torch.rand(5), "held_out": torch.rand(5), **options})
