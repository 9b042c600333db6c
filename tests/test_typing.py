"""Users' scripts against the types of the library: mypy accepts right use, as in the README, and reports wrong use."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import condgan

RIGHT = """
from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from torch.utils.data import DataLoader, TensorDataset

import condgan as cg
from condgan.data import ArrayDataset
from condgan.training import as_labelled
from condgan.regularizers import CriticRegularizer
from condgan.types import CriticBatch


class MyGenerator(cg.Generator):
    def __init__(self, num_classes: int, *, latent_dim: int = 4) -> None:
        super().__init__(latent_dim=latent_dim, num_classes=num_classes, image_shape=(1, 16, 16))
        self.embedding = nn.Embedding(num_classes, latent_dim)
        self.body = nn.Linear(latent_dim, 256)

    @override
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            raise ValueError("y is needed.")
        return torch.tanh(self.body(z + self.embedding(y))).view(-1, 1, 16, 16)


class MyTrunk(cg.Critic):
    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__(feature_dim=width, num_classes=num_classes, image_shape=(1, 16, 16))
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(256, width), nn.ReLU())

    @override
    def features(self, x: Tensor) -> Tensor:
        h: Tensor = self.body(x)
        return h


class MyCritic(cg.AuxiliaryClassifierMixin, cg.ProjectionMixin, MyTrunk):
    pass


class ScorePenalty(CriticRegularizer):
    @override
    def penalty(self, critic: object, batch: CriticBatch) -> Tensor:
        return batch.real.score.square().mean()


class Announce(cg.Callback):
    @override
    def on_step_end(self, trainer: cg.Trainer) -> None:
        self.newest = trainer.state.step


labels = torch.arange(24) % 3
data = ArrayDataset((torch.rand(24, 1, 16, 16) * 255).to(torch.uint8), labels)
generator, critic = MyGenerator(3), MyCritic(3, width=6)
before = [parameter.detach().clone() for parameter in (*generator.parameters(), *critic.parameters())]
trainer = cg.Trainer(
    generator,
    critic,
    loss=cg.HingeLoss(),
    auxiliary=cg.AuxiliaryClassifierLoss(),
    regularizers=[cg.R1(weight=0.1), ScorePenalty(0.01, every=2)],
    critic_optimizer=lambda parameters: torch.optim.RMSprop(parameters, lr=5e-4),
    callbacks=[Announce()],
    device="cpu",
)
trainer.fit(data, steps=3, batch_size=8)
pairs = TensorDataset(torch.rand(24, 1, 16, 16), labels)
cg.Trainer(MyGenerator(3), MyCritic(3), loss=cg.HingeLoss(), device="cpu").fit(
    DataLoader(pairs, batch_size=8, shuffle=True), steps=1, batch_size=8, image_range=(0, 1), progress=False
)
same_shape: tuple[int, ...] = as_labelled(pairs, image_range=(0, 1)).image_shape
after: list[Tensor] = [*generator.parameters(), *critic.parameters()]
moved: list[bool] = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
x: Tensor = trainer.sample(torch.tensor([0, 1, 2]), seed=0)
out: cg.CriticOutput = critic(x, torch.tensor([0, 1, 2]))
score: Tensor = out.score
loaded: MyCritic = MyCritic.from_pretrained(critic.save_pretrained("critic"))
metrics: dict[str, float] = trainer.state.metrics
shape: tuple[int, int, int] = data.split(0.5)[0].image_shape
"""

WRONG = """
import torch

import condgan as cg

critic = cg.ACResNetCritic(num_classes=3, image_shape=(1, 28, 28))
x = torch.zeros(2, 1, 28, 28)
cg.DCGANCritic(num_classes=3)  # call-arg
cg.ACResNetCritic(3, (1, 28, 28))  # call-arg misc
cg.ResNetGenerator(num_classes=3, image_shape=(28, 28))  # arg-type
cg.ResNetGenerator(num_classes=3, image_shape=(1, 28, 28), conditioning="film")  # arg-type
critic(x).scores  # attr-defined
critic(x).class_logits.argmax(1)  # union-attr
critic(x, "NORMAL")  # arg-type
critic.features(3)  # arg-type
cg.Trainer(cg.DCGANGenerator(num_classes=None, image_shape=(1, 28, 28)), critic)  # call-arg
cg.Trainer(critic, critic, loss=cg.HingeLoss())  # arg-type
generator = cg.ResNetGenerator(num_classes=3, image_shape=(1, 28, 28))
cg.Trainer(generator, critic, loss=cg.HingeLoss(), critic_optimizer=lambda parameters: 0.1)  # arg-type
cg.Trainer(generator, critic, loss=cg.HingeLoss()).fit(x, steps=1)  # arg-type
cg.GradientPenalty(weight="10")  # arg-type
wrong: cg.ResNetCritic = cg.DCGANCritic.from_pretrained("folder")  # assignment
"""


NAMES = ("right.py", "wrong.py", "readme.py", "network.py")


def python_blocks(page: str) -> list[str]:
    text = (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> dict[str, dict[int, set[str]]]:
    """Error codes by line for the scripts, from one strict run; pytest's cache, where there is one, keeps mypy's."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("mypy")
    (folder / "right.py").write_text(RIGHT, encoding="utf-8")
    (folder / "wrong.py").write_text(WRONG, encoding="utf-8")
    (folder / "readme.py").write_text(python_blocks("README.md")[0], encoding="utf-8")
    of_its_own = [block for block in python_blocks("docs/pages/get-started.md") if "MyACProjectionCritic(" in block]
    network = "\n".join(["import torch\n\nimport condgan as cg", *of_its_own])
    (folder / "network.py").write_text(network, encoding="utf-8")
    kept = getattr(pytestconfig, "cache", None)
    cache = folder / "cache" if kept is None else kept.mkdir("mypy")
    root = Path(condgan.__file__).parents[1]
    # mypy refuses a path that it searches anyway.
    search = {} if root.name == "site-packages" else {"MYPYPATH": str(root)}
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--no-pretty", "--no-color-output"]
    process = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", str(cache), *NAMES],
        cwd=folder,
        env={**os.environ, **search},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 1, process.stdout + process.stderr
    codes: dict[str, dict[int, set[str]]] = {name: {} for name in NAMES}
    for name, line, code in re.findall(r"^(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", process.stdout, re.MULTILINE):
        codes[name].setdefault(int(line), set()).add(code)
    assert codes["wrong.py"], process.stdout
    return codes


def test_right_use_is_clean(reports: dict[str, dict[int, set[str]]]) -> None:
    assert reports["right.py"] == {}


def test_the_script_of_the_readme_is_clean(reports: dict[str, dict[int, set[str]]]) -> None:
    assert reports["readme.py"] == {}


def test_the_network_of_the_guide_is_clean(reports: dict[str, dict[int, set[str]]]) -> None:
    assert reports["network.py"] == {}


def test_wrong_use_is_reported(reports: dict[str, dict[int, set[str]]]) -> None:
    expected = {
        number: set(comment.split())
        for number, line in enumerate(WRONG.splitlines(), start=1)
        if (comment := line.partition("  # ")[2])
    }
    found = {number: codes & expected.get(number, codes) for number, codes in reports["wrong.py"].items()}
    assert {number: bool(codes) for number, codes in found.items()} == dict.fromkeys(expected, True)


def test_the_right_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "right.py").write_text(RIGHT, encoding="utf-8")
    torch.manual_seed(0)
    names = runpy.run_path("right.py")
    assert all(names["moved"]), "every parameter of both networks is trained"
    assert names["x"].shape == (3, 1, 16, 16)
    for name, tensor in names["critic"].state_dict().items():
        assert torch.equal(tensor, names["loaded"].state_dict()[name])
    assert {"critic/r1", "critic/score_penalty", "critic/auxiliary_classifier"} <= names["metrics"].keys()
