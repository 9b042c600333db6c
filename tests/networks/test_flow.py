from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import condgan as cg
from condgan.networks import FlowGenerator
from condgan.types import ImageShape, StepInputs

from .testers import SHAPES, GeneratorTester


class TestFlowGenerator(GeneratorTester):
    network = FlowGenerator

    def make(self, *args: Any, **options: Any) -> Any:
        """Make a network with random weights in place of zeros: a new one makes the same image of everything."""
        network = super().make(*args, **options)
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.05)
        return network

    @pytest.mark.parametrize("image_shape", SHAPES)
    @pytest.mark.parametrize("num_classes", [2, 5, None])
    def test_images_have_the_shape_and_range(self, image_shape: ImageShape, num_classes: int | None) -> None:
        """The latents have the size of the images."""
        generator = self.make(num_classes, image_shape)
        x = generator(*self.inputs(generator))
        assert x.shape == (6, *image_shape)
        assert x.dtype == torch.float32
        assert x.abs().max() <= 1
        assert x.std(dim=0).mean() > 1e-3, "latents must change the images"
        assert generator.latent_dim == math.prod(image_shape)
        assert (generator.num_classes, generator.image_shape) == (num_classes, image_shape)

    def test_unknown_conditioning_is_refused(self) -> None:
        """There is no norm that could be conditional, so there is no choice."""
        with pytest.raises(TypeError, match="unexpected keyword argument 'conditioning'"):
            self.make(conditioning="batch_norm")

    test_no_checkerboard = None  # a pattern cannot be told from the latents, which are noise at every pixel


SHAPE = {"num_classes": 3, "image_shape": (1, 16, 16), "base_channels": 4}


def moved(**options: Any) -> FlowGenerator:
    """Return a network in float64 whose parameters left their initial values."""
    torch.manual_seed(0)
    generator = FlowGenerator(**{**SHAPE, **options}).double()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return generator


def latents(generator: FlowGenerator, count: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, generator.latent_dim, dtype=next(generator.parameters()).dtype, generator=rng)


class Constant(FlowGenerator):
    """A denoiser that takes everything for a noisy version of one image."""

    def denoise(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        rng = torch.Generator().manual_seed(2)
        return torch.randn(self.image_shape, dtype=x_t.dtype, generator=rng).expand_as(x_t)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_a_sure_denoiser_is_followed_to_its_image(steps: int) -> None:
    generator = Constant(**SHAPE, steps=steps).double()
    z = latents(generator)
    image = generator.denoise(z.view(3, 1, 16, 16), z[:, 0])
    assert image.abs().max() > 1, "the bounds of images are tested too"
    torch.testing.assert_close(generator(z, torch.tensor([0, 1, 2])), image.clamp(-1, 1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_images_are_euler_integrals_of_the_velocity(steps: int) -> None:
    generator = moved(image_shape=(2, 16, 18), steps=steps)
    z, y = latents(generator), torch.tensor([2, 0, 1])
    x = z.reshape(3, 2, 16, 18)
    for i in range(steps):
        t = torch.full((3,), i / steps, dtype=torch.float64)
        velocity = (generator.denoise(x, t, y) - x) / (1 - t[:, None, None, None])
        x = x + velocity / steps
    torch.testing.assert_close(generator(z, y), x.clamp(-1, 1), atol=1e-12, rtol=0)
    assert x.abs().min() < 1, "not all pixels are bounded"


@pytest.mark.parametrize(
    ("side", "patch_size"), [(16, 2), (32, 2), (62, 2), (63, 4), (64, 4), (124, 4), (125, 8), (128, 8), (256, 16)]
)
def test_by_default_the_shorter_side_has_fewer_than_32_patches(side: int, patch_size: int) -> None:
    generator = FlowGenerator(num_classes=None, image_shape=(1, 300, side), base_channels=1)
    assert generator.patch_size == patch_size
    assert math.ceil(side / patch_size) < 32


@pytest.mark.parametrize("patch_size", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("image_shape", [(1, 16, 16), (3, 17, 21)])
def test_patches_of_any_size(patch_size: int, image_shape: ImageShape) -> None:
    """Every pixel of the image is seen, and every pixel of the estimate is made of it."""
    generator = moved(num_classes=None, image_shape=image_shape, patch_size=patch_size)
    x, t = latents(generator).view(3, *image_shape).requires_grad_(), torch.tensor([0.0, 0.5, 0.9]).double()
    estimate = generator.denoise(x, t)
    assert estimate.shape == x.shape
    (slope,) = torch.autograd.grad(estimate.square().sum(), x)
    assert slope.abs().min() > 0
    assert estimate.detach().flatten(1).std(dim=0).min() > 0
    assert generator(x.detach().flatten(1)).shape == x.shape


def test_maps_are_halved_down_to_four_and_widen_to_four_times_the_channels() -> None:
    generator = FlowGenerator(num_classes=None, image_shape=(1, 160, 128), base_channels=2, patch_size=1)
    assert [block.conv1.out_channels for block in generator.down] == [2, 4, 6, 8, 8, 8]
    sides = []
    generator.middle.register_forward_hook(lambda _module, args, _out: sides.append(tuple(args[0].shape[-2:])))
    generator(torch.randn(2, 160 * 128))
    assert set(sides) == {(5, 4)}


def plain_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    normalized = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + layer.eps).sqrt()
    return normalized * layer.weight[:, None, None] + layer.bias[:, None, None]


def plain_block(block: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    scale, shift = F.linear(embedding, block.scale_and_shift.weight, block.scale_and_shift.bias).chunk(2, dim=1)
    h = F.conv2d(F.silu(plain_norm(block.norm1, x)), block.conv1.weight, block.conv1.bias, padding=1)
    h = plain_norm(block.norm2, h) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    h = F.conv2d(F.silu(h), block.conv2.weight, block.conv2.bias, padding=1)
    shortcut = block.shortcut
    return h + (x if isinstance(shortcut, nn.Identity) else F.conv2d(x, shortcut.weight, shortcut.bias))


def test_the_denoiser_is_its_formula() -> None:
    """With maps of 9x10, 5x5 patches, the last row of which is half padding."""
    generator = moved(image_shape=(2, 17, 20))
    x, t, y = latents(generator).view(3, 2, 17, 20), torch.tensor([0.0, 0.3, 1.0]).double(), torch.tensor([2, 0, 1])
    angles = t[:, None] * torch.exp(6 * torch.arange(32) / 31).double()
    features = torch.cat([angles.sin(), angles.cos(), generator.class_embedding.embedding.weight[y]], 1)
    first, _, second, _ = generator.embedding
    embedding = F.silu(F.linear(F.silu(F.linear(features, first.weight, first.bias)), second.weight, second.bias))
    padded = torch.zeros(3, 2, 18, 20, dtype=torch.float64)
    padded[..., :17, :] = x
    patches = padded.view(3, 2, 9, 2, 10, 2).permute(0, 1, 3, 5, 2, 4).reshape(3, 8, 9, 10)
    h = F.conv2d(patches, generator.first.weight, generator.first.bias, padding=1)
    large = plain_block(generator.down[0], h, embedding)
    halved = F.interpolate(torch.cat([large, large[..., -1:, :]], 2), scale_factor=0.5, mode="area")
    small = plain_block(generator.down[1], halved, embedding)
    h = plain_block(generator.middle, small, embedding)
    h = plain_block(generator.up[1], torch.cat([h, small], 1), embedding)
    rows, columns = torch.arange(9) * 5 // 9, torch.arange(10) // 2
    h = plain_block(generator.up[0], torch.cat([h[:, :, rows][..., columns], large], 1), embedding)
    h = F.conv2d(F.silu(plain_norm(generator.norm, h)), generator.last.weight, generator.last.bias, padding=1)
    expected = h.view(3, 2, 2, 2, 9, 10).permute(0, 1, 4, 2, 5, 3).reshape(3, 2, 18, 20)[..., :17, :]
    torch.testing.assert_close(generator.denoise(x, t, y), expected, atol=1e-5, rtol=1e-5)  # frequencies were float32


def test_time_changes_the_estimate() -> None:
    generator = moved()
    x, y = latents(generator).view(3, 1, 16, 16), torch.tensor([0, 1, 2])
    early, late = (generator.denoise(x, torch.full((3,), t, dtype=torch.float64), y) for t in (0.1, 0.2))
    assert (early - late).abs().amax((1, 2, 3)).min() > 1e-3


def test_a_new_network_estimates_zero_and_its_blocks_are_their_shortcuts() -> None:
    torch.manual_seed(0)
    generator = FlowGenerator(**SHAPE)
    y = torch.tensor([0, 1, 2])
    assert not generator(latents(generator), y).any()
    for block in (*generator.down, generator.middle, *generator.up):
        h, embedding = torch.randn(2, block.conv1.in_channels, 5, 6), torch.randn(2, 96)
        assert torch.equal(block(h, embedding), block.shortcut(h))


def train(generator: FlowGenerator, steps: int) -> None:
    """Leave the gradients of the last step in the parameters."""
    rng = torch.Generator().manual_seed(3)
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.01)
    y = torch.arange(6) % 3
    for _ in range(steps):
        noise = torch.randn(6, *generator.image_shape, generator=rng)
        x = (y - 1)[:, None, None, None] * 0.7 + 0.1 * noise.flip(0)
        inputs = StepInputs(x=x, y=y, z=x, y_fake=y, epsilon=torch.rand(6, generator=rng), noise=noise)
        optimizer.zero_grad()
        cg.FlowMatching(1.0).objective(generator, inputs).backward()
        optimizer.step()


def test_after_two_steps_the_class_counts_and_all_parameters_are_trained() -> None:
    """The first step moves the last layer alone, the second the last ones of the blocks: they began as zeros."""
    torch.manual_seed(0)
    generator = FlowGenerator(**SHAPE)
    z = latents(generator)
    one, other = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    train(generator, 1)
    assert generator.last.weight.grad.any()
    train(generator, 2)
    assert (generator(z, one) - generator(z, other)).abs().amax((1, 2, 3)).min() > 1e-5
    without = [name for name, parameter in generator.named_parameters() if not parameter.grad.any()]
    assert without == []


def test_without_strength_the_class_means_nothing() -> None:
    generator = moved()
    z, one, other = latents(generator), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    generator.class_embedding.class_strength = torch.tensor(0.0)
    assert torch.equal(generator(z, one), generator(z, other))
    generator.class_embedding.class_strength = torch.tensor(0.5)
    assert not torch.allclose(generator(z, one), generator(z, other))


@pytest.mark.parametrize("options", [{"patch_size": 4, "steps": 3}, {"num_classes": None}, {}])
def test_a_rebuilt_network_makes_the_same_images(options: dict[str, Any], tmp_path: Any) -> None:
    generator = moved(**options).float()
    loaded = FlowGenerator.from_pretrained(generator.save_pretrained(tmp_path))
    y = None if generator.num_classes is None else torch.tensor([0, 1, 2])
    assert torch.equal(loaded(latents(generator), y), generator(latents(generator), y))
    assert (loaded.patch_size, loaded.steps) == (generator.patch_size, generator.steps)


def test_fewer_steps_in_training() -> None:
    generator, few, many = (
        moved(**options) for options in ({"steps": 6, "training_steps": 2}, {"steps": 2}, {"steps": 6})
    )
    for other in (few, many):
        other.load_state_dict(generator.state_dict())
    z, y = torch.randn(3, generator.latent_dim, dtype=torch.float64), torch.tensor([0, 1, 1])
    with torch.no_grad():
        assert torch.equal(generator.train()(z, y), few(z, y))
        assert torch.equal(generator.eval()(z, y), many(z, y))
        assert not torch.equal(few(z, y), many(z, y))


@pytest.mark.parametrize("name", ["steps", "training_steps", "patch_size"])
def test_there_is_at_least_one_of_each(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        FlowGenerator(**SHAPE, **{name: 0})
