import math

import numpy as np
import pytest
import torch

import condgan as cg
from condgan.sampling import class_edges, class_probabilities, named_distribution, sample_classes, sample_latents


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        ("balanced", [0.25] * 4),
        ("empirical", [0.1, 0.2, 0.3, 0.4]),
        ("natural", [0.1, 0.2, 0.3, 0.4]),
        (cg.Tempered(0.5), [n**0.5 / sum(m**0.5 for m in (1, 2, 3, 4)) for n in (1, 2, 3, 4)]),
        (lambda counts: [0, 0, 3, 1], [0, 0, 0.75, 0.25]),
    ],
)
def test_class_probabilities(distribution, expected):
    probabilities = class_probabilities(distribution, [10, 20, 30, 40])
    torch.testing.assert_close(probabilities, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ("even", r"must be one of .*'balanced'.* got 'even'"),
        ("paired", "for the labels of generated images only"),
        (lambda counts: [1.0], r"2 finite weights of at least 0, got \[1.0\]"),
        (lambda counts: [1.0, -1.0], "finite weights of at least 0"),
        (lambda counts: [1.0, math.nan], "finite weights"),
        (lambda counts: [1.0, math.inf], "finite weights"),
        (lambda counts: [0.0, 0.0], "zeros only"),
    ],
)
def test_impossible_distributions_are_refused(distribution, message):
    with pytest.raises(ValueError, match=message):
        class_probabilities(distribution, [10, 20])


@pytest.mark.parametrize(
    ("name", "same"),
    [("balanced", cg.Tempered(0)), ("natural", cg.Tempered(1)), ("tempered:0.5", cg.Tempered(0.5))],
)
def test_names_are_those_of_distributions(name, same):
    counts = [10, 20, 70]
    expected = class_probabilities(same, counts)
    torch.testing.assert_close(class_probabilities(named_distribution(name), counts), expected)


@pytest.mark.parametrize("name", ["even", "paired", "tempered", "tempered:", "tempered:half", "tempered:nan", "t:0.5"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=rf"'natural'\] or 'tempered:T' .* got '{name}'"):
        named_distribution(name)


def test_drawn_classes_follow_the_probabilities_and_never_leave_them():
    p = torch.tensor([0.0, 0.7, 0.1, 0.2, 0.0], dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    labels = sample_classes(class_edges(p), 100_000, rng=rng)
    assert labels.dtype == torch.int64
    shares = torch.bincount(labels, minlength=5) / len(labels)
    assert bool(((shares - p).abs() <= 5 * (p * (1 - p) / len(labels)).sqrt()).all()), shares


@pytest.mark.parametrize("place", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_give_possible_classes(monkeypatch, place):
    monkeypatch.setattr(torch, "rand", lambda count, **options: torch.full((count,), place))
    for classes in (3, 7, 10, 41):
        p = torch.full((classes + 2,), 1 / classes, dtype=torch.float64)
        p[0] = p[-1] = 0.0
        assert 1 <= int(sample_classes(class_edges(p.float()), 1)) <= classes


def test_latents_are_standard_normal_and_depend_on_the_source():
    def draw(seed, **options):
        return sample_latents(2000, 8, rng=torch.Generator().manual_seed(seed), **options)

    z = draw(0)
    assert abs(z.mean()) < 0.05
    assert abs(z.std() - 1) < 0.05
    assert torch.equal(z, draw(0))
    assert not torch.equal(z, draw(1))
    assert draw(0, dtype=torch.float64).dtype == torch.float64


def test_a_class_grid_has_a_row_for_each_class():
    assert cg.class_grid(3, 2).reshape(3, 2).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_interpolation_runs_on_the_great_arc_at_constant_speed():
    rng = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 64, generator=rng, dtype=torch.float64)
    end *= start.norm() / end.norm()
    path = cg.interpolate_latents(start, end, 9)
    torch.testing.assert_close(path[0], start)
    torch.testing.assert_close(path[-1], end)
    torch.testing.assert_close(path.norm(dim=1), start.norm().expand(9))
    cosines = torch.cosine_similarity(path[:-1], path[1:], dim=1)
    angle = torch.acos(torch.cosine_similarity(start, end, dim=0))
    torch.testing.assert_close(torch.acos(cosines), (angle / 8).expand(8))
    torch.testing.assert_close(cg.interpolate_latents(end, start, 9), path.flip(0))


@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0])
def test_interpolation_along_a_line_through_the_origin_stays_finite(factor):
    start = torch.randn(16, generator=torch.Generator().manual_seed(0))
    path = cg.interpolate_latents(start, factor * start, 3)
    torch.testing.assert_close(path[1], (1 + factor) / 2 * start)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return cg.DCGANGenerator(latent_dim=4, num_classes=3, image_shape=(1, 16, 16), base_channels=2)


def test_samples_do_not_depend_on_the_batch_size(generator):
    y = [0, 1, 2, 0, 1, 2, 2]
    whole, parts = (cg.sample(generator, y, rng=torch.Generator().manual_seed(1), batch_size=size) for size in (256, 3))
    torch.testing.assert_close(whole, parts)
    permuted = cg.sample(generator, [2, *y[1:]], rng=torch.Generator().manual_seed(1))
    torch.testing.assert_close(permuted[1:], whole[1:])


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_generator_as_it_was(generator, training):
    generator.train(training)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    x = cg.sample(generator, torch.tensor([2, 1], dtype=torch.int32))
    assert generator.training is training
    assert not x.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_the_mode_is_restored_after_an_error(generator):
    generator.train()
    generator.to_image = None
    with pytest.raises(TypeError):
        cg.sample(generator, [0])
    assert generator.training


def test_the_number_of_images_may_be_a_number_of_numpy():
    generator = cg.DCGANGenerator(num_classes=None, image_shape=(1, 16, 16), base_channels=2)
    assert cg.sample(generator, np.int64(3)).shape == (3, 1, 16, 16)


def test_no_labels_give_no_images(generator):
    assert cg.sample(generator, []).shape == (0, 1, 16, 16)


def test_samples_have_the_type_of_the_generator(generator):
    assert cg.sample(generator.double(), [0, 1]).dtype == torch.float64
