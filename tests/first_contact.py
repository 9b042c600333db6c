"""What a new user does first, with an installed command line: `python tests/first_contact.py PATH_TO_CONDGAN`.

Not a test module: `.ci/full` runs it in environments that hold the package and nothing else. It works in the current
folder, which must be empty, prints every command, and ends with the output of the first one that fails.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

IMAGES = """
from pathlib import Path

from PIL import Image

from condgan.data import ChestPhantom

for name, count, seed in (("train", 40, 0), ("test", 24, 1)):
    data = ChestPhantom((count, count), classes=2, image_shape=(1, 16, 16), difficulty=0.0, seed=seed)
    for number, (image, y, patient) in enumerate(zip(data.images, data.labels, data.groups, strict=True)):
        path = Path(name) / data.class_names[int(y)] / f"patient{1000 * seed + int(patient)}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
"""

LIBRARY = """
import torch

import condgan as cg

data = cg.data.ImageFolder("train", image_shape=(1, 16, 16), group=lambda path: path.stem.split("_")[0])
train, validation = data.split(0.2, seed=0)
trainer = cg.recipes.acgan(train, base_channels=4, callbacks=[cg.SampleGrid("grid", every=2)])
trainer.fit(train, steps=2, batch_size=8)
assert trainer.sample(torch.tensor([0, 1]), seed=0).shape == (2, 1, 16, 16)
trainer.ema.save_pretrained("generator")
cg.DCGANGenerator.from_pretrained("generator")
assert list(cg.data.ImageFolder("images", image_shape=(1, 16, 16)).class_counts) == [4, 4]
print("condgan", cg.__version__, "from", cg.__file__)
"""

FOLDERS = ["--image-shape", "1", "16", "16", "--groups", r"patient(\d+)_"]
SMALL = ["--base-channels", "4", "--batch-size", "8", "--steps", "3", "--precision", "fp32", "--device", "cpu"]
FEW = ["--seeds", "1", "--classifier-seeds", "1", "--classifier-steps", "4", "--classifier-epochs", "1"]
ARMS = ["--recipes", "acgan", "--arms", "real", "synthetic_1x"]
COMMANDS = (
    ["--help"],
    ["train", "train", "--out", "run", "--recipe", "small_data", *FOLDERS, *SMALL],
    ["sample", "run", "--out", "images", "--count", "4"],
    ["evaluate", "run", "train", "--test", "test", "--device", "cpu"],
    ["study", "train", "--test", "test", "--out", "study", *ARMS, *FOLDERS, *SMALL, *FEW],
)
LEFT = ("run/generator/model.safetensors", "run/samples.png", "run/evaluation.json", "study/results.json")
LEFT += ("study/report.html", "grid/samples-000000002.png")


def run(command: list[str]) -> None:
    """Run a command and print its last line."""
    shown = [word if len(word) < 80 else "SCRIPT" for word in command]
    print("$", *shown, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\nended with code {done.returncode}: {' '.join(shown)}")
    print(*done.stdout.splitlines()[-1:], flush=True)


def main() -> None:
    """Run everything."""
    if any(Path().iterdir()):
        sys.exit(f"{str(Path().resolve())!r} must be an empty folder.")
    condgan = sys.argv[1]
    run([sys.executable, "-c", IMAGES])
    for words in COMMANDS:
        run([condgan, *words])
    run([sys.executable, "-c", LIBRARY])
    missing = [name for name in LEFT if not Path(name).is_file()]
    if missing:
        sys.exit(f"nothing wrote {', '.join(missing)}.")


if __name__ == "__main__":
    main()
