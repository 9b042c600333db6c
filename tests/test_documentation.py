"""The code that documentation shows is run as it stands, but for its sizes."""

import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import condgan as cg

ROOT = Path(__file__).parents[1]
SMALLER = {
    "steps=20_000": "steps=2",
    "steps=2_000": "steps=2",
    "batch_size=64": "batch_size=4",
    "(1, 64, 64)": "(1, 16, 16)",
    "4, 1, 64, 64": "4, 1, 16, 16",
    "base_channels=64": "base_channels=4",
    "base_channels=32": "base_channels=4",
    "latent_dim=128, ": "latent_dim=128, base_channels=4, ",
    "cg.ACResNetCritic(num": "cg.ACResNetCritic(base_channels=4, num",
    "train_classifier(synthetic, validation)": "train_classifier(synthetic, validation, epochs=1, precision='fp32')",
    "5, stride=4": "3, stride=2",
}


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def write_folder(folder, seed):
    data = cg.data.ChestPhantom((12, 12), classes=2, image_shape=(1, 16, 16), seed=seed)
    for i, (image, y) in enumerate(zip(data.images, data.labels, strict=True)):
        path = folder / ("healthy", "ill")[int(y)] / f"{i // 2:03}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)


@pytest.mark.parametrize("name", ["README.md", "docs/pages/get-started.md"])
def test_shown_code_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, seed in (("chest_xray/train", 0), ("scans/train", 1), ("scans/test", 2)):
        write_folder(tmp_path / folder, seed)
    blocks = python_blocks(ROOT / name)
    assert blocks
    names = {}
    torch.manual_seed(0)
    for block in blocks:
        for shown, small in SMALLER.items():
            block = block.replace(shown, small)
        exec(compile(block, name, "exec"), names)


def test_readme_script_gives_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "chest_xray/train", 0)
    (script,) = python_blocks(ROOT / "README.md")
    for shown, small in SMALLER.items():
        script = script.replace(shown, small)
    names = {}
    exec(compile(script, "README.md", "exec"), names)
    assert names["x"].shape == (4, 1, 16, 16)
    assert (tmp_path / "acwgan-gp-chest-xray" / "model.safetensors").is_file()
    assert list((tmp_path / "runs/acwgan_gp").glob("samples-*.png"))


def test_readme_names_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## What there is") : text.index("## Chest X-rays")]
    names = re.findall(r"`([A-Za-z_0-9]+(?:\.[a-z_]+)?)`", table)
    homes = (SimpleNamespace(condgan=cg), cg, cg.data, cg.recipes)
    assert not [name for name in names if "..." not in name and not any(_resolves(home, name) for home in homes)]


def _resolves(home, name):
    for part in name.split("."):
        if not hasattr(home, part):
            return False
        home = getattr(home, part)
    return True


def test_every_module_is_on_an_api_page():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/pages/api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)", pages, flags=re.MULTILINE))
    private = {"condgan.data.anatomy",
        "condgan.functional.precision",
        "condgan.study.canvas", "condgan.training.interruption",
        "condgan.training.player",
        "condgan.training.randomness",
        "condgan.training.sampler",
        "condgan.training.setup", "condgan.training.checks", "condgan.training.checkpoint",
               "condgan.training.distributed"}  # fmt: skip
    modules = {
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in (ROOT / "src/condgan").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert modules - private == shown


def load_update(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "chest_xray"))
    spec = importlib.util.spec_from_file_location("update", ROOT / "docs" / "update.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("section", ["two-classes", "three-classes"])
def test_shown_results_are_those_of_a_run(section, monkeypatch):
    update = load_update(monkeypatch)
    results = json.loads((ROOT / "docs/pages/assets" / section / "results.json").read_text(encoding="utf-8"))
    shown = (ROOT / "docs/pages/study.md").read_text(encoding="utf-8")
    assert update.study_body(results, f"assets/{section}") in shown
    if section == "two-classes":
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        assert update.study_body(results, f"docs/pages/assets/{section}") in readme
    for arm in results["arms"].values():
        assert sum(map(sum, arm["test"]["confusion"])) == 624
