"""Runs on a GPU machine, rehearsed on the CPU; and the page that shows their results."""

import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

import condgan as cg
from condgan.study.folder import StudyFolder

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "benchmarks" / "gpu"


@pytest.fixture
def beside(load, monkeypatch):
    """Load modules of the benchmark, which find those of the others beside theirs."""
    for folder in ("speed", "study"):
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / folder))
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return load


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("update", ROOT / "docs" / "update.py")
    update = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(update)
    return update


def run(*arguments):
    runpy.run_path(str(SCRIPTS / "__main__.py"))["main"]([*map(str, arguments)])


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The folder that both commands have rehearsed into."""
    out = tmp_path_factory.mktemp("rehearsed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("OMP_NUM_THREADS", "1")
        run("probe", "--rehearse", "--out", out, "--minutes", 6)  # on a busy machine
        run("study", "--rehearse", "--out", out, "--minutes", 6, "--work", out / "work", "--data", out / "none")
    return out


@pytest.mark.slow  # guards that the run on a GPU works at the first try
def test_the_probe_is_rehearsed(beside, rehearsed):
    parts = beside("publishing").collect(beside("work").read(rehearsed / "probe.jsonl"))["parts"]
    expected = [part.name for part in beside("probe_run").PARTS]
    expected = [name for name in expected if name not in beside("probe_run").REHEARSED_BY_OTHERS]
    assert {name: part["ended"] for name, part in parts.items()} == dict.fromkeys(expected, 0)
    assert all(part["rows"] for part in parts.values())
    reasons = {row["skipped"] for part in parts.values() for row in part["rows"] if "skipped" in row}
    assert not [reason for reason in reasons if "this machine has no nvidia-cuda-mps-control" not in reason]
    assert (rehearsed / "tests.txt").read_text().count("SKIPPED") > 0


@pytest.mark.slow  # guards that the run on a GPU works at the first try
def test_the_study_is_rehearsed(beside, rehearsed, tmp_path):
    parts = beside("publishing").collect(beside("work").read(rehearsed / "study.jsonl"))["parts"]
    assert {part["ended"] for part in parts.values()} == {0}
    assert not [row for part in parts.values() for row in part["rows"] if "skipped" in row]
    sizes = beside("names").GPU_SIZES
    assert sizes
    for size in sizes:
        beside("carry").unpack(rehearsed / size, tmp_path / size / "two-classes")
        files = StudyFolder(tmp_path / size / "two-classes")
        unfinished = [cell for cell in cg.study.make_cells(files.study().config) if not files.is_finished(cell.name)]
        assert {cell.kind for cell in unfinished} <= {"judge"}
    few = [path for path in rehearsed.rglob("*") if path.is_file() and "work" not in path.parts]
    assert len(few) <= 8
    assert max(path.stat().st_size for path in few) < 16 * 2**20


@pytest.mark.slow  # guards that the run on a GPU works at the first try
def test_what_is_rehearsed_can_be_shown_and_is_not_published(beside, rehearsed, page, monkeypatch, tmp_path):
    publishing = beside("publishing")
    monkeypatch.setattr(publishing, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="only runs on CUDA are published"):
        publishing.publish(rehearsed, "rehearsal")
    runs = {name: publishing.collect(beside("work").read(rehearsed / f"{name}.jsonl")) for name in ("probe", "study")}
    text = page.gpu_page.body({"rehearsal": runs})
    for shown in ("### rehearsal: probe", "Rates: ", "Tests that need CUDA: ", "| dcgan | blocks.0.conv |"):
        assert shown in text
    assert "### rehearsal: study" in text
    assert re.search(r"\| dcgan, 4 channels \| 32 px \| 4 \| bf16 \|.* \(ran as eager\)", text)


@pytest.mark.parametrize("enabled", [False, True])
def test_trainers_have_the_setting_of_cudnn_that_a_row_names(beside, make_trainer, enabled):
    before = torch.backends.cudnn.benchmark
    trainer = make_trainer()
    trainer.device = torch.device("cuda")  # where it would search by itself
    with beside("runs").cudnn_benchmark(enabled), trainer._as_in_training():
        assert torch.backends.cudnn.benchmark is enabled
    assert torch.backends.cudnn.benchmark is before
    with trainer._as_in_training():
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark is before


def test_layers_that_pool_are_timed_with_the_kernel_they_have(beside):
    layers, critic = beside("layers"), beside("subjects").make_networks("resnet", 32, 4)[1]
    found = list(layers.convolutions(critic, torch.zeros(2, 1, 32, 32)))
    pooling = [layer for layer in found if layer.stride == [2, 2]]
    assert pooling
    for layer in found:
        assert tuple(layer.kernel_shape[2:]) in ([(4, 4)] if layer in pooling else [(1, 1), (3, 3)])
    assert pooling[0].convolve(torch.zeros(pooling[0].input_shape), torch.zeros(pooling[0].kernel_shape)).shape[2:] == (
        pooling[0].input_shape[2] // 2,
        pooling[0].input_shape[3] // 2,
    )
    assert layers.time_pytorch(pooling[0], "fp32", "cpu")["relative_difference"] < 1e-5
    assert set(layers.time_weight_gradient(pooling[0], "fp32", "cpu")) == {"seconds_forward", "seconds_weight_gradient"}


def test_rows_of_a_layer_are_one_on_the_page(page):
    network = {"networks": "dcgan", "layer": "a", "input": [2, 1, 8, 8], "kernel": [4, 1, 4, 4], "stride": 2}
    row = {**network, "precision": "bf16", "cudnn_benchmark": False}
    found = [
        {**row, "seconds_forward": {"median": 1e-3}, "seconds_weight_gradient": {"median": 2e-3}},
        {**row, "seconds_pytorch": {"median": 8e-3}},
        {**row, "layer": "b", "seconds_forward": {"median": 1e-3}, "seconds_weight_gradient": {"median": 3e-3}},
    ]
    text = "\n".join(page.gpu_page.layers({"layers": {"rows": found}}))
    assert "| dcgan | a | 2x1x8x8 | 4x1x4x4 | 2 | bf16 | off | 1 | 2 | 8 | **0.25** |" in text
    assert "| dcgan | b | 2x1x8x8 | 4x1x4x4 | 2 | bf16 | off | 1 | 3 |  |  |" in text


ON_WORKERS = """
[gw1] [  3%] PASSED tests/test_a.py::test_one[a b]
tests/test_b.py::test_two
[gw0] [  6%] FAILED tests/test_b.py::test_two
tests/test_b.py::test_three
"""

ALONE = """
tests/test_a.py::test_one[a b] PASSED                    [  3%]
tests/test_b.py::test_two FAILED                         [  6%]
tests/test_b.py::test_four SKIPPED (no device)           [  9%]
tests/test_b.py::test_three
"""


@pytest.mark.parametrize(("said", "skipped"), [(ON_WORKERS, {}), (ALONE, {"skipped": 1})])
def test_outcomes_are_counted_where_pytest_does_not_finish(beside, said, skipped):
    found = beside("cuda_tests").outcome_so_far(said)
    assert found == {"counts": {"passed": 1, "failed": 1} | skipped, "failures": ["FAILED tests/test_b.py::test_two"]}


def test_a_command_that_takes_too_long_leaves_what_it_said(beside, tmp_path):
    code = "import time; print('here', flush=True); time.sleep(60)"
    run_until = beside("cuda_tests").run_until
    assert run_until([sys.executable, "-c", code], tmp_path / "log", 2.0) is None
    assert (tmp_path / "log").read_text() == "here\n"
    assert run_until([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log", 60.0) == 3


def test_time_is_kept_for_stopping_what_a_part_may_leave_on(beside, monkeypatch):
    probe = beside("probe_run")
    for there, seconds in ((True, probe.mps.STOPPING), (False, 0.0)):
        monkeypatch.setattr(probe.mps, "is_there", lambda there=there: there)
        assert probe.seconds_to_stop(probe.PARTS) == seconds
        assert probe.seconds_to_stop(probe.PARTS[:3]) == 0.0


def rows(*parts):
    head = {"part": "run", "minutes": 3.5, "device": "cuda", "rehearse": False}
    origin = {"what": "origin", "device": "a GPU", "commit": "abc", "versions": {"torch": "2"}}
    return [head, {"part": "machine", **origin}, {"part": "machine", "ended": 0, "seconds": 2.0}, *parts]


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_results_of_cuda_are_published_and_shown(beside, page, monkeypatch, tmp_path):
    publishing = beside("publishing")
    monkeypatch.setattr(publishing, "RESULTS", tmp_path / "benchmarks/gpu/results")
    (tmp_path / "benchmarks/gpu").mkdir(parents=True)
    network = {"networks": "dcgan", "image_size": 64, "base_channels": 64, "batch_size": 64, "precision": "bf16"}

    def iteration(engine, seconds, ran, benchmark=False):
        summary = {"median": seconds, "low": seconds, "high": seconds}
        what = {"engine": engine, "cudnn_benchmark": benchmark, "seconds": summary} | ({"ran": ran} if ran else {})
        return {"part": "iterations-dcgan-64", **network, **what}

    found = rows(
        iteration("recorded updates", 0.004, "cuda_graph"),
        iteration("recorded updates", 0.003, "cuda_graph", benchmark=True),
        iteration("tutorial", 0.006, None, benchmark=True),
        iteration("eager", 0.008, "eager"),
        {"part": "iterations-dcgan-64", "what": "x", "skipped": "no time left"},
        {"part": "iterations-dcgan-64", "ended": "limit", "seconds": 30},
        {
            "part": "tests",
            "what": "tests",
            "returncode": 1,
            "counts": {"failed": 1, "passed": 3},
            "failures": ["FAILED a - <b>"],
        },
        {"part": "tests", "ended": 0, "seconds": 3},
    )
    write(tmp_path / "out" / "probe.jsonl", found)
    published = publishing.publish(tmp_path / "out", "first")
    assert published == tmp_path / "benchmarks/gpu/results/first.json"
    monkeypatch.setattr(page, "ROOT", tmp_path)
    text = page.gpu_text()
    assert "On: a GPU; torch 2. Commit: `abc`. Time: 3.5 minutes." in text
    assert "Tests that need CUDA: 1 failed, 3 passed." in text
    assert "- `FAILED a - &lt;b&gt;`" in text
    assert "| dcgan, 64 channels | 64 px | 64 | bf16 | off | 4 | 8 |  | **0.50** |  |" in text
    assert "| dcgan, 64 channels | 64 px | 64 | bf16 | on | 3 |  | 6 |  | **0.50** |" in text
    assert "| recorded updates | 3 | **0.75** |" in text
    assert "- iterations-dcgan-64 ended early: its time was up" in text
    assert "- iterations-dcgan-64: 1 of 5 rows: no time left" in text

    again = [rows()[0], {"part": "tests", "what": "tests", "returncode": 0, "counts": {"passed": 4}, "failures": []}]
    write(tmp_path / "out" / "probe.jsonl", found + again)
    publishing.publish(tmp_path / "out", "first")
    assert "Tests that need CUDA: 4 passed." in page.gpu_text()
    write(tmp_path / "out" / "probe.jsonl", [{**found[0], "device": "cpu"}])
    with pytest.raises(SystemExit, match="only runs on CUDA"):
        publishing.publish(tmp_path / "out", "second")
    with pytest.raises(SystemExit, match=r"must hold probe\.jsonl or study\.jsonl"):
        publishing.publish(tmp_path / "nothing", "second")


def test_the_page_shows_what_is_committed(page):
    text = (ROOT / "docs/pages/gpu.md").read_text(encoding="utf-8")
    assert f"<!-- gpu -->\n{page.gpu_text()}\n<!-- /gpu -->" in text
    if not list((SCRIPTS / "results").glob("*.json")):
        assert page.gpu_text() == "Nothing has run on CUDA yet."


def test_predictions_come_before_outcomes():
    log = (SCRIPTS / "LOG.md").read_text(encoding="utf-8")
    assert log.index("## Predictions") < log.index("## Outcomes")
    if not list((SCRIPTS / "results").glob("*.json")):
        assert log.rstrip().endswith("None yet: nothing has run on CUDA.")
