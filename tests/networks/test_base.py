from __future__ import annotations

import copy
import io
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from condgan.networks import Critic, DCGANCritic, DCGANGenerator, Generator, ResNetCritic, ResNetGenerator
from condgan.types import ImageShape


class Positional(DCGANCritic):
    """A user's critic with a signature of its own."""

    def __init__(self, base_channels: int, image_shape: ImageShape = (1, 16, 16), /, *layers: int) -> None:
        super().__init__(num_classes=None, image_shape=image_shape, base_channels=base_channels)
        self.layers = layers


class Ordered(ResNetGenerator):
    def __init__(self, side: int, channels: int = 1, *, scale: float = 2.0) -> None:
        super().__init__(latent_dim=4, num_classes=None, image_shape=(channels, side, side), base_channels=2)
        self.scale = scale


class PassingOn(DCGANCritic):
    def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
        super().__init__(*args, num_classes=None, image_shape=(1, 16, 16), **kwargs)
        self.name = name


class Constant(DCGANCritic):
    def __init__(self, base_channels: int = 2) -> None:
        super().__init__(num_classes=None, image_shape=(1, 16, 16), base_channels=base_channels)


class Tied(Constant):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = self.first


class WithModule(Constant):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation


@pytest.mark.parametrize(
    ("network", "config"),
    [
        (Ordered(16, 2), {"side": 16, "channels": 2, "scale": 2.0}),
        (Ordered(side=17, scale=0.5), {"side": 17, "channels": 1, "scale": 0.5}),
        (PassingOn(name="a", base_channels=3), {"name": "a", "base_channels": 3}),
        (Constant(), {"base_channels": 2}),
        (Tied(), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_constructors_of_users_round_trip(network: Generator | Critic, config: dict[str, Any], tmp_path: Path) -> None:
    assert network.config == config, "only the outermost constructor is recorded"
    loaded = type(network).from_pretrained(network.save_pretrained(tmp_path))
    assert loaded.config == config
    assert type(loaded) is type(network)
    expected = network.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    loaded = Tied.from_pretrained(Tied().save_pretrained(tmp_path))
    assert loaded.first is loaded.second


def test_arguments_without_names_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Positional must name its arguments .* got positional ones in base_channels"):
        Positional(2).save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arguments_beyond_json_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="arguments of WithModule must be plain JSON values"):
        WithModule(nn.ReLU()).save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_arguments_raise_the_constructors_own_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'classes'"):
        DCGANCritic(classes=3, image_shape=(1, 16, 16))  # type: ignore[call-arg]


def test_copies_keep_the_record() -> None:
    network = Ordered(18)
    assert copy.copy(network).config == network.config
    assert copy.deepcopy(network).config == network.config
    assert pickle.load(io.BytesIO(pickle.dumps(network))).config == network.config


def test_saving_twice_replaces(tmp_path: Path) -> None:
    Constant(2).save_pretrained(tmp_path)
    second = Constant(3)
    second.save_pretrained(tmp_path)
    assert torch.equal(Constant.from_pretrained(tmp_path).score_head.weight, second.score_head.weight)


def test_class_mismatch_names_both(tmp_path: Path) -> None:
    folder = DCGANCritic(num_classes=None, image_shape=(1, 16, 16), base_channels=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a DCGANCritic, got a call on ResNetCritic.*DCGANCritic.from_pretrai"):
        ResNetCritic.from_pretrained(folder)
    with pytest.raises(ValueError, match="holds a DCGANCritic, got a call on Constant"):
        Constant.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    (Constant().save_pretrained(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"missing {name}"):
        Constant.from_pretrained(tmp_path)


def test_the_file_chooses_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    folder = Constant().save_pretrained(tmp_path / "saved")
    for name in ("planted.Constant", "planted", "os.system"):
        (folder / "config.json").write_text(json.dumps({"class": name, "arguments": {}}), encoding="utf-8")
        with pytest.raises(ValueError, match=f"holds a {name}"):
            Constant.from_pretrained(folder)
    assert "planted" not in sys.modules


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    folder = Constant(2).save_pretrained(tmp_path)
    config = {"class": "Constant", "arguments": {"base_channels": 3}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(RuntimeError, match="size mismatch"):
        Constant.from_pretrained(folder)


def test_base_classes_say_what_to_define() -> None:
    with pytest.raises(NotImplementedError, match=r"Generator must define forward\(z, y\)"):
        Generator(latent_dim=2, num_classes=None, image_shape=(2,))(torch.zeros(1, 2))
    with pytest.raises(NotImplementedError, match=r"Critic must define features\(x\)"):
        Critic(feature_dim=2, num_classes=None, image_shape=(2,))(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 2, got 0. Pass None"),
        ({"image_shape": ()}, "image_shape must be positive sizes"),
        ({"image_shape": (3, -1)}, "image_shape must be positive sizes"),
    ],
)
def test_sizes_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generator(**{"latent_dim": 2, "num_classes": None, "image_shape": (2,), **wrong})


def test_networks_for_vectors() -> None:
    class Perceptron(Critic):
        def __init__(self, width: int) -> None:
            super().__init__(feature_dim=width, num_classes=None, image_shape=(2,))
            self.body = nn.Linear(2, width)

        def features(self, x: Tensor) -> Tensor:
            return torch.relu(self.body(x))

    critic = Perceptron(4)
    x = torch.randn(3, 2)
    torch.testing.assert_close(
        critic(x).score, torch.relu(critic.body(x)) @ critic.score_head.weight[0] + critic.score_head.bias
    )


def test_float64_weights_load_in_the_default_dtype(tmp_path: Path) -> None:
    generator = DCGANGenerator(num_classes=None, image_shape=(1, 16, 16), base_channels=2).double()
    loaded = DCGANGenerator.from_pretrained(generator.save_pretrained(tmp_path))
    assert loaded.project.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.project.weight, generator.project.weight.float())
