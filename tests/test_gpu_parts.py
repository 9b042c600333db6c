"""Parts of a run on a GPU machine: what hangs or crashes costs only itself, and what was found is there."""

import os
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "gpu"

PARTS = {
    "works": """
        def run(work):
            work.write({"value": 1.5, "options": work.options})
    """,
    "crashes": """
        import os
        def run(work):
            work.write({"value": 1})
            os.abort()
    """,
    "hangs": """
        import subprocess, time
        def run(work):
            child = subprocess.Popen(["sleep", "100"])
            work.write({"child": child.pid})
            time.sleep(100)
    """,
    "chatters": """
        import time
        def run(work):
            for number in range(5):
                print(number, flush=True)
                time.sleep(0.5)
    """,
    "leaves": """
        import subprocess
        def run(work):
            work.write({"child": subprocess.Popen(["sleep", "100"]).pid})
    """,
    "fails": """
        def run(work):
            work.measure({"what": "bad"}, lambda: 1 / 0)
            work.measure({"what": "good"}, lambda: {"value": 2})
            work._end = 0
            work.measure({"what": "late"}, lambda: {"value": 3})
    """,
}


@pytest.fixture
def run(load, monkeypatch, tmp_path):
    """Run parts of the test's own, and return how they ended and the rows of each."""
    parts, work = load("parts"), load("work")
    modules = tmp_path / "modules"
    modules.mkdir()
    for name, code in PARTS.items():
        lines = code.strip("\n").splitlines()
        (modules / f"{name}.py").write_text("\n".join(line[8:] for line in lines))
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.setattr(parts, "LEAST", 0.5)
    monkeypatch.setattr(parts, "GRACE", 0.5)
    base = work.Task(part="", module="", rows=str(tmp_path / "out" / "rows.jsonl"), device="cpu", seconds=0, planned=0)

    def run(*names, seconds=30.0, shares=None):
        shares = shares or [1.0] * len(names)
        chosen = [parts.Part(n, n, share, {"of": n}) for n, share in zip(names, shares, strict=True)]
        ended = parts.run_parts(chosen, base, seconds)
        return {row["part"]: row["ended"] for row in ended}, work.read(tmp_path / "out" / "rows.jsonl")

    return run


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"  # killed, and its new parent has not seen it yet


def test_a_part_that_crashes_costs_only_itself(run, tmp_path, capsys):
    ended, rows = run("works", "crashes", "fails")
    assert ended == {"works": 0, "crashes": -6, "fails": 0}
    assert [row["part"] for row in rows] == ["works", "works", "crashes", "crashes", "fails", "fails", "fails", "fails"]
    assert rows[0] == {"part": "works", "value": 1.5, "options": {"of": "works"}}
    assert rows[2] == {"part": "crashes", "value": 1}
    assert "== crashes: -6" in capsys.readouterr().out
    assert "works: value 1.5" in (tmp_path / "out" / "log.txt").read_text()


def test_a_part_that_hangs_is_killed_with_all_that_it_started(run):
    began = time.monotonic()
    ended, rows = run("hangs", "works", seconds=8, shares=[1, 3])
    assert time.monotonic() - began < 8
    assert ended == {"hangs": "limit", "works": 0}
    assert not is_alive(rows[0]["child"])


@pytest.fixture
def run_together(run, load, tmp_path):
    """Run parts of the test's own one after another, each until it says nothing for two seconds."""

    def run_together(*names, **options):
        rows = str(tmp_path / "out" / "rows.jsonl")
        tasks = [load("work").Task(name, name, rows, "cpu", 30, 30, silence=2.0) for name in names]
        return {row["part"]: row["ended"] for row in load("parts").run_together(tasks, slots=1, **options)}

    return run_together


def test_a_part_that_says_nothing_is_killed_before_its_limit(run_together):
    assert run_together("hangs", "chatters") == {"hangs": "silent", "chatters": 0}


def test_the_next_part_runs_while_what_has_ended_is_packed(run_together, load, tmp_path, capsys):
    rows = tmp_path / "out" / "rows.jsonl"

    def pack(row):
        if row["part"] == "works":
            late = time.monotonic() + 20
            while not any(said["part"] == "leaves" for said in load("work").read(rows)):
                assert time.monotonic() < late
                time.sleep(0.05)
            raise ValueError("a file is cut off")

    assert run_together("works", "leaves", ended=pack) == {"works": 0, "leaves": 0}
    assert "after works: ValueError: a file is cut off" in capsys.readouterr().out


def test_what_a_part_leaves_behind_is_killed(run):
    ended, rows = run("leaves")
    assert ended == {"leaves": 0}
    time.sleep(0.1)
    assert not is_alive(rows[0]["child"])


def test_a_row_that_fails_costs_only_itself(run):
    _, rows = run("fails")
    assert rows[:3] == [
        {"part": "fails", "what": "bad", "skipped": "ZeroDivisionError: division by zero"},
        {"part": "fails", "what": "good", "value": 2},
        {"part": "fails", "what": "late", "skipped": "no time left"},
    ]


def test_nothing_is_begun_without_time(run):
    ended, rows = run("works", seconds=0.1)
    assert ended == {"works": "no time"}
    assert [row["ended"] for row in rows] == ["no time"]


def test_a_row_that_was_cut_off_is_left_out(load, tmp_path):
    work = load("work")
    work.append(tmp_path / "rows.jsonl", {"a": 1})
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"b": ')
    assert work.read(tmp_path / "rows.jsonl") == [{"a": 1}]
