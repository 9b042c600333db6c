"""What every generator and every critic must do; a file per family inherits it for each network."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrize

from condgan.networks import Critic, Generator
from condgan.networks.base import Network
from condgan.nn import ConditionalBatchNorm2d
from condgan.types import CriticOutput, ImageShape

SHAPES: list[ImageShape] = [(1, 28, 28), (3, 48, 80), (1, 16, 16), (2, 33, 50), (1, 64, 64)]
CLASSES = 5  # no other size of these small networks is 5 or 10, so tables of classes are known by their length

Inputs = tuple[Tensor, Tensor | None]


class NetworkTester:
    network: type[Network]
    uses_labels = True

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {}

    def make(self, num_classes: int | None = CLASSES, image_shape: ImageShape = (1, 28, 28), **options: Any) -> Any:
        torch.manual_seed(0)
        sizes = {"num_classes": num_classes, "image_shape": image_shape, "base_channels": 4}
        return self.network(**{**sizes, **self.options(image_shape), **options})

    def make_moved(self, **options: Any) -> Any:
        """Make a network in evaluation mode whose parameters left their initial values, which hide mistakes."""
        network = self.make(**options).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.1)
                    module.running_var.uniform_(0.5, 2.0)
        return network

    def inputs(self, network: Any, count: int = 6, dtype: torch.dtype = torch.float32) -> Inputs:
        raise NotImplementedError

    def outputs(self, network: Any, inputs: Inputs) -> Tensor:
        """Return all outputs of the network as one `(N, *)` tensor."""
        raise NotImplementedError

    def relabelled(self, outputs: Tensor, permutation: Tensor) -> Tensor:
        return outputs

    def test_float64(self) -> None:
        network = self.make_moved().double()
        inputs = self.inputs(network, dtype=torch.float64)
        wide = self.outputs(network, inputs)
        assert wide.dtype == torch.float64
        narrow = self.outputs(network.float(), (inputs[0].float(), inputs[1]))
        torch.testing.assert_close(narrow, wide.float(), rtol=1e-3, atol=1e-4)

    def test_bf16_autocast(self) -> None:
        network = self.make()
        inputs = self.inputs(network)
        with parametrize.cached():
            torch.manual_seed(0)
            expected = self.outputs(network, inputs).detach()
            torch.manual_seed(0)
            with torch.autocast("cpu", torch.bfloat16):
                out = self.outputs(network, inputs)
            out.float().square().sum().backward()
        assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in network.parameters())
        assert (out.float() - expected).norm() < 0.1 * expected.norm()

    def test_backward_reaches_every_parameter(self) -> None:
        network = self.make_moved()
        out = self.outputs(network, self.inputs(network, count=2 * CLASSES))
        (out * torch.randn_like(out)).sum().backward()
        without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    def test_permuting_the_batch_permutes_the_output(self) -> None:
        network = self.make_moved().double()
        first, y = self.inputs(network, dtype=torch.float64)
        order = torch.randperm(len(first))
        permuted = self.outputs(network, (first[order], y[order]))
        torch.testing.assert_close(permuted, self.outputs(network, (first, y))[order])

    def test_relabelling_commutes_with_the_class_tables(self) -> None:
        network = self.make_moved().double()
        first, y = self.inputs(network, dtype=torch.float64)
        permutation = torch.tensor([3, 0, 4, 1, 2])
        expected = self.relabelled(self.outputs(network, (first, y)), permutation)
        state = network.state_dict()
        tables = {name for name, tensor in state.items() if tensor.ndim and len(tensor) in (CLASSES, 2 * CLASSES)}
        moved = {name: permuted(t, permutation, dim=0) if name in tables else t for name, t in state.items()}
        network.load_state_dict(moved)
        torch.testing.assert_close(self.outputs(network, (first, permutation[y])), expected)
        assert bool(tables) is self.uses_labels

    def test_deepcopy_is_equal_and_independent(self) -> None:
        network = self.make_moved()
        inputs = self.inputs(network)
        twin = copy.deepcopy(network)
        expected = self.outputs(network, inputs)
        assert twin.config == network.config
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(3.0)
        assert torch.equal(self.outputs(twin, inputs), expected)

    def test_pretrained_round_trip(self, tmp_path: Path) -> None:
        network = self.make_moved()
        folder = network.save_pretrained(tmp_path / "new" / "folder")
        rng_state = torch.get_rng_state()
        loaded = self.network.from_pretrained(str(folder))
        assert not loaded.training
        inputs = self.inputs(network)
        assert torch.equal(self.outputs(loaded, inputs), self.outputs(network, inputs))
        assert json.dumps(loaded.config) == json.dumps(network.config)
        assert torch.equal(torch.get_rng_state(), rng_state), "loading must not advance the default generator"

    def test_config_records_defaults_as_plain_json(self, tmp_path: Path) -> None:
        folder = self.make().save_pretrained(tmp_path)
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert config["class"] == self.network.__name__
        defaults = {
            name: default for name, default in self.network.__init__.__kwdefaults__.items() if name != "base_channels"
        }
        sizes = {"num_classes": CLASSES, "image_shape": [1, 28, 28], "base_channels": 4}
        assert config["arguments"] == {**defaults, **sizes, **self.options((1, 28, 28))}

    @pytest.mark.slow
    def test_export_for_any_batch_size(self) -> None:
        network = self.make_moved()
        batch = torch.export.Dim("batch", min=2)
        inputs = self.inputs(network, count=4)
        exported = torch.export.export(network, inputs, dynamic_shapes=({0: batch}, {0: batch})).module()
        others = self.inputs(network, count=7)
        torch.testing.assert_close(self.outputs(exported, others), self.outputs(network, others))

    @pytest.mark.slow
    def test_compile_in_one_graph(self) -> None:
        network = self.make_moved()
        inputs = self.inputs(network)
        torch.compiler.reset()
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(self.outputs(compiled, inputs), self.outputs(network, inputs))

    @pytest.mark.parametrize("image_shape", [(1, 15, 64), (1, 64, 15)])
    def test_short_sides_are_refused(self, image_shape: ImageShape) -> None:
        with pytest.raises(ValueError, match="at least 16 pixels"):
            self.make(image_shape=image_shape, **dict.fromkeys(self.options((1, 28, 28)).keys() & {"attention_at"}))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"image_shape": (28, 28)}, r"must be \(C, H, W\), got \(28, 28\)"),
            ({"image_shape": (0, 28, 28)}, "image_shape must be positive"),
            ({"base_channels": 0}, "base_channels must be at least 1, got 0"),
            ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ],
    )
    def test_sizes_are_checked(self, wrong: dict[str, Any], message: str) -> None:
        sizes = {"num_classes": CLASSES, "image_shape": (1, 28, 28), "base_channels": 4}
        with pytest.raises(ValueError, match=message):
            self.network(**{**sizes, **wrong})


class GeneratorTester(NetworkTester):
    network: type[Generator]

    def inputs(self, network: Generator, count: int = 6, dtype: torch.dtype = torch.float32) -> Inputs:
        rng = torch.Generator().manual_seed(1)
        classes = network.num_classes
        z = torch.randn(count, network.latent_dim, generator=rng).to(dtype)
        return z, None if classes is None else torch.arange(count) % classes

    def outputs(self, network: Generator, inputs: Inputs) -> Tensor:
        return network(*inputs)

    @pytest.mark.parametrize("image_shape", SHAPES)
    @pytest.mark.parametrize("num_classes", [2, 5, None])
    def test_images_have_the_shape_and_range(self, image_shape: ImageShape, num_classes: int | None) -> None:
        generator = self.make(num_classes, image_shape, latent_dim=7)
        x = generator(*self.inputs(generator))
        assert x.shape == (6, *image_shape)
        assert x.dtype == torch.float32
        assert x.abs().max() <= 1
        assert x.std(dim=0).mean() > 1e-3, "latents must change the images"
        assert (generator.latent_dim, generator.num_classes, generator.image_shape) == (7, num_classes, image_shape)

    def test_large_latents_stay_in_range(self) -> None:
        generator = self.make_moved()
        z, y = self.inputs(generator)
        assert generator(100 * z, y).abs().max() <= 1

    def test_labels_change_the_images(self) -> None:
        generator = self.make_moved()
        z, y = self.inputs(generator)
        assert (generator(z, y) - generator(z, (y + 1) % CLASSES)).abs().amax((1, 2, 3)).min() > 1e-3

    @pytest.mark.parametrize("y", [None, torch.zeros(6, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)])
    def test_labels_must_be_one_for_each_sample(self, y: Tensor | None) -> None:
        generator = self.make()
        before = copy.deepcopy(generator.state_dict())
        with pytest.raises(ValueError, match="labels"):
            generator(torch.randn(6, generator.latent_dim), y)
        if y is None:
            assert all(torch.equal(before[name], tensor) for name, tensor in generator.state_dict().items())

    @pytest.mark.parametrize("label", [-1, CLASSES])
    def test_labels_outside_the_classes_are_refused(self, label: int) -> None:
        generator = self.make()
        with pytest.raises(ValueError, match=rf"labels must lie in \[0, 5\), the classes, got .*{label}"):
            generator(torch.randn(2, generator.latent_dim), torch.tensor([0, label]))

    def test_unknown_conditioning_is_refused(self) -> None:
        with pytest.raises(ValueError, match="conditioning must be among batch_norm, concatenation, got 'film'"):
            self.make(conditioning="film")

    def test_no_checkerboard(self) -> None:
        generator = self.make_moved(image_shape=(1, 56, 56)).double()
        assert checkerboard(generator, *self.inputs(generator, dtype=torch.float64)) < 1e-10


def checkerboard(generator: Generator, z: Tensor, y: Tensor | None) -> float:
    """Return the contrast that a generator makes from a latent map that is the same at every place.

    Away from the borders, whose zero padding it sees, a generator of translation-equivariant steps maps a constant
    to a constant. Strided transposed convolutions do not: their weights overlap in a pattern with the stride's period.
    """
    places = generator.base_size[0] * generator.base_size[1]
    with torch.no_grad():
        for parameter in generator.project.parameters():
            by_channel = parameter.view(-1, places, *parameter.shape[1:])
            by_channel.copy_(by_channel[:, :1].expand_as(by_channel).clone())
    return contrast_at_the_centre(generator, z, y)


def contrast_at_the_centre(generator: Generator, z: Tensor, y: Tensor | None) -> float:
    """Return the largest standard deviation within the central 8x8 pixels of an image."""
    with torch.no_grad():
        x = generator(z, y)
    height, width = x.shape[-2:]
    centre = x[..., height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4]
    assert centre.mean((1, 2, 3)).std() > 1e-3, "the images must not be saturated"
    return float(centre.std((-2, -1)).max())


class CriticTester(NetworkTester):
    network: type[Critic]
    fields: tuple[str, ...] = ("score",)
    batch_statistics = False

    def inputs(self, network: Critic, count: int = 6, dtype: torch.dtype = torch.float32) -> Inputs:
        rng = torch.Generator().manual_seed(1)
        x = (torch.rand(count, *network.image_shape, generator=rng) * 2 - 1).to(dtype)
        return x, None if network.num_classes is None else torch.arange(count) % network.num_classes

    def outputs(self, network: Critic, inputs: Inputs) -> Tensor:
        out = network(*inputs)._asdict()
        return torch.cat([out[name].view(len(inputs[0]), -1) for name in self.fields], dim=1)

    def relabelled(self, outputs: Tensor, permutation: Tensor) -> Tensor:
        tables = sum(name in {"class_logits", "twin_logits"} for name in self.fields)
        if not tables:
            return outputs
        score, logits, others = outputs.split([1, tables * CLASSES, outputs.shape[1] - 1 - tables * CLASSES], dim=1)
        return torch.cat([score, permuted(logits, permutation, dim=1), others], dim=1)

    @pytest.mark.parametrize("image_shape", SHAPES)
    @pytest.mark.parametrize("num_classes", [2, 5, None])
    def test_outputs_have_their_shapes(self, image_shape: ImageShape, num_classes: int | None) -> None:
        if self.uses_labels and num_classes is None:
            with pytest.raises(ValueError, match=f"{self.network.__name__} has a class head and needs num_classes"):
                self.make(num_classes, image_shape)
            return
        critic = self.make(num_classes, image_shape)
        x, y = self.inputs(critic)
        out = critic(x, y)
        assert isinstance(out, CriticOutput)
        logits = (6, num_classes)
        embedding = (6, getattr(critic, "embed_dim", None))
        expected = {"score": (6,), "class_logits": logits, "twin_logits": logits, "embedding": embedding}
        shapes = {name: tuple(field.shape) for name, field in out._asdict().items() if field is not None}
        assert shapes == {name: expected[name] for name in self.fields}
        assert critic.features(x).shape == (6, critic.feature_dim)
        assert out.score.std() > 0, "images must change the score"

    def test_score_depends_on_labels_only_if_declared(self) -> None:
        critic = self.make_moved()
        x, y = self.inputs(critic)
        unchanged = critic(x, y).score == critic(x, (y + 1) % CLASSES).score
        assert torch.equal(unchanged, torch.full((6,), not critic.score_needs_labels))

    def test_samples_do_not_see_each_other(self) -> None:
        critic = self.make_moved().double().train()
        x, y = self.inputs(critic, dtype=torch.float64)
        torch.manual_seed(0)
        with parametrize.cached():
            alone, among_others = self.outputs(critic, (x[:2], y[:2])), self.outputs(critic, (x, y))[:2]
        assert torch.allclose(alone, among_others) is not self.batch_statistics

    def test_penalty_gradient_equals_finite_differences(self) -> None:
        """Double backward: the parameter gradient of a gradient penalty, along a random direction."""
        critic = self.make_moved().double()
        x, y = self.inputs(critic, count=3, dtype=torch.float64)

        def penalty() -> Tensor:
            points = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(critic(points, y).score.sum(), points, create_graph=True)
            return slope.square().sum()

        parameters = list(critic.parameters())
        gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True, materialize_grads=True)
        directions = [torch.randn_like(p) for p in parameters]
        expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        values = []
        for step in (1e-8, -2e-8):  # so short that no unit passes its kink
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.add_(direction, alpha=step)
            values.append(penalty().detach())
        torch.testing.assert_close((values[0] - values[1]) / 2e-8, expected, rtol=1e-4, atol=1e-7)

    def test_per_sample_gradients_under_vmap(self) -> None:
        critic = self.make_moved().double()
        x, y = self.inputs(critic, dtype=torch.float64)
        parameters = {name: p.detach() for name, p in critic.named_parameters()}

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            out: CriticOutput = functional_call(critic, parameters, (x[None], y[None]))
            return sum((getattr(out, name).square().sum() for name in self.fields), torch.zeros(()))

        each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
        for i in (0, 3):
            critic.zero_grad()
            loss(dict(critic.named_parameters()), x[i], y[i]).backward()
            for name, parameter in critic.named_parameters():
                torch.testing.assert_close(each[name][i], parameter.grad)


class ContrastiveTester(CriticTester):
    """For critics with unit embeddings."""

    fields = ("score", "class_logits", "embedding")

    def options(self, image_shape: ImageShape) -> dict[str, Any]:
        return {"spectral_norm": True}

    def test_logits_are_cosines_of_unit_vectors(self) -> None:
        critic = self.make_moved().double()
        out = critic(*self.inputs(critic, dtype=torch.float64))
        torch.testing.assert_close(out.embedding.norm(dim=1), torch.ones(6, dtype=torch.float64))
        proxies = critic.class_proxies.weight
        cosines = torch.nn.functional.cosine_similarity(out.embedding[:, None], proxies[None], dim=2)
        torch.testing.assert_close(out.class_logits, cosines)

    def test_autocast_leaves_norms_and_cosines_exact(self) -> None:
        critic = self.make()
        with torch.autocast("cpu", torch.bfloat16):
            out = critic(*self.inputs(critic))
        torch.testing.assert_close(out.embedding.norm(dim=1), torch.ones(6))
        cosines = torch.nn.functional.cosine_similarity(
            out.embedding[:, None], critic.class_proxies.weight[None], dim=2
        )
        torch.testing.assert_close(out.class_logits, cosines)


class LabelledScoreTester(CriticTester):
    """For critics whose score reads the labels."""

    @pytest.mark.parametrize("y", [None, torch.zeros(6, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)])
    def test_labels_must_be_one_for_each_sample(self, y: Tensor | None) -> None:
        critic = self.make()
        assert critic.score_needs_labels
        with pytest.raises(ValueError, match="labels"):
            critic(self.inputs(critic)[0], y)


def permuted(tables: Tensor, permutation: Tensor, *, dim: int) -> Tensor:
    """Return tables of classes, one after the other along `dim`, each with its classes renamed."""
    return torch.cat([table.index_select(dim, permutation.argsort()) for table in tables.split(CLASSES, dim)], dim)


def conditional_norms(network: nn.Module) -> list[ConditionalBatchNorm2d]:
    return [m for m in network.modules() if isinstance(m, ConditionalBatchNorm2d)]
