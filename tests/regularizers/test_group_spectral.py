import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import condgan as cg
from condgan.nn import ConditionalBatchNorm2d
from condgan.regularizers.group_spectral import squared_spectral_norm


class TwoNorms(nn.Module):
    """Two conditional norms of two classes, of 4 and 6 channels, and one without classes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = ConditionalBatchNorm2d(4, 2), ConditionalBatchNorm2d(6, 2)
        self.other = ConditionalBatchNorm2d(4)
        self.double()


def filled(seed=0) -> TwoNorms:
    networks = TwoNorms()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    return networks


def test_parity_with_singular_values():
    generator = filled()
    effective = [(1 - 0.9**count) / 0.1 for count in (30, 3)]
    weights = torch.tensor([2 / effective[0], 2 / effective[1]], dtype=torch.float64) / sum(1 / e for e in effective)
    total = 0.0
    for norm, shape in ((generator.first, (2, 2)), (generator.second, (2, 3))):
        for table in (norm.gain - 1, norm.shift):
            for y in range(2):
                total += weights[y] * torch.linalg.matrix_norm(table[y].view(shape), 2) ** 2
    regularizer = cg.GroupSpectralRegularizer(3.0, class_counts=(30, 3), alpha=0.9, every=2)
    expected, found = 3 * 2 * total / (2 * 2), regularizer(generator, None)
    torch.testing.assert_close(found, expected)
    parameters = [*generator.first.parameters(), *generator.second.parameters()]
    gradients = (torch.autograd.grad(value, parameters) for value in (found, expected))
    torch.testing.assert_close(*gradients)
    assert regularizer.class_weights.mean() == pytest.approx(1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 2, 7, 12, 36, 64]), st.floats(1e-3, 1e3))
def test_the_norm_is_the_largest_singular_value(seed, channels, scale):
    table = scale * torch.randn(3, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    groups = max(rows for rows in range(1, channels + 1) if channels % rows == 0 and rows * rows <= channels)
    expected = torch.linalg.svdvals(table.view(3, groups, -1))[:, 0].square()
    found = squared_spectral_norm(table)
    # nearly equal singular values are told apart late; the value then is between them
    assert bool((found <= expected * (1 + 1e-9)).all())
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=0)


def test_equal_singular_values_and_zeros():
    table = torch.stack([3 * torch.eye(4, dtype=torch.float64).flatten(), torch.zeros(16, dtype=torch.float64)])
    table.requires_grad_()
    squares = squared_spectral_norm(table)
    torch.testing.assert_close(squares.detach(), torch.tensor([9.0, 0.0], dtype=torch.float64))
    squares.sum().backward()
    assert table.grad.isfinite().all()
    assert not table.grad[1].any()


def test_a_generator_at_its_initial_values_pays_nothing():
    generator = cg.ResNetGenerator(num_classes=2, image_shape=(1, 16, 16), base_channels=2)
    assert cg.GroupSpectralRegularizer(class_counts=(9, 1))(generator, None) == 0


def test_derivatives():
    """Those of first order: the power is constant, as the vectors of a power iteration are."""
    table = torch.randn(3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    torch.autograd.gradcheck(squared_spectral_norm, (table,))


def test_rare_classes_weigh_more():
    def pull(alpha):
        regularizer = cg.GroupSpectralRegularizer(class_counts=(10_000, 100), alpha=alpha)
        return (regularizer.class_weights[1] / regularizer.class_weights[0]).item()

    assert pull(0.0) == 1
    assert 1 < pull(0.99) < pull(0.999) < pull(0.999999) < 100
    assert pull(0.999999999) == pytest.approx(100, rel=1e-3)


def test_the_result_does_not_depend_on_autocast():
    generator = filled().float()
    regularizer = cg.GroupSpectralRegularizer(class_counts=(5, 2))
    expected = regularizer(generator, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert regularizer(generator, None) == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"class_counts": ()}, r"class_counts must be at least 1 for each class, got \(\)"),
        ({"class_counts": (3, 0)}, r"class_counts must be at least 1 for each class, got \(3, 0\)"),
        ({"class_counts": (3, 1), "alpha": 1.0}, r"alpha must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        cg.GroupSpectralRegularizer(**wrong)


def test_a_trainer_refuses_generators_without_such_norms(make_trainer):
    with pytest.raises(ValueError, match=r"conditional batch norms of 3 classes.*got norms of none"):
        make_trainer(regularizers=[cg.GroupSpectralRegularizer(class_counts=(12, 8, 4))])
    with pytest.raises(ValueError, match=r"conditional batch norms of 3 classes.*got norms of \['2'\]"):
        cg.GroupSpectralRegularizer(class_counts=(12, 8, 4))(filled(), None)
    with pytest.raises(ValueError, match="got norms of none"):
        cg.GroupSpectralRegularizer(class_counts=(12, 8, 4))(lambda z, y: z, None)


def test_training_under_it_shrinks_the_parameters_of_the_rare_class(tiny_images):
    shape = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 4}

    def spread(weight):
        torch.manual_seed(0)
        generator = cg.ResNetGenerator(latent_dim=8, **shape)
        trainer = cg.Trainer(
            generator,
            cg.ACResNetCritic(**shape),
            loss=cg.HingeLoss(),
            regularizers=[cg.GroupSpectralRegularizer(weight, class_counts=tiny_images.class_counts)],
            generator_optimizer=cg.OptimizerConfig(lr=0.01),
            device="cpu",
        )
        trainer.fit(tiny_images, steps=10, batch_size=6)
        return sum(norm.shift[2].norm() for norm in generator.modules() if isinstance(norm, ConditionalBatchNorm2d))

    assert spread(100.0) < 0.7 * spread(0.0)
