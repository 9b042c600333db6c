import re
from dataclasses import replace

import pytest
import torch

import condgan as cg
from condgan.types import GeneratorBatch, StepInputs

SHAPE = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 4}


def make_generator(kind=cg.FlowGenerator, **options) -> cg.FlowGenerator:
    """A denoiser in float64 whose parameters left their initial values, some of which are zero."""
    torch.manual_seed(0)
    generator = kind(**{**SHAPE, **options}).double()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return generator


def make_inputs(t=(0.0, 0.3, 0.6, 0.85), dtype=torch.float64) -> StepInputs:
    """Labels of generated images and latents are wrong on purpose: they are not read."""
    rng = torch.Generator().manual_seed(1)
    x, noise = torch.randn(2, len(t), *SHAPE["image_shape"], generator=rng, dtype=dtype)
    y = torch.arange(len(t)) % 3
    return StepInputs(x=x, y=y, z=noise, y_fake=y + 99, epsilon=torch.tensor(t, dtype=dtype), noise=noise)


def test_a_new_generator_estimates_zero_images():
    generator, inputs = cg.FlowGenerator(**SHAPE).double(), make_inputs(t=(0.0, 0.5, 0.89, 0.95, 1.0))
    divided_by = torch.tensor([1.0, 0.5, 0.11, 0.1, 0.1], dtype=torch.float64)[:, None, None, None]
    expected = (inputs.x / divided_by).square().mean()
    torch.testing.assert_close(cg.FlowMatching(1.0).objective(generator, inputs), expected)


class Perfect(cg.FlowGenerator):
    """Knows what the images were."""

    def denoise(self, x_t, t, y=None):
        return self.answer


def test_a_perfect_denoiser_has_no_error():
    generator, inputs = Perfect(**SHAPE), make_inputs()
    generator.answer = inputs.x
    assert cg.FlowMatching().objective(generator, inputs) == 0


def test_it_is_the_error_of_the_velocity():
    """Written with velocities, which the network does not return, and at the ends that flow matching has."""
    generator, inputs = make_generator(), make_inputs()
    found = cg.FlowMatching(1.0).objective(generator, inputs)
    t = inputs.epsilon.view(-1, 1, 1, 1)
    x_t = torch.lerp(inputs.noise, inputs.x, t)
    velocity = (generator.denoise(x_t, inputs.epsilon, inputs.y) - x_t) / (1 - t)
    expected = torch.nn.functional.mse_loss(velocity, inputs.x - inputs.noise)
    torch.testing.assert_close(found, expected)
    of_found, of_expected = (torch.autograd.grad(value, list(generator.parameters())) for value in (found, expected))
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one, other)
    assert any(gradient.any() for gradient in of_found)


def test_unconditional_generators_have_no_labels():
    generator, inputs = make_generator(num_classes=None), make_inputs()
    value = cg.FlowMatching().objective(generator, replace(inputs, y=None, y_fake=None))
    assert value.isfinite()
    assert value > 0


def test_gradients_equal_finite_differences():
    """Of all parameters along a direction, and of the images, where the loss reads them twice."""
    generator, inputs = make_generator(base_channels=2, patch_size=4), make_inputs(t=(0.2, 0.95))
    parameters = list(generator.parameters())
    term, x = cg.FlowMatching(1.0), inputs.x.clone().requires_grad_()
    rng = torch.Generator().manual_seed(2)
    directions = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]
    gradients = torch.autograd.grad(term.objective(generator, inputs), parameters)
    expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    values = []
    with torch.no_grad():
        for length in (1e-6, -2e-6, 1e-6):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=length)
            values.append(term.objective(generator, inputs))
    torch.testing.assert_close((values[0] - values[1]) / 2e-6, expected, rtol=1e-5, atol=0)
    torch.autograd.gradcheck(lambda x: term.objective(generator, replace(inputs, x=x)), (x,), fast_mode=True)


def test_under_autocast_the_value_is_close_and_float32():
    generator, inputs = make_generator().float(), make_inputs(dtype=torch.float32)
    exact = cg.FlowMatching().objective(generator, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = cg.FlowMatching().objective(generator, inputs)
    assert rough.dtype == torch.float32
    assert rough != exact, "nothing was computed in the lower precision"
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0)
    rough.backward()
    assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())


def test_weights_multiply_and_lazy_terms_make_up_for_their_pauses():
    generator, inputs = make_generator(), make_inputs()
    batch = GeneratorBatch(x_fake=None, fake=None, inputs=inputs)
    plain = cg.FlowMatching().objective(generator, inputs)
    torch.testing.assert_close(cg.FlowMatching()(generator, batch), 10 * plain)
    torch.testing.assert_close(cg.FlowMatching(3.0, every=2)(generator, batch), 6 * plain)
    scheduled = cg.FlowMatching(cg.PiecewiseLinearSchedule([(0.0, 4.0), (1.0, 0.0)]))
    scheduled.set_progress(0.25)
    torch.testing.assert_close(scheduled(generator, batch), 3 * plain)


@pytest.mark.parametrize("options", [{"weight": -1.0}, {"every": 0}])
def test_wrong_values_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        cg.FlowMatching(**options)


def test_other_generators_are_refused(make_trainer):
    message = "FlowMatching trains a FlowGenerator, or another generator that can denoise, got a DCGANGenerator. Pass"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_trainer(regularizers=[cg.FlowMatching()])
    with pytest.raises(ValueError, match=re.escape(message)):
        cg.FlowMatching().objective(cg.DCGANGenerator(**SHAPE), make_inputs())


class OwnDenoiser(cg.Generator):
    def __init__(self):
        super().__init__(latent_dim=256, num_classes=3, image_shape=(1, 16, 16))
        self.factor = torch.nn.Parameter(torch.zeros(3))

    def denoise(self, x_t, t, y=None):
        return self.factor[y][:, None, None, None] * x_t

    def forward(self, z, y=None):
        return self.denoise(z.view(-1, 1, 16, 16), z[:, 0], y).clamp(-1, 1)


def test_a_denoiser_may_be_your_own(tiny_images):
    generator = OwnDenoiser()
    trainer = cg.Trainer(
        generator,
        cg.DCGANCritic(**SHAPE),
        loss=cg.HingeLoss(),
        regularizers=[cg.FlowMatching()],
        pretraining=0.5,
        device="cpu",
    )
    trainer.fit(tiny_images, steps=2, batch_size=16)
    assert generator.factor.all()


@pytest.mark.parametrize("missing", ["x", "noise"])
def test_missing_draws_are_named(missing):
    with pytest.raises(ValueError, match=r"needs .* and StepInputs.noise, got None"):
        cg.FlowMatching().objective(make_generator(), replace(make_inputs(), **{missing: None}))


def test_a_few_steps_teach_what_images_of_each_class_look_like(tiny_images):
    """Classes are soon told apart by their brightness."""
    torch.manual_seed(0)
    trainer = cg.Trainer(
        cg.FlowGenerator(**SHAPE),
        cg.DCGANCritic(**SHAPE),
        loss=cg.HingeLoss(),
        regularizers=[cg.FlowMatching(1.0)],
        pretraining=0.999,
        generator_optimizer=cg.OptimizerConfig(lr=1e-2, betas=(0.9, 0.99)),
        ema_decay=0.8,
        device="cpu",
    )
    trainer.fit(tiny_images, steps=30, batch_size=8)
    brightness = trainer.sample([0] * 8 + [2] * 8, seed=0).mean((1, 2, 3)).view(2, 8)
    real = [tiny_images.images[tiny_images.labels == y].float().mean() / 127.5 - 1 for y in (0, 2)]
    assert brightness.mean(1).tolist() == pytest.approx([float(value) for value in real], abs=0.2)
