"""Disk faults: the previous checkpoint stays intact, training continues with one warning, the next save succeeds."""

import errno
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.store import CheckpointStore, load_checkpoint
from support.checkpoints import state_at
from support.fault_injection import resaver, saver
from support.fault_injection.disks import fill, needs_root, remount, small_disk
from support.fault_injection.harness import (
    assert_tidy,
    committed,
    reference,
    settings,
    timed,
    tracked,
)
from support.processes import environment, run, run_here

STRACE = shutil.which("strace")
SYSCALLS = "fsync,rename,write,writev,mkdir,unlinkat,unlink,rmdir,openat"
ERRORS = {
    "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "rename": ("EXDEV", "ENOSPC", "EROFS"),
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "writev": ("ENOSPC", "EIO"),
    "openat": ("EMFILE", "ENOSPC", "EACCES"),
    "mkdir": ("ENOSPC", "EROFS"),
}
NOT_SAVED = re.compile(r"^checkpoint of step \d+ not saved: .*; training continues$", re.MULTILINE)


def traced() -> bool:
    """Can strace inject faults here?"""
    if STRACE is None:
        return False
    command = [STRACE, "-f", "-o", os.devnull, "-e", "inject=rmdir:error=EIO:when=1", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_strace = pytest.mark.skipif(
    not traced(), reason="strace is not installed, or may not trace here"
)


def save_under_strace(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`saver.py` as the only program traced; its log is beside the folder."""
    folder.mkdir(parents=True)
    command = [str(STRACE), "-f", "-o", f"{folder}.log", *options]
    command += [sys.executable, saver.__file__, str(folder)]
    return finish(command, environment(PYTHONDONTWRITEBYTECODE="1"))


def finish(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=120
    )


def calls_of_the_third_save(log: Path) -> list[tuple[str, int]]:
    """(name, number among the calls of its name in its thread) of every call between the fifth mark and the sixth."""
    seen: Counter[tuple[str, str]] = Counter()
    calls, marks = [], 0
    for line in log.read_text().splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if not match:
            continue
        seen[match.groups()] += 1
        marks += saver.MARK in line
        if marks == 5 and saver.MARK not in line:
            calls.append((match[2], seen[match.groups()]))
    return calls


def check_recovery(folder: Path, step: int) -> None:
    """What is committed is whole, and is of this step; leftovers go at the next start."""
    store = CheckpointStore(folder, keep=1)
    store.clean()
    checkpoint = store.load()
    assert checkpoint.step == step
    assert not checkpoint.skipped
    weights, moments = np.array(checkpoint.weights["w7"]), np.array(checkpoint.optimizer["m"])
    np.testing.assert_array_equal(weights, np.arange(500) * checkpoint.step + 7)
    np.testing.assert_array_equal(moments, np.full(300, float(checkpoint.step)))
    for path in store.paths():
        load_checkpoint(path)
    assert all(path.name.startswith("step-") for path in folder.iterdir())


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> list[tuple[str, int]]:
    folder = tmp_path_factory.mktemp("calls") / "run"
    done = save_under_strace(folder, "-e", f"trace={SYSCALLS}")
    assert done.stdout.splitlines() == [f"{step} saved" for step in (1, 2, 3, 4)], done.stderr
    calls = calls_of_the_third_save(Path(f"{folder}.log"))
    assert {"fsync", "rename", "write", "mkdir"} <= {name for name, _ in calls}
    return calls


@needs_strace
@pytest.mark.parametrize("every", [36, pytest.param(1, marks=pytest.mark.fault_injection)])
def test_a_failing_system_call_in_a_save_leaves_the_previous_checkpoint_and_the_next_save_succeeds(
    calls, tmp_path, every
):
    cases = [(name, when, error) for name, when in calls for error in ERRORS.get(name, ())][::every]
    for number, (name, when, error) in enumerate(cases):
        folder = tmp_path / str(number)
        inject = f"inject={name}:error={error}:when={when}"
        done = save_under_strace(folder, "-e", f"trace={name}", "-e", inject)
        assert done.returncode == 0, (name, when, error, done.stderr)
        lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        unsaved = [step for step, result in lines.items() if result != "saved"]
        for step in unsaved:
            kinds = r"(OSError|PermissionError|RuntimeError|CannotCreateError): "
            assert re.match(kinds, lines[step]), lines
        assert len(unsaved) <= 1
        check_recovery(folder, 3 if "4" in unsaved else 4)


@needs_strace
def test_every_file_is_flushed_before_the_checkpoint_is_renamed(tmp_path):
    """fsync of each file after its last write, of the folder before and of its parent after the rename."""
    folder = tmp_path / "run"
    save_under_strace(folder, "-y", "-e", "trace=fsync,rename,write,writev,pwrite64")
    log = Path(f"{folder}.log").read_text()
    events = re.findall(r"^\d+ +(\w+)\((?:\d+<([^>]*)>)?(.*)$", log, re.MULTILINE)
    renames = ((i, args) for i, (name, _, args) in enumerate(events) if name == "rename")
    at = next(i for i, args in renames if "/step-00000003" in args)
    temporary = re.search(r'"([^"]*\.tmp-00000003[^"]*)"', events[at][2])[1]
    for file in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        last = max(i for i, (_, path, _) in enumerate(events) if path == f"{temporary}/{file}")
        assert events[last][0] == "fsync", f"{file} is written after it was flushed"
        assert last < at
    last_file = max(i for i, (_, path, _) in enumerate(events) if path.startswith(f"{temporary}/"))
    before = [path for name, path, _ in events[last_file + 1 : at] if name == "fsync"]
    after = [path for name, path, _ in events[at + 1 :] if name == "fsync"]
    assert temporary in before
    assert after[0] == str(folder)


FAULTS = [("fsync", errno.EIO), ("rename", errno.EXDEV), ("rename", errno.EROFS)]
FAULTS += [("mkdir", errno.ENOSPC), ("open", errno.EMFILE)]
SLOW = [pytest.param(*case, marks=pytest.mark.fault_injection) for case in FAULTS]


@pytest.mark.parametrize(
    ("name", "number"),
    [("fsync", errno.ENOSPC), *SLOW],
    ids=lambda value: value if isinstance(value, str) else errno.errorcode[value],
)
def test_a_run_continues_while_saves_fail_and_reports_it_once(
    shared_server, tmp_path, name, number
):
    argv = settings("bert", "trainer.max_steps=20", *tracked(tmp_path / "project"))
    expected = reference(shared_server, argv, tmp_path / "reference")
    fail = {"name": name, "errno": number, "first": 3, "last": 6}
    done = shared_server.run([*argv, f"hydra.run.dir={tmp_path}/run"], syncer=False, fail=fail)
    assert done.final_state() == expected.final_state
    expected = f"checkpoint of step 6 not saved: {os.strerror(number)}; training continues"
    assert NOT_SAVED.findall(done.err) == [expected], done.err
    assert "Traceback" not in done.err
    assert_tidy(tmp_path / "run")


def test_a_failing_last_save_exits_with_74_and_the_previous_checkpoint_resumes(
    shared_server, tmp_path
):
    argv = settings("bert", "trainer.max_steps=12")
    expected = reference(shared_server, argv, tmp_path / "reference")
    here = [*argv, f"hydra.run.dir={tmp_path}/run"]
    fail = {"name": "fsync", "errno": errno.ENOSPC, "first": 4, "last": 99}
    done = shared_server.run(here, fail=fail)
    assert done.returncode == 74, done.err
    assert "Traceback" not in done.err
    assert [path.name for path in committed(tmp_path / "run")] == ["step-00000004", "step-00000006"]
    resumed = shared_server.run(here)
    assert "resumed from step-00000006" in resumed.err
    assert resumed.final_state() == expected.final_state


@pytest.mark.fault_injection
def test_after_an_attempt_without_any_checkpoint_the_store_holds_every_point_once(
    shared_server, tmp_path
):
    store = f"sqlite:///{tmp_path}/project/mlflow.db"
    short = settings("bert", "trainer.max_steps=6")
    here = [*short, *tracked(tmp_path / "project"), f"hydra.run.dir={tmp_path}/run"]
    elsewhere = [*short, *tracked(tmp_path / "elsewhere")]
    expected = reference(shared_server, elsewhere, tmp_path / "reference")
    fail = {"name": "fsync", "errno": errno.EIO, "first": 1, "last": 99}
    failed = shared_server.run(here, syncer=False, fail=fail)
    assert failed.returncode == 74, failed.err
    assert committed(tmp_path / "run") == []
    for attempt in ("failed", "resumed"):
        if attempt == "resumed":
            assert shared_server.run(here, syncer=False).final_state() == expected.final_state
        synced = run("sync", f"{tmp_path}/run", f"uri={store}", script="runs")
        assert synced.returncode == 0, synced.stderr
    with closing(sqlite3.connect(tmp_path / "project" / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchall() == [(1,)]
        points = database.execute("select key, step from metrics").fetchall()
    # Times of the attempt that failed stand beside those of the other.
    points = [pair for pair in points if not timed(pair)]
    assert sorted(points) == sorted(pair for pair in expected.metrics if not timed(pair))


@pytest.mark.fault_injection
@needs_root
@pytest.mark.parametrize("full_at_the_end", [False, True])
def test_a_full_disk_costs_saves_and_nothing_else(shared_server, tmp_path, full_at_the_end):
    argv = settings("bert", "trainer.max_steps=40", *tracked(tmp_path / "project"))
    expected = reference(shared_server, argv, tmp_path / "reference")
    with small_disk(tmp_path / "disk", "30m") as disk:
        here = [*argv, f"hydra.run.dir={disk}/run"]
        attempt = shared_server.start(here, syncer=False, slow=0.2)
        assert attempt.wait_for("evaluation")
        ballast = fill(disk)
        assert attempt.wait_for("evaluation", 3)
        if not full_at_the_end:
            ballast.unlink()
        attempt.finish()
        assert len(NOT_SAVED.findall(attempt.err)) <= 1
        assert "Traceback" not in attempt.err, attempt.err
        assert attempt.returncode == (74 if full_at_the_end else 0), attempt.err
        ballast.unlink(missing_ok=True)
        last = shared_server.run(here, syncer=False) if full_at_the_end else attempt
        assert last.final_state() == expected.final_state
        assert_tidy(disk / "run")


@needs_root
def test_a_disk_that_is_too_small_is_reported_before_training(shared_server, tmp_path):
    with small_disk(tmp_path / "disk", "300k") as disk:
        argv = settings("bert", "trainer.max_steps=8", f"hydra.run.dir={disk}/run")
        done = shared_server.run(argv)
    assert done.returncode == 74, done.err
    assert "are free" in done.err.split("step 8/8")[0]
    assert "Traceback" not in done.err


@needs_root
def test_a_read_only_run_folder_exits_with_73_at_the_start(shared_server, tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        remount(disk, "ro")
        done = shared_server.run(settings("bert", f"hydra.run.dir={disk}/run"))
    assert done.returncode == 73, done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("function", "number", "exit_code"),
    [
        ("mlxlab.run.train.write_atomic", errno.ENOSPC, 74),
        ("mlxlab.record.run_file.write_json", errno.EIO, 74),
        ("mlxlab.run.context.fcntl.flock", errno.EIO, 73),
        ("mlxlab.run.context.os.ftruncate", errno.EIO, 0),
    ],
    ids=["inference folder", "record", "lock", "owner of the lock"],
)
def test_a_disk_fault_in_another_file_of_the_run_folder_is_one_line(
    monkeypatch, tmp_path, function, number, exit_code
):
    def fail(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(function, fail)
    done = run_here(*settings("bert", "trainer.max_steps=2", f"hydra.run.dir={tmp_path}/run"))
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count(os.strerror(number)) == (1 if exit_code else 0)


@pytest.mark.parametrize("name", ["run.json", "resume_changes.json"])
def test_a_folder_in_place_of_a_file_of_the_run_is_one_line(tmp_path, name):
    folder = f"hydra.run.dir={tmp_path}/run"
    assert run_here(*settings("bert", "trainer.max_steps=2", folder)).returncode == 0
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name / "inside").mkdir(parents=True)
    done = run_here(*settings("bert", "trainer.max_steps=3", folder), "resume=auto")
    assert done.returncode == 74, done.stderr
    [line] = [line for line in done.stderr.splitlines() if name in line]
    assert line.endswith("Is a directory")
    assert "Traceback" not in done.stderr


def test_a_file_size_limit_costs_the_save_and_leaves_nothing_behind(tmp_path):
    """RLIMIT_FSIZE: MLX raises, Python's SIGXFSZ is ignored."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY));"
        "import saver; from pathlib import Path; saver.main(Path(sys.argv[1]))"
    )
    env = environment(PYTHONPATH=str(Path(saver.__file__).parent), PYTHONDONTWRITEBYTECODE="1")
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    done = finish(command, env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved") == 0
    assert len(done.stdout.splitlines()) == 4
    assert list((tmp_path / "run").iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_kill_at_each_call_of_a_save_that_replaces_a_checkpoint_leaves_the_old_or_the_new_one(
    tmp_path,
):
    done = finish([sys.executable, resaver.__file__, str(tmp_path)], environment())
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
    values = []
    for call in range(1, int(done.stdout) + 1):
        store = CheckpointStore(tmp_path / str(call))
        values.append(store.load().weights["w"].tolist()[0])
        store.save(2, {"w": mx.zeros(4)}, {}, state_at(2))
        names = [path.name.removesuffix("-replaced") for path in store.paths()]
        assert names == ["step-00000002", "step-00000001"]
    assert values == sorted(values)
    assert set(values) == {1.0, 2.0}
