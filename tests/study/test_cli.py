import csv
import json

import pytest
from PIL import Image

from condgan.cli import main
from condgan.data import ChestPhantom

pytestmark = pytest.mark.usefixtures("tiny_classifier")

TINY = ["--image-size", "16", "--base-channels", "4", "--batch-size", "8", "--precision", "fp32", "--device", "cpu"]
PATIENT = r"patient(\d+)_"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of training images and one of test images, as a radiologist may have them."""
    root = tmp_path_factory.mktemp("scans")
    for name, seed in (("train", 0), ("test", 1)):
        data = ChestPhantom((80, 80), classes=2, image_shape=(1, 16, 16), difficulty=0.0, seed=seed)
        patients = [data.group_names[number] for number in data.groups]
        for number, (image, y, group) in enumerate(zip(data.images, data.labels, patients, strict=True)):
            path = root / name / data.class_names[int(y)] / f"patient{group}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
    return root


def study(folders, out, *more):
    seeds = ["--seeds", "1", "--classifier-seeds", "1", "--recipes", "acgan"]
    steps = ["--steps", "3", "--classifier-steps", "5", "--classifier-epochs", "1"]
    return main(["study", str(folders / "train"), "--out", str(out), "--groups", PATIENT, *TINY, *seeds, *steps, *more])


def test_a_study_from_folders_to_report(folders, tmp_path, capsys):
    out = tmp_path / "out"
    arms = ["--arms", "real,real_weighted,synthetic_1x", "--test", str(folders / "test"), "--keep", "best_kid"]
    assert study(folders, out, *arms, "--cells", "classifier-real*") == 0
    assert study(folders, out, *arms) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["schema"] == 1
    assert len(results["cells"]) == results["cells_planned"] == 2 + 1 + 1 + 1
    assert results["test_evaluations"] == {"acgan/fidelity": 1, "acgan/synthetic_1x": 1, "real": 1, "real_weighted": 1}
    assert results["data"]["patients"]["test"] > 40
    (gan,) = (cell for cell in results["cells"] if cell["kind"] == "gan")
    assert gan["kept"]["criterion"] == "best_kid"
    assert results["command"].startswith(f"condgan study {folders}")
    page = (out / "report.html").read_text()
    assert "For research only" in page
    said = capsys.readouterr().err
    assert "[5/5] judge-acgan-s0-p100" in said
    assert "the report is" in said


def test_without_a_test_folder_patients_are_set_aside(folders, tmp_path):
    more = ["--arms", "real", "--extractor", "none", "--no-real-images"]
    assert study(folders, tmp_path, *more, "--list-cells") == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert sum(map(sum, config["data"]["counts"].values())) == 160
    assert not list(tmp_path.rglob("*.png"))
    assert study(folders, tmp_path / "merged", "--merge", str(tmp_path)) == 0
    assert (tmp_path / "merged" / "report.html").is_file()


def test_a_patient_in_both_folders_is_one_line_and_exit_code_2(folders, tmp_path, capsys):
    assert study(folders, tmp_path / "out", "--test", str(folders / "train")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "condgan study: error: training and test images must not share groups" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--recipes", "acgn"], "Did you mean 'acgan'"),
        (["--arms", "real,synth"], "arms must be among"),
        (["--cells", "gan-x"], "every pattern must fit a cell"),
        (["--percents", "ten"], "--percents must be numbers"),
        (["--percents", "10"], "need reduced_class"),
        (["--groups", "subject"], "--groups does not match"),
        (["--groups", "("], "--groups must be a regular expression"),
        (["--groups", "no.csv"], "No such file"),
        (["--config", "no.json"], "No such file"),
    ],
)
def test_mistakes_are_one_line(folders, tmp_path, capsys, more, message):
    assert study(folders, tmp_path / "out", *more) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("condgan study: error: ") and message in line for line in lines)
    assert not any("Traceback" in line for line in lines)


def test_a_configuration_from_a_file(folders, tmp_path):
    assert study(folders, tmp_path / "one", "--list-cells") == 0
    content = json.loads((tmp_path / "one" / "config.json").read_text())
    file = tmp_path / "config.json"
    file.write_text(json.dumps(content["config"]))
    assert study(folders, tmp_path / "two", "--config", str(file), "--list-cells", "--steps", "99") == 0
    again = json.loads((tmp_path / "two" / "config.json").read_text())
    assert again["config"] == content["config"]


def test_patients_from_a_table(folders, tmp_path):
    paths = [path.relative_to(folders).as_posix() for path in sorted(folders.rglob("*.png"))]
    file = tmp_path / "patients.csv"
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["path", "group"])
        writer.writerows([path, path.split("patient")[1].split("_")[0]] for path in paths)
    counts = []
    for number, groups in enumerate((str(file), PATIENT)):
        out = tmp_path / str(number)
        assert study(folders, out, "--groups", groups, "--test", str(folders / "test"), "--list-cells") == 0
        counts.append(json.loads((out / "config.json").read_text())["data"])
    assert counts[0] == counts[1]
    file.write_text("file,patient\n")
    assert study(folders, tmp_path / "bad", "--groups", str(file)) == 2


def test_train_sample_and_evaluate(folders, tmp_path, capsys):
    run, data = tmp_path / "run", str(folders / "train")
    train = ["train", data, "--out", str(run), "--recipe", "acgan", "--groups", PATIENT, *TINY]
    assert main([*train, "--steps", "2"]) == 0
    assert main([*train, "--steps", "3"]) == 0  # goes on
    assert json.loads((run / "run.json").read_text())["steps"] == 3

    assert main(["sample", str(run), "--out", str(tmp_path / "images"), "--count", "3", "--classes", "pneumonia"]) == 0
    assert sorted(p.name for p in (tmp_path / "images" / "pneumonia").iterdir()) == [
        "00000.png",
        "00001.png",
        "00002.png",
    ]
    assert main(["sample", str(run), "--out", str(tmp_path / "sheet"), "--grid", "--count", "2"]) == 0
    assert [p.name for p in (tmp_path / "sheet").iterdir()] == ["samples.png"]
    assert main(["sample", str(run), "--out", str(tmp_path / "x"), "--classes", "pneumona"]) == 2
    assert "Did you mean 'pneumonia'" in capsys.readouterr().err

    judge = ["evaluate", str(run), data, "--precision", "fp32", "--device", "cpu", "--test"]
    assert main([*judge, str(folders / "test")]) == 0
    judged = json.loads((run / "evaluation.json").read_text())
    assert judged["fidelity"]["per_class"]["normal"]["kid"]["generated"]["samples"] > 20
    assert "KID" in capsys.readouterr().err
    assert main([*judge, data]) == 2
    assert "must not share groups" in capsys.readouterr().err


def test_a_run_on_all_images_cannot_be_evaluated(folders, tmp_path, capsys):
    data = str(folders / "train")
    assert (
        main(["train", data, "--out", str(tmp_path), "--steps", "1", "--held-out", "0", "--recipe", "acgan", *TINY])
        == 0
    )
    assert main(["evaluate", str(tmp_path), data, "--test", str(folders / "test")]) == 2
    assert "trained on all images" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x")]) == 2


def test_help_says_what_it_is_for(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "research only" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["study"])
    assert end.value.code == 2
