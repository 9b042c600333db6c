"""Are the numbers of this working tree those of another commit, bit for bit? `python tests/same_bits.py COMMIT`.

For changes that must not move a number, such as a new layout of files. Both trees train every recipe for twenty steps
and run a small study on the same made-up images, whose splits are handed in, on one thread of this machine; what is
compared are digests of all weights and of the classifiers' test probabilities. Exits with 1 if one differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

RUN = """
import hashlib, json, sys, tempfile
from pathlib import Path

import numpy as np
import torch

import condgan as cg
from condgan.recipes import RECIPES
from condgan.study import ARMS, Study, StudyConfig

try:
    from condgan.runs import RecipeConfig
    evaluations = "evaluations"
except ImportError:  # before condgan.runs
    from condgan.study import RecipePlan as RecipeConfig
    evaluations = "looks"

torch.set_num_threads(1)
found = {}


def draw(counts, seed):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(2).repeat_interleave(torch.tensor(counts))
    x = torch.randint(0, 160, (len(y), 1, 32, 32), generator=rng) + 80 * y[:, None, None, None]
    groups = torch.arange(len(y)) // 2 + 1000 * seed
    return cg.data.ArrayDataset(x.to(torch.uint8), y, groups=groups, class_names=("dark", "bright"))


def digest(arrays):
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


train, validation, test = draw((60, 100), 0), draw((20, 30), 1), draw((30, 40), 2)
for name, recipe in RECIPES.items():
    trainer = recipe(train, base_channels=8, device="cpu", seed=3)
    trainer.fit(train, steps=20, batch_size=8)
    networks = (trainer.networks.generator, trainer.networks.critic, trainer.ema)
    found[name] = digest(p.detach().numpy() for network in networks for _, p in sorted(network.state_dict().items()))
recipes = {
    "acwgan": RecipeConfig(recipe="acwgan_gp", steps=6, batch_size=8, networks="dcgan", base_channels=8),
    "acgan": RecipeConfig(recipe="acgan", steps=20, batch_size=8, base_channels=8, augment="translation"),
    "small": RecipeConfig(
        recipe="small_data", steps=20, batch_size=8, base_channels=8, keep="best_kid", **{evaluations: 2}
    ),
}
config = StudyConfig(
    image_shape=(1, 32, 32), recipes=recipes, arms=tuple(ARMS), seeds=1, classifier_seeds=1, classifier_steps=12,
    classifier_epochs=2, classifier_batch_size=16, precision="fp32", extractor=None, percents=(100.0, 50.0),
    reduced_class="dark",
)
with tempfile.TemporaryDirectory() as folder:
    Study(config, train, validation, test, folder, device="cpu").run()
    for path in sorted((Path(folder) / "cells").glob("*.npz")):
        with np.load(path) as arrays:
            found[path.stem] = digest([arrays["probabilities"]])
Path(sys.argv[1]).write_text(json.dumps(found))
"""


def digests(source: Path) -> dict[str, str]:
    """Return the digests that the library in a folder gives."""
    with tempfile.TemporaryDirectory() as scratch:
        script, out = Path(scratch) / "run.py", Path(scratch) / "digests.json"
        script.write_text(RUN, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, str(script), str(out)], env=environment, cwd=scratch, check=True)
        return json.loads(out.read_text(encoding="utf-8"))


def main(commit: str) -> int:
    """Compare this working tree with a commit and print what differs."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", scratch], input=archive, check=True)
        theirs = digests(Path(scratch))
    ours = digests(ROOT)
    differing = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    print(f"{len(ours)} digests, {len(differing)} differ from {commit}: {', '.join(differing) or 'none'}")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
