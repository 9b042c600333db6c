"""The code that documentation shows is run as it stands, but for its sizes."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import condgan as cg
from public import public_objects

ROOT = Path(__file__).parents[1]
SMALLER = {
    "steps=20_000": "steps=2",
    "steps=2_000": "steps=2",
    "steps=3_300": "steps=2",
    "batch_size=32": "batch_size=4",
    "steps=8_000": "steps=2",
    "base_channels=48": "base_channels=4",
    "small_data(train": "small_data(train, base_channels=4",
    "small_data(\n    train": "small_data(\n    train, base_channels=4",
    "acwgan_gp(data)": "acwgan_gp(data, base_channels=4)",
    "batch_size=64": "batch_size=4",
    "(1, 64, 64)": "(1, 16, 16)",
    "4, 1, 64, 64": "4, 1, 16, 16",
    "base_channels=64": "base_channels=4",
    "base_channels=32": "base_channels=4",
    "latent_dim=128, ": "latent_dim=128, base_channels=4, ",
    "cg.ACResNetCritic(num": "cg.ACResNetCritic(base_channels=4, num",
    "train_classifier(synthetic, validation)": "train_classifier(synthetic, validation, epochs=1, precision='fp32')",
    "5, stride=4": "3, stride=2",
    "crossfit_extractor(train)": "crossfit_extractor(train, epochs=1, precision='fp32')",
}


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def write_folder(folder, seed):
    data = cg.data.ChestPhantom((56, 56), classes=2, image_shape=(1, 16, 16), seed=seed)
    for i, (image, y) in enumerate(zip(data.images, data.labels, strict=True)):
        path = folder / ("healthy", "ill")[int(y)] / f"{i // 2:03}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)


@pytest.mark.usefixtures("tiny_classifier")
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


def test_the_one_line_of_the_readme_is_what_stands_above_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "chest_xray/train", 0)
    (script,) = python_blocks(ROOT / "README.md")
    script = script.replace("(1, 64, 64)", "(1, 16, 16)")
    (one_line,) = re.findall(r"^trainer = .*# the same in one line$", script, flags=re.MULTILINE)
    names, trainers = {}, []
    for part in (script.partition("trainer.fit")[0], one_line):
        exec(compile(part, "README.md", "exec"), names)
        trainers.append(names["trainer"])
    explicit, recipe = trainers
    assert explicit.settings == recipe.settings
    assert explicit.networks.generator.config == recipe.networks.generator.config
    assert explicit.networks.critic.config == recipe.networks.critic.config


def test_readme_names_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## What there is") : text.index("## Chest X-rays")]
    names = re.findall(r"`([A-Za-z_0-9]+(?:\.[A-Za-z_0-9]+)?)`", table)
    homes = (SimpleNamespace(condgan=cg), cg, cg.data, cg.recipes)
    assert not [name for name in names if "..." not in name and not any(_resolves(home, name) for home in homes)]


def _resolves(home, name):
    for part in name.split("."):
        if not hasattr(home, part):
            return False
        home = getattr(home, part)
    return True


def test_the_page_of_methods_has_a_line_for_each():
    page = (ROOT / "docs/pages/methods.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)`", page, flags=re.MULTILINE)
    assert len(shown) == len(set(shown))
    of_terms = ("CriticRegularizer", "GeneratorRegularizer", "GeneratorObjective")
    kinds = tuple(getattr(cg.regularizers, name) for name in of_terms)
    mixins = {name for name in cg.networks.__all__ if name.endswith("Mixin")}
    losses = {name for name in cg.__all__ if name.endswith("Loss")}
    regularizers = {name for name in cg.regularizers.__all__ if getattr(cg.regularizers, name) not in kinds}
    augmentations = {name for name in cg.augmentation.__all__ if name.endswith("Augment")}
    generators = {name for name in cg.networks.__all__ if name.endswith("Generator")} - {"Generator"}
    expected = {*cg.recipes.RECIPES, *mixins, *losses, *regularizers, *augmentations, *generators}
    assert expected <= set(shown)
    resolved = (cg, cg.recipes)
    assert not [name for name in shown if not any(_resolves(home, name) for home in resolved)]


def test_every_public_name_is_on_an_api_page():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/pages/api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)", pages, flags=re.MULTILINE))
    homes = {name: f"{value.__module__}.{value.__name__}" for name, value in public_objects().items()}
    hidden = {name: home for name, home in homes.items() if not {home, home.rpartition(".")[0]} & shown}
    assert hidden == {}


def load_update(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("update", ROOT / "docs" / "update.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("section", ["cpu-two-classes", "cpu-three-classes", "longer-two-classes", "two-classes"])
def test_shown_results_are_those_of_a_study(section, monkeypatch):
    update = load_update(monkeypatch)
    results = update.read(section)
    readme, page = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/pages/study.md"))
    shown = {"README.md": readme, "study.md": page}
    marks = [("study.md", section)]
    marks += [("README.md", mark) for mark in (section, f"{section}-picture") if f"<!-- {mark} -->" in readme]
    made = {} if results is None else update.study_texts(section, results)
    texts = {(path.name, mark): text for (path, mark), text in made.items()}
    for name, mark in marks:
        text = texts.get((name, mark), update.study_page.NOT_RUN)
        assert f"<!-- {mark} -->\n{text}\n<!-- /{mark} -->" in shown[name], (
            f"{name} does not show {update.committed(section)}: run python docs/update.py --study FOLDER {section}"
        )
    drawn = {path.name for path in (ROOT / "docs/pages/assets" / section).glob("*.png")}
    assert drawn == set(re.findall(rf"assets/{section}/(\S+\.png)", page))
    for cell in results.classifiers if results and "Kermany" in results.data.source else ():
        assert sum(map(sum, cell.report.confusion)) == 624


def test_published_numbers_stand_beside_ours(monkeypatch):
    text = load_update(monkeypatch).published_text()
    page = (ROOT / "docs/pages/study.md").read_text(encoding="utf-8")
    assert f"<!-- published -->\n{text}\n<!-- /published -->" in page


def test_shown_pictures_exist():
    for path in (ROOT / "README.md", *(ROOT / "docs/pages").rglob("*.md")):
        for target in re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).is_file(), f"{path.name} shows {target}"


@pytest.mark.parametrize(
    ("kind", "missing"), [("cpu", "Not run yet."), ("cuda", "Not run yet: no CUDA device was at hand.")]
)
def test_speed_page_shows_what_was_measured(kind, missing, monkeypatch):
    page = load_update(monkeypatch).speed_page
    file = ROOT / "benchmarks/speed/results" / f"{kind}.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    shown = missing if results is None else page.body(results, f"assets/speed/{kind}")
    text = (ROOT / "docs/pages/speed.md").read_text(encoding="utf-8")
    assert f"<!-- speed-{kind} -->\n{shown}\n<!-- /speed-{kind} -->" in text
    drawn = {path.stem for path in (ROOT / "docs/pages/assets/speed" / kind).glob("*.png")}
    assert drawn == (set() if results is None else set(page.pictures(results)))


def test_speed_page_has_no_figure_written_by_hand():
    text = (ROOT / "docs/pages/speed.md").read_text(encoding="utf-8")
    prose = re.sub(r"<!-- (\S+) -->.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?<![\w-])\d.*", prose)


def test_speed_page_is_written_from_a_file(tmp_path, monkeypatch):
    update = load_update(monkeypatch)
    monkeypatch.setattr(update, "PAGES", tmp_path)
    (tmp_path / "speed.md").write_text((ROOT / "docs/pages/speed.md").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "cpu.json").write_text(json.dumps(made_up_speed()), encoding="utf-8")
    update.update_speed(tmp_path / "cpu.json")
    text = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert "Measured on: a processor; torch 2. Commit: `abc`. Command: `python benchmarks/speed --device cpu" in text
    assert "| dcgan, 8 channels | 64 px | 16 | fp32 | 70 | 100 | **0.70** |" in text
    assert "| dcgan, 8 channels | 64 px | 16 | bf16 | 50 | 100 | **0.50** |" in text
    assert "- resnet, image size 64, base channels 8, batch size 256, seconds 30.5: foreseen to be too slow" in text
    assert "| `data_path.image_folder` | **0.02** |" in text
    assert "no CUDA device was at hand" in text
    shown = re.findall(r"assets/speed/cpu/(\w+)\.png", text)
    assert shown == ["iteration", "savings", "roofline", "data_paths", "scaling"]
    for name in shown:
        with Image.open(tmp_path / "assets/speed/cpu" / f"{name}.png") as picture:
            assert min(picture.size) > 100
    (tmp_path / "cpu_quick.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit, match="quick results"):
        update.update_speed(tmp_path / "cpu_quick.json")


def made_up_speed():
    """Results in the layout that the benchmark writes, with round numbers."""

    def of(*rows, left_out=()):
        settings = {"device": "cpu", "rounds": 7, "limit": 20.0, "quick": False}
        return {"commit": "abc", "settings": settings, "rows": list(rows), "left_out": list(left_out)}

    def seconds(value):
        return {"median": value, "low": 0.9 * value, "high": 1.1 * value}

    network = {"networks": "dcgan", "image_size": 64, "base_channels": 8, "batch_size": 16}
    point = {"image_size": 32, "batch_size": 16, "num_classes": 2, "images": 1000, "peak_bytes": 10**8}
    sides = {"condgan_fp32": 0.07, "condgan_bf16": 0.05, "tutorial": 0.1}
    parts = {
        "iteration": of(
            {"what": "iteration", **network, "seconds": {name: seconds(value) for name, value in sides.items()}},
            left_out=[
                {
                    **network,
                    "networks": "resnet",
                    "batch_size": 256,
                    "reason": "foreseen to be too slow",
                    "seconds": 30.5,
                }
            ],
        ),
        "savings": of({"saving": "one_forward", **network, "ratio": 0.8}),
        "roofline": of({"what": "iteration", **network, "precision": "fp32", "share": 0.5}),
        "data_paths": of({"path": "condgan, resident", "image_size": 64, "batch_size": 64, "seconds": seconds(0.001)}),
        "scaling": of(
            *({"axis": "images", **point, "images": n, "seconds": seconds(0.1)} for n in (1000, 10_000)),
            {"axis": "images", "from": 1000, "to": 10_000, "exponent": 0.0},
        ),
    }
    ratios = {
        "iteration_fp32_b16.tutorial": 0.7,
        "iteration_bf16_b16.tutorial": 0.5,
        "data_path.image_folder": 0.02,
    }
    return {"device": "a processor", "versions": {"torch": "2"}, "commit": "abc", "ratios": ratios, "parts": parts}
