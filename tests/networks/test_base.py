from __future__ import annotations

import copy
import io
import json
import pickle
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from condgan.files import read_record, write_record
from condgan.networks import Critic, DCGANCritic, DCGANGenerator, Generator, ResNetCritic, ResNetGenerator
from condgan.networks.base import seeded_weights
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
    with pytest.raises(ValueError, match=r"(?s)config\.json must hold the arguments of the Constant .*size mismatch"):
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


class Small(Generator):
    def __init__(self, scale: float = 1.0, image_shape: tuple[int, ...] = (2,)) -> None:
        super().__init__(latent_dim=2, num_classes=None, image_shape=image_shape)
        self.scale = scale
        self.body = nn.Linear(2, 2)
        self.register_buffer("count", torch.tensor(3))


def test_no_damaged_file_loads_as_another_network(tmp_path: Path) -> None:
    network = Small(0.5)
    network.save_pretrained(tmp_path)
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}

    @settings(max_examples=200, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(whole)))
        content = bytearray(whole[path])
        place = data.draw(st.integers(0, len(content) - 1))
        size = data.draw(st.sampled_from([1, 8, 64]))
        content[place : place + size] = data.draw(st.sampled_from([b"", bytes(size), b"1" * size, b"\xff" * size]))
        path.write_bytes(content)
        with suppress(ValueError):
            loaded = Small.from_pretrained(tmp_path)
            assert loaded.config == {"scale": 0.5, "image_shape": [2]}
            assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())
        path.write_bytes(whole[path])

    check()


def test_weights_of_another_saving_are_refused(tmp_path: Path) -> None:
    Small().save_pretrained(tmp_path / "one")
    Small().save_pretrained(tmp_path / "other")
    (tmp_path / "one" / "model.safetensors").replace(tmp_path / "other" / "model.safetensors")
    with pytest.raises(ValueError, match=r"weights in .*model\.safetensors do not have the SHA-256"):
        Small.from_pretrained(tmp_path / "other")


def test_an_edited_description_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    path = Small(0.5).save_pretrained(tmp_path) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["arguments"]["scale"] = 0.25
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json is damaged, or was edited.*delete its entry 'sha256'"):
        Small.from_pretrained(tmp_path)
    del config["sha256"]
    path.write_text(json.dumps(config), encoding="utf-8")
    assert Small.from_pretrained(tmp_path).scale == 0.25
    path.write_text(json.dumps({**config, "extra": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"must have the entries .* got .*'extra'"):
        Small.from_pretrained(tmp_path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    folder = Small().save_pretrained(tmp_path)
    write_record(folder / "config.json", {**read_record(folder / "config.json"), "format": 2, "version": "9.0"})
    with pytest.raises(ValueError, match=r"has format 2, written by condgan 9\.0.*Update condgan"):
        Small.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["body.weight", "running"])
def test_weights_that_are_not_finite_are_not_saved(value: float, name: str, tmp_path: Path) -> None:
    network = Small()
    network.register_buffer("running", torch.zeros(3))
    network.state_dict()[name].view(-1)[1] = value
    with pytest.raises(ValueError, match=f"weights of Small must be finite .* in {name}"):
        network.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_infinite_constant_need_not_be_saved(tmp_path: Path) -> None:
    network = Small()
    network.register_buffer("mask", torch.tensor([0.0, -torch.inf]), persistent=False)
    Small.from_pretrained(network.save_pretrained(tmp_path))


def test_numbers_of_numpy_are_recorded_as_pythons_own(tmp_path: Path) -> None:
    network = Small(scale=np.float64(0.5), image_shape=tuple(np.array([2])))
    assert repr(network.config) == "{'scale': 0.5, 'image_shape': (2,)}"
    assert Small.from_pretrained(network.save_pretrained(tmp_path)).scale == 0.5


def test_seeded_weights_are_the_same_under_any_default_device() -> None:
    with seeded_weights(3):
        expected = nn.Linear(2, 2)
    torch.set_default_device("meta")
    try:
        with seeded_weights(3):
            assert torch.equal(nn.Linear(2, 2).weight, expected.weight)
    finally:
        torch.set_default_device(None)
