import csv
import re
import shlex
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import condgan
from condgan import cli
from condgan.cli import folder_name, main, parse
from condgan.data import ChestPhantom
from condgan.files import load_record, read_record, write_record
from condgan.metrics import Evaluation
from condgan.recipes import CONDITIONAL
from condgan.runs import RecipeConfig, load_run, locked
from condgan.study import Results, StudyConfig
from condgan.study.folder import StudyFolder

pytestmark = pytest.mark.usefixtures("tiny_classifier")

TINY = [
    "--image-shape",
    "1",
    "16",
    "16",
    "--base-channels",
    "4",
    "--batch-size",
    "8",
    "--precision",
    "fp32",
    "--device",
    "cpu",
]
ROOT = Path(__file__).parents[1]
PATIENT = r"patient(\d+)_"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of training images and one of test images, as a radiologist may have them."""
    root = tmp_path_factory.mktemp("scans")
    for name, seed in (("train", 0), ("test", 1)):
        data = ChestPhantom((80, 80), classes=2, image_shape=(1, 16, 16), difficulty=0.0, seed=seed)
        for number, (image, y, group) in enumerate(zip(data.images, data.labels, data.groups, strict=True)):
            path = root / name / data.class_names[int(y)] / f"patient{1000 * seed + int(group)}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
    return root


def read_results(folder):
    return load_record(Results, folder / "results.json")


def study(folders, out, *more):
    seeds = ["--seeds", "1", "--classifier-seeds", "1", "--recipes", "acgan"]
    steps = ["--steps", "3", "--classifier-steps", "5", "--classifier-epochs", "1"]
    return main(["study", str(folders / "train"), "--out", str(out), "--groups", PATIENT, *TINY, *seeds, *steps, *more])


def test_a_study_from_folders_to_report(folders, tmp_path, capsys):
    out = tmp_path / "out"
    arms = ["--arms", "real", "real_weighted", "synthetic_1x", "--test", str(folders / "test"), "--keep", "best_kid"]
    assert study(folders, out, *arms, "--cells", "classifier-real*") == 0
    assert study(folders, out, *arms) == 0
    results = read_results(out)
    assert len(results.cells) == results.cells_planned == 2 + 1 + 1 + 1
    assert results.test_evaluations == {"acgan/fidelity": 1, "acgan/synthetic_1x": 1, "real": 1, "real_weighted": 1}
    assert results.data.test.patients > 40
    (gan,) = results.generators
    assert gan.kept.criterion == "best_kid"
    assert results.command.startswith(f"condgan study {folders}")
    assert "For research only" in (out / "report.html").read_text()
    said = capsys.readouterr().err
    assert "[5/5] judge-acgan-s0-p100" in said
    assert "the report is" in said


def test_without_a_test_folder_patients_are_set_aside(folders, tmp_path):
    more = ["--arms", "real", "--extractor", "None", "--no-real-images"]
    assert study(folders, tmp_path, *more, "--time-limit", "0") == 0
    data = StudyFolder(tmp_path).study().data
    assert sum(map(sum, (data.train.counts, data.validation.counts, data.test.counts))) == 160
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
        (["--recipes", "acgan:resnt"], "Did you mean 'resnet'"),
        (["--recipes", "dcgan"], "'dcgan', which has no classes"),
        (["--sampling", "tempered"], "with a number T, such as 'tempered:0.5', got 'tempered'"),
        (["--arms", "real", "synth"], "arms must be among"),
        (["--cells", "gan-x"], "every pattern must match a cell"),
        (["--percents", "10"], "need --reduced-class"),
        (["--groups", "subject"], "--groups 'subject' does not match"),
        (["--groups", "("], "--groups must be a regular expression"),
        (["--groups", "no.csv"], "No such file"),
        (["--config", "no.toml"], "No such file"),
    ],
)
def test_mistakes_are_one_line(folders, tmp_path, capsys, more, message):
    assert study(folders, tmp_path / "out", *more) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("condgan study: error: ") and message in line for line in lines)
    assert not any("Traceback" in line for line in lines)


def config_of(*words):
    """Return the configuration that a study begins with."""
    words = ["study", *words]
    return parse(words).study_config(words)


def toml(path, text):
    path.write_text(text)
    return str(path)


def test_a_file_holds_flags_and_the_command_line_overrides_them(folders, tmp_path):
    file = toml(
        tmp_path / "study.toml",
        """
        image_shape = [1, 16, 16]
        groups = 'patient(\\d+)_'
        recipes = ["acgan", "acwgan_gp:dcgan"]
        arms = ["real", "synthetic_1x"]
        seeds = 2
        steps = 7
        base_channels = 4
        auxiliary = { real_weight = 1.0, generator_weight = 0.2 }
        options = { ema_decay = 0.9 }
        extractor = "None"
        no_real_images = true
        """,
    )
    words = [str(folders / "train"), "--out", str(tmp_path), "--config", file]
    shared = {
        "steps": 9,
        "base_channels": 4,
        "auxiliary": {"real_weight": 1.0, "generator_weight": 0.2},
        "options": {"ema_decay": 0.9},
    }
    assert config_of(*words, "--steps", "9", "--arms", "real") == StudyConfig(
        image_shape=(1, 16, 16),
        recipes={
            "acgan": RecipeConfig(recipe="acgan", **shared),
            "acwgan_gp_dcgan": RecipeConfig(recipe="acwgan_gp", networks="dcgan", **shared),
        },
        arms=("real",),
        seeds=2,
        extractor=None,
    )


def test_recipes_of_a_file_may_differ_in_any_flag(folders, tmp_path, capsys):
    file = toml(
        tmp_path / "study.toml",
        """
        steps = 7
        batch_size = 8
        [recipes.weak]
        recipe = "acgan"
        steps = 5
        auxiliary = { generator_weight = 0.1 }
        [recipes.acwgan_gp]
        networks = "dcgan"
        """,
    )
    words = [str(folders / "train"), "--image-shape", "1", "16", "16", "--config", file, "--out", str(tmp_path)]
    shared = {"batch_size": 8, "base_channels": 4}
    assert config_of(*words, "--base-channels", "4").recipes == {
        "weak": RecipeConfig(recipe="acgan", steps=5, auxiliary={"generator_weight": 0.1}, **shared),
        "acwgan_gp": RecipeConfig(recipe="acwgan_gp", networks="dcgan", steps=7, **shared),
    }
    (weak,) = config_of(*words, "--steps", "3", "--recipes", "weak").recipes.values()
    assert weak == RecipeConfig(recipe="acgan", steps=3, batch_size=8, auxiliary={"generator_weight": 0.1})


def test_classes_are_balanced_from_the_command_line_and_from_a_file(folders, tmp_path):
    flags = ["--sampling", "natural", "--label-distribution", "tempered:0.5", "--class-balance", "prior"]
    words = [str(folders / "train"), "--out", str(tmp_path), "--recipes", "acgan"]
    file = toml(
        tmp_path / "study.toml",
        'sampling = "natural"\nlabel_distribution = "tempered:0.5"\nclass_balance = "prior"\n',
    )
    one, other = (config_of(*words, *more).recipes["acgan"] for more in (flags, ["--config", file]))
    assert one == other
    assert (one.sampling, one.label_distribution, one.class_balance) == ("natural", "tempered:0.5", "prior")


@pytest.mark.parametrize("recipe", CONDITIONAL)
def test_every_conditional_recipe_is_trained_and_sampled_with_its_own_defaults(folders, tmp_path, recipe):
    """Unless the user says otherwise: an option that the recipe has not, or a warning, would be an error here."""
    out = str(tmp_path / "run")
    data = str(folders / "train")
    assert main(["train", data, "--out", out, "--recipe", recipe, "--steps", "2", *TINY]) == 0
    run = load_run(out)
    assert (run.recipe, run.steps) == (recipe, 2)
    assert (tmp_path / "run" / "samples.png").is_file()
    assert main(["sample", out, "--out", str(tmp_path / "images"), "--count", "1"]) == 0
    assert len(list((tmp_path / "images").rglob("*.png"))) == 2


def test_an_unconditional_recipe_is_refused_in_one_line(folders, tmp_path, capsys):
    words = ["train", str(folders / "train"), "--out", str(tmp_path / "run"), "--recipe", "wgan_gp", *TINY]
    assert main(words) == 2
    assert "'wgan_gp', which has no classes. Train it from Python" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps = 3", "Did you mean 'steps'"),
        ("[recipes.acgan]\nstepps = 3", "keys of [recipes.acgan] must be among"),
        ("steps 3", "must be TOML"),
    ],
)
def test_mistakes_in_a_file_are_one_line(folders, tmp_path, capsys, text, message):
    assert study(folders, tmp_path / "out", "--config", toml(tmp_path / "c.toml", text)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("condgan study: error: ")
    assert message in said


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--steps", "ten"], "--steps"), (["--stepps", "3"], "--steps"), (["--keep", "best"], "best_kid")],
)
def test_a_wrong_flag_ends_with_code_2_and_a_hint(folders, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as end:
        study(folders, tmp_path / "out", *more)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_patients_from_a_table(folders, tmp_path, capsys):
    paths = [path.relative_to(folders).as_posix() for path in sorted(folders.rglob("*.png"))]
    file = tmp_path / "patients.csv"
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["path", "group"])
        writer.writerows([path, path.split("patient")[1].split("_")[0]] for path in paths)
    counts = []
    for number, groups in enumerate((str(file), PATIENT)):
        out = tmp_path / str(number)
        assert study(folders, out, "--groups", groups, "--test", str(folders / "test"), "--time-limit", "0") == 0
        counts.append(StudyFolder(out).study().data)
    assert counts[0] == counts[1]
    file.write_text("path,group\n" + "".join(f"{path},\n" for path in paths))
    assert study(folders, tmp_path / "blank", "--groups", str(file)) == 2
    assert re.search(r"must have a group \(patient\), got none for 160 of 160: .*\.png", capsys.readouterr().err)
    file.write_text("file,patient\n")
    assert study(folders, tmp_path / "bad", "--groups", str(file)) == 2


def test_train_sample_and_evaluate(folders, tmp_path, capsys):
    run, data = tmp_path / "run", str(folders / "train")
    train = ["train", data, "--out", str(run), "--recipe", "acgan", "--groups", PATIENT, *TINY]
    assert main([*train, "--steps", "2"]) == 0
    assert main([*train, "--steps", "3"]) == 0  # goes on
    assert load_run(run).steps == 3

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
    found = load_record(Evaluation, run / "evaluation.json")
    assert found.fidelity.per_class["normal"]["kid"].generated.samples > 20
    assert found.memorization is not None
    assert "KID" in capsys.readouterr().err
    assert main([*judge, data]) == 2
    assert "must not share groups" in capsys.readouterr().err


@pytest.fixture
def slow_steps(monkeypatch):
    """Every step is measured to take a quarter of a second."""
    monkeypatch.setattr("condgan.budget.seconds_per_step", lambda *args, **options: 0.25)


@pytest.mark.usefixtures("slow_steps")
def test_minutes_become_steps_that_are_said_before_training_and_kept(folders, tmp_path, capsys):
    train = ["train", str(folders / "train"), "--out", str(tmp_path / "run"), "--recipe", "acgan", *TINY]
    assert main([*train, "--minutes", "0.02"]) == 0
    said = capsys.readouterr().err
    assert said.index("4 steps of 8 images, base_channels 4, measured 250 ms a step on average") < said.index("done")
    assert load_run(tmp_path / "run").steps == 4
    assert main(train) == 0
    assert "4 steps of 8 images" in capsys.readouterr().err
    assert main([*train, "--minutes", "0.03"]) == 0
    assert load_run(tmp_path / "run").steps == 7
    assert main([*train, "--minutes", "1", "--steps", "5"]) == 2
    assert "steps and minutes exclude each other" in capsys.readouterr().err


@pytest.mark.usefixtures("slow_steps")
def test_a_training_of_no_given_length_says_how_long_it_takes_first(folders, tmp_path, capsys):
    train = ["train", str(folders / "train"), "--out", str(tmp_path), "--recipe", "acgan", *TINY]
    assert main([*train, "--time-limit", "0"]) == 0
    said = capsys.readouterr().err
    assert "about 30 min: 7 200 steps of 8 images" in said
    assert "(change it with --minutes)" in said


def test_train_keeps_the_best_step_by_held_out_patients(folders, tmp_path, capsys):
    data, out = str(folders / "train"), str(tmp_path)
    train = ["train", data, "--recipe", "acgan", "--groups", PATIENT, "--keep", "best_kid", *TINY]
    sizes = ["--steps", "3", "--evaluations", "3"]
    assert main([*train, *sizes, "--out", out]) == 0
    kept = load_run(tmp_path).kept
    assert kept.criterion == "best_kid"
    assert [entry.step for entry in kept.evaluations] == [1, 2, 3]
    best = min(kept.evaluations, key=lambda entry: entry.value)
    assert kept.step == best.step
    assert main([*train, *sizes, "--out", str(tmp_path / "all"), "--held-out", "0"]) == 2
    assert "chooses the step by patients that are not trained on" in capsys.readouterr().err


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
    assert "research only" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as end:
        main(["study"])
    assert end.value.code == 2


def test_defaults_and_help_are_those_of_what_is_called(capsys):
    """Every default stands once: the help has the values and words of the dataclasses."""
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"Generator updates. (default: {RecipeConfig().steps})" in said
    config = StudyConfig(image_shape=(1, 8, 8), recipes={"acgan": RecipeConfig(recipe="acgan")})
    assert f"(default: {config.classifier_steps})" in said
    assert " ".join(config.arms) in said


def commands_of(page):
    """Yield the `condgan` commands of a page as words."""
    for block in re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            if words[:1] == ["condgan"] and "..." not in words:
                yield words[1:]


PAGES = [ROOT / "README.md", ROOT / "docs" / "pages" / "get-started.md", ROOT / "docs" / "pages" / "results.md"]
COMMANDS = [words for page in PAGES for words in commands_of(page.read_text())]


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words[:2]) for words in COMMANDS])
def test_commands_of_the_documentation_are_understood(words):
    parse(words)


def test_the_documentation_has_every_command():
    assert {words[0] for words in COMMANDS} == {"train", "sample", "evaluate", "study", "info"}


def test_the_commands_of_get_started_work(folders, tmp_path, monkeypatch):
    """As printed, at the sizes of a test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").symlink_to(folders)
    small = {
        "train": [*TINY, "--steps", "2"],
        "sample": ["--count", "2"],
        "evaluate": ["--precision", "fp32"],
        "study": [
            *[*TINY, "--steps", "2", "--seeds", "1", "--classifier-seeds", "1", "--classifier-steps", "2"],
            *["--classifier-epochs", "1", "--arms", "real", "synthetic_1x", "--extractor", "None"],
        ],
    }
    for words in commands_of((ROOT / "docs" / "pages" / "get-started.md").read_text()):
        assert main([*words, *small.get(words[0], [])]) == 0
    assert (tmp_path / "runs" / "second" / "evaluation.json").is_file()
    assert (tmp_path / "runs" / "study" / "report.html").is_file()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(folders, classify_tinily, tmp_path_factory):
    """A finished run, only to be read."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    with classify_tinily():
        assert main([*training(folders, run), "--steps", "2"]) == 0
    return run


def training(folders, run):
    return ["train", str(folders / "train"), "--out", str(run), "--recipe", "acgan", "--groups", PATIENT, *TINY]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--held-out", "0.4"], "began on other data"),
        (["--held-out", "0"], "began on other data"),
        (["--split-seed", "1"], "began on other data"),
        (["--steps", "4", "--seed", "1"], "seed was 0 and is 1"),
        (["--steps", "1"], "steps must be at least the 2 that are done"),
        (["--image-shape", "1", "24", "16"], "--image-shape was (1, 16, 16) and is (1, 24, 16)"),
    ],
)
def test_a_refused_training_leaves_a_finished_run_as_it_was(folders, finished, capsys, more, message):
    before = contents(finished)
    assert main([*training(folders, finished), *more]) == 2
    assert message in capsys.readouterr().err
    assert contents(finished) == before


def test_a_refused_training_leaves_no_new_folder(folders, tmp_path, capsys):
    assert main([*training(folders, tmp_path / "run"), "--image-shape", "1", "8", "8"]) == 2
    assert "at least 16" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_generator_without_checkpoints_is_not_trained_over(folders, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = contents(tmp_path / "run")
    assert main([*training(folders, tmp_path / "run"), "--steps", "3"]) == 2
    assert "without checkpoints" in capsys.readouterr().err
    assert contents(tmp_path / "run") == before


def with_classes(run, folder, *names):
    """Copy a run to a folder, with other names of its classes."""
    shutil.copytree(run, folder)
    content = read_record(folder / "run.json")
    write_record(folder / "run.json", {**content, "class_names": names})
    return str(folder)


@pytest.mark.parametrize(
    "name", ["../../up", "/tmp/condgan-up", "..", ".", "", "a/../../up", "..\\..\\up", "C:up", "a\0b"]
)
def test_images_stay_inside_out_whatever_their_classes_are_called(finished, tmp_path, name):
    run = with_classes(finished, tmp_path / "in" / "run", name, "a, b")
    out = tmp_path / "in" / "images"
    assert main(["sample", run, "--out", str(out), "--count", "1"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["images", "run"]
    assert [len(path.relative_to(out).parts) for path in out.rglob("*.png")] == [2, 2]
    assert main(["sample", run, "--out", str(tmp_path / "one"), "--count", "1", "--classes", "a, b"]) == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["a, b"]


@settings(max_examples=50)
@given(st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
def test_names_of_folders_are_no_paths_and_as_distinct_as_the_names(names):
    one, other = map(folder_name, names)
    assert one != other
    for name in (one, other):
        assert name not in ("", ".", "..")
        assert not set(name) & set("/\\:\0")


def test_classes_whose_folders_some_systems_take_for_one_are_drawn_one_at_a_time(finished, tmp_path, capsys):
    run = with_classes(finished, tmp_path / "run", "Ill", "ill")
    assert main(["sample", run, "--out", str(tmp_path / "images"), "--count", "1"]) == 2
    assert "differ in more than case" in capsys.readouterr().err
    assert main(["sample", run, "--out", str(tmp_path / "images"), "--count", "1", "--classes", "Ill"]) == 0


def test_images_are_not_mixed_with_earlier_ones(finished, tmp_path, capsys):
    out = tmp_path / "images"
    words = ["sample", str(finished), "--out", str(out), "--device", "cpu"]
    assert main([*words, "--count", "3"]) == 0
    before = contents(out)
    (out / "normal" / "notes.txt").write_text("mine")
    (out / "normal" / "123-patient7.png").write_text("mine too")
    assert main([*words, "--count", "2", "--seed", "1"]) == 2
    assert "--out must be a new or empty folder" in capsys.readouterr().err
    assert main([*words, "--count", "2", "--seed", "1", "--overwrite", "--classes", "pneumonia"]) == 0
    after = contents(out)
    assert sorted(path.relative_to(out).as_posix() for path in after) == [
        "normal/123-patient7.png",
        "normal/notes.txt",
        "pneumonia/00000.png",
        "pneumonia/00001.png",
    ]
    assert not set(before.values()) & set(after.values())


def test_images_are_drawn_a_few_at_a_time_and_do_not_depend_on_it(finished, tmp_path, monkeypatch):
    words = ["sample", str(finished), "--count", "20", "--device", "cpu", "--out"]
    assert main([*words, str(tmp_path / "a")]) == 0
    drawn, draw = [], cli.sample

    def sample(generator, y, **options):
        drawn.append(len(y))
        return draw(generator, y, **options)

    monkeypatch.setattr(cli, "_AT_ONCE", 16)
    monkeypatch.setattr(cli, "sample", sample)
    assert main([*words, str(tmp_path / "b")]) == 0
    assert drawn == [16, 16, 8]
    assert [path.read_bytes() for path in sorted((tmp_path / "a").rglob("*.png"))] == [
        path.read_bytes() for path in sorted((tmp_path / "b").rglob("*.png"))
    ]


def lines_of(capsys):
    """Return what was said, and check that it is no traceback."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()


def test_a_stopped_training_can_be_sampled_evaluated_and_continued(folders, tmp_path, capsys):
    run, data = tmp_path / "run", str(folders / "train")
    train = [*training(folders, run), "--steps", "3"]
    assert main([*train, "--time-limit", "0"]) == 0
    assert (run / "samples.png").is_file()
    assert not load_run(run).is_finished
    capsys.readouterr()
    assert main(["sample", str(run), "--out", str(tmp_path / "images"), "--count", "1"]) == 0
    assert "this training is not finished: the generator is that of step 1 of 3" in lines_of(capsys)
    judge = ["evaluate", str(run), data, "--test", str(folders / "test"), "--precision", "fp32", "--device", "cpu"]
    assert main(judge) == 0
    assert "this training is not finished" in lines_of(capsys)[0]
    assert main(train) == 0
    assert load_run(run).is_finished


def test_two_trainings_in_one_folder_are_refused(folders, tmp_path, capsys):
    with locked(tmp_path / "run"):
        assert main([*training(folders, tmp_path / "run"), "--steps", "1"]) == 2
    assert "condgan train: error: another process is at work in" in lines_of(capsys)[-1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--device", "gpu"], "--device must be a device of this machine (cpu"),
        (["--device", "cuda:99"], "got 'cuda:99'"),
        (["--device", "meta"], "got 'meta'"),
        (["--seed", str(2**70)], "--seed must lie in [0, 4294967296), got 1180591620717411303424"),
        (["--seed", "-1"], "--seed must lie in"),
        (["--split-seed", str(2**32)], "--split-seed must lie in"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--minutes", "-1"], "minutes must be positive"),
        (["--minutes", "nan"], "minutes must be positive"),
        (["--time-limit", "-1"], "--time-limit must be at least 0"),
        (["--held-out", "1.5"], "--held-out must lie in [0, 1)"),
        (["--options", "ema_decai", "0.9"], "Did you mean 'ema_decay'"),
        (["--sampling", "equal"], "got 'equal'"),
    ],
)
def test_flags_are_checked_before_images_are_read(folders, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.setattr(cli, "ImageFolder", None)
    assert main([*training(folders, tmp_path / "run"), *more]) == 2
    (line,) = lines_of(capsys)
    assert line.startswith("condgan train: error: ")
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "10000000"], "seeds must be at most 1000, got 10000000"),
        (["--classifier-seeds", "10000000"], "--classifier-seeds must be at most 1000"),
        (["--first-seed", str(2**32)], "--first-seed must lie in"),
        (["--classifier-steps", "1"], "--classifier-epochs must lie between 1 and --classifier-steps (1), got 5"),
        (["--classifier-batch-size", "1"], "--classifier-batch-size must be at least 2"),
        (["--cells", "gan-x"], "every pattern must match a cell"),
        (["--device", "gpu"], "--device must be"),
    ],
)
def test_a_study_is_checked_before_images_are_read(tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.setattr(cli, "ImageFolder", None)
    assert main(["study", "scans", "--out", str(tmp_path / "out"), "--recipes", "acgan", *more]) == 2
    (line,) = lines_of(capsys)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_cannot_be_trained_is_said_before_anything_is_written(folders, tmp_path, capsys):
    out = tmp_path / "out"
    assert study(folders, out, "--image-shape", "1", "8", "8") == 2
    assert "condgan study: error: recipe 'acgan' cannot be trained on these data: " in lines_of(capsys)[-1]
    assert not out.exists()


def test_cells_are_listed_without_reading_or_writing_anything(tmp_path, capsys):
    words = ["study", "--out", str(tmp_path / "out"), "--recipes", "acgan", "--seeds", "1", "--list-cells"]
    assert main([*words, "--cells", "gan-*"]) == 0
    assert capsys.readouterr().out == "gan-acgan-s0-p100\n"
    assert not (tmp_path / "out").exists()


def test_too_few_seeds_and_images_are_said_at_the_start(folders, tmp_path, capsys):
    small = tmp_path / "small"
    for path in (folders / "train").rglob("*.png"):
        if int(re.search(r"_(\d+)", path.stem)[1]) % 4 == 0:
            (small / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, small / path.parent.name)
    words = ["--groups", PATIENT, *TINY, "--time-limit", "0"]
    assert (
        main(["study", str(small), "--out", str(tmp_path / "out"), "--recipes", "acgan", "--seeds", "2", *words]) == 0
    )
    said = lines_of(capsys)
    assert "NOTE: comparisons need at least 3 generator seeds, got 2: their answers will be 'cannot tell'." in said
    few = r"normal \(\d+ in training, at least 40\), .*normal \(\d+ in test, at least 20\)"
    assert any(re.match(f"NOTE: fidelity needs more images of {few}", line) for line in said)
    assert not any("classifier seeds" in line for line in said)
    assert main([*training(folders, tmp_path / "run"), "--time-limit", "0", "--steps", "1", "--held-out", "0.1"]) == 0
    said = lines_of(capsys)
    assert re.match(r"training on \d+ images \(normal: \d+, pneumonia: \d+\); held out: \d+ images \(normal: ", said[0])
    assert re.match(r"NOTE: condgan evaluate needs more images of normal \(\d+ in held-out, at least 20\), ", said[1])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", "", "run.json must hold JSON, got text"),
        ("run.json", '{"class_names": ["a", "b"]}', "run.json must be as condgan wrote it: RunDescription"),
        ("generator/config.json", "[]", "config.json must hold a JSON object, got a list"),
        (
            "generator/config.json",
            '{"class": "DCGANGenerator"}',
            "config.json' must hold the arguments of a DCGANGenerator",
        ),
        ("data.json", "{", "data.json must hold JSON"),
        ("data.json", '{"held_out": "no"}', "data.json must be as condgan wrote it: TrainedOn"),
    ],
)
def test_damaged_and_foreign_files_are_named(folders, finished, tmp_path, capsys, file, content, message):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / file).write_text(content)
    data = [str(folders / "train"), "--test", str(folders / "test")]
    command = ["evaluate", str(tmp_path / "run"), *data] if file == "data.json" else None
    command = command or ["sample", str(tmp_path / "run"), "--out", str(tmp_path / "images")]
    assert main([*command, "--device", "cpu"]) == 2
    (line,) = lines_of(capsys)
    assert message in line
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(("name", "value"), [("num_classes", 10**8), ("base_channels", 10**5), ("latent_dim", 10**9)])
def test_a_description_of_a_larger_network_takes_no_memory(finished, tmp_path, capsys, name, value):
    shutil.copytree(finished, tmp_path / "run")
    file = tmp_path / "run" / "generator" / "config.json"
    content = read_record(file)
    content["arguments"][name] = value
    write_record(file, content)
    assert main(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "images"), "--device", "cpu"]) == 2
    (line,) = lines_of(capsys)
    assert re.search(
        r"must describe the weights beside it, [\d,]+ bytes, got arguments of a DCGANGenerator of \d+,", line
    )


def test_a_fault_is_one_line_and_its_traceback_a_file(finished, tmp_path, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise TypeError("unexpected")

    monkeypatch.setattr(cli, "sample", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["sample", str(finished), "--out", str(tmp_path / "images"), "--device", "cpu"]) == 1
    (line,) = lines_of(capsys)
    assert line.startswith("condgan sample: fault: TypeError: unexpected. This is a mistake in condgan. Please report ")
    file = Path(line.split()[-1])
    assert file.parent == tmp_path
    assert "raise TypeError" in file.read_text()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.\nTried")])
def test_missing_memory_is_one_line(finished, tmp_path, monkeypatch, capsys, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(cli, "sample", fail)
    assert main(["sample", str(finished), "--out", str(tmp_path / "images"), "--device", "cpu"]) == 2
    assert lines_of(capsys)[0].startswith("condgan sample: error: memory is short.")


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_with_flags_for_keywords(finished, tmp_path, monkeypatch, capsys):
    draw = cli.sample

    def warn(*arguments, **options):
        warnings.warn("pass count=3, or another\nsample in batch_size, not 'count=3'", stacklevel=2)
        return draw(*arguments, **options)

    monkeypatch.setattr(cli, "sample", warn)
    words = ["sample", str(finished), "--out", str(tmp_path / "images"), "--device", "cpu", "--count", "1"]
    assert main(words) == 0
    assert lines_of(capsys)[0] == (
        "condgan sample: warning: pass --count 3, or another sample in batch_size, not 'count=3'"
    )


def test_other_sizes_than_square_ones(folders, tmp_path):
    run = tmp_path / "run"
    words = [*training(folders, run), "--image-shape", "3", "24", "40", "--steps", "1"]
    assert main(words) == 0
    assert main(["sample", str(run), "--out", str(tmp_path / "images"), "--count", "1"]) == 0
    for path in (tmp_path / "images").rglob("*.png"):
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((40, 24), "RGB")


def test_a_tilde_is_the_home_folder(folders, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    shutil.copytree(folders, home / "scans")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    rows = [f"{path.relative_to(home / 'scans')},{path.stem}\n" for path in (home / "scans" / "train").rglob("*.png")]
    (home / "patients.csv").write_text("path,group\n" + "".join(rows))
    toml(home / "train.toml", 'out = "~/run"\nrecipe = "acgan"\nsteps = 1')
    words = ["~/scans/train", "--groups=~/patients.csv", *TINY]
    assert main(["train", *words, "--config=~/train.toml"]) == 0
    assert main(["sample", "~/run", "--out=~/images", "--count", "1", "--device", "cpu"]) == 0
    more = ["--recipes", "acgan", "--arms", "real", "--extractor", "None", "--time-limit", "0"]
    assert main(["study", *words, "--out=~/study", *more]) == 0
    assert main(["study", "--out=~/merged", "--merge", "~/study"]) == 0
    assert sorted(path.name for path in home.iterdir() if path.suffix == "") == [
        "images",
        "merged",
        "run",
        "scans",
        "study",
    ]
    assert not list(here.iterdir())


def test_many_images_do_not_wait_for_the_disk_one_by_one(finished, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    assert main(["sample", str(finished), "--out", str(tmp_path / "images"), "--count", "3", "--device", "cpu"]) == 0
    assert (len(list((tmp_path / "images").rglob("*.png"))), synced) == (6, [])


def test_the_version_the_help_and_what_is_installed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"condgan {condgan.__version__}\n"
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    assert "condgan" in capsys.readouterr().out
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    for part in (f"condgan: {condgan.__version__}", f"torch: {torch.__version__}", "devices: cpu", "extractors: "):
        assert part in said
