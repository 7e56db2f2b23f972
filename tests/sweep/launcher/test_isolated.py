"""Jobs in processes of their own: however one ends, the others finish, and nothing outlives the sweep."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from mlxlab.config.hydra.compose import Callbacks
from mlxlab.errors import ConfigError
from mlxlab.sweep.launcher import isolated
from mlxlab.sweep.launcher.isolated import IsolatedLauncher
from mlxlab.sweep.launcher.jobs import JobResult, SweepContext
from mlxlab.sweep.launcher.messages import Hello
from support.sweep_jobs import WAYS, act, write_config

OPTIONS = {
    "n_jobs": 1,
    "timeout": None,
    "retries": 0,
    "memory_limit": None,
    "grace": 0.2,
    "retry_failed": False,
}
OPTIONS["jobs_per_process"] = None


@pytest.fixture
def context(tmp_path, monkeypatch):
    modules = ["support.sweep_jobs"]
    monkeypatch.setattr(
        isolated, "hello", lambda _, limit: Hello([*sys.path], [*sys.argv], modules, [], [], limit)
    )
    composer = write_config(tmp_path)
    config: DictConfig = composer.hydra.compose_config("train", [], RunMode.MULTIRUN)
    return SweepContext(config, HydraContext(composer.hydra.config_loader, Callbacks()), act)


def launcher(context: SweepContext, **options: object) -> IsolatedLauncher:
    return IsolatedLauncher(**{**OPTIONS, **options}, context=context)


def run_all(jobs: IsolatedLauncher, ways: list[str]) -> list[JobResult]:
    for number, way in enumerate(ways):
        jobs.start([f"way='{way}'", f"seed={number}"], number, more=number + 1 < len(ways))
    return sorted((jobs.wait() for _ in ways), key=lambda result: result.number)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_a_job_that_ends_in_any_way_leaves_the_others_alone(context, capfd):
    ways = ["good", *WAYS, "good"]
    if sys.platform != "linux":
        ways.remove("memory")
    before = {process.pid for process in children()}
    with launcher(context, n_jobs=3, timeout=5, memory_limit=0.4) as jobs:
        results = run_all(jobs, ways)
    assert {process.pid for process in children()} <= before
    assert {
        way: result.reason for way, result in zip(ways, results, strict=True) if way != "good"
    } == {way: reason for way, reason in WAYS.items() if way in ways}
    assert [result.value for result in results if result.state == "finished"] == [
        0.5,
        0.5 + len(ways) - 1,
    ]
    assert {result.attempts for result in results} == {1}
    codes = {way: result.exit_code for way, result in zip(ways, results, strict=True)}
    assert (codes["data"], codes["diverge"]) == (65, 78)
    assert (codes["kill"], codes["crash"], codes["hang"], codes["exit"]) == (137, 139, 124, 3)
    assert "Fatal Python error" not in capfd.readouterr().err  # it is in the job's own file
    assert (results[0].folder / "output.log").exists()


def test_a_crash_is_retried_from_the_checkpoint_and_an_error_is_not(context):
    with launcher(context, retries=1) as jobs:
        crashed, failed = run_all(jobs, ["crash once", "data"])
    assert (crashed.state, crashed.value, crashed.attempts) == ("finished", 0.5, 2)
    assert [line.split()[1] for line in (crashed.folder / "began").read_text().splitlines()] == [
        "None",
        "auto",
    ]
    assert (failed.state, failed.attempts) == ("failed", 1)


def test_a_signal_lets_running_jobs_end_and_a_second_one_stops_them(context):
    before = signal.getsignal(signal.SIGTERM)
    with launcher(context) as jobs:
        for number, way in enumerate(["slow", "good"]):
            jobs.start([f"way={way}"], number)
        os.kill(os.getpid(), signal.SIGINT)
        waiting, slow = jobs.wait(), jobs.wait()
    assert (slow.state, slow.value) == ("finished", 0.5)
    assert (waiting.state, waiting.reason, jobs.stop_signal) == (
        "stopped",
        "not started",
        signal.SIGINT,
    )
    with launcher(context) as jobs:
        jobs.start(["way=wait"], 2)
        _wait_until((context_folder(context) / "2" / "began").exists)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert jobs.wait().state == "stopped"
        assert jobs.stop_signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_killed_server_is_a_crash_of_its_job_and_a_new_one_starts(context):
    with launcher(context, retries=1) as jobs:
        jobs.start(["way=slow"], 0)
        [server] = [
            process for process in children() if "fork_server" in " ".join(process.cmdline()[:6])
        ][:1]
        server.kill()
        result = jobs.wait()
    assert (result.state, result.attempts) == ("finished", 2)


def test_a_job_waits_for_free_memory(context, monkeypatch):
    free = iter([0, 0, 10**12, 10**12])
    monkeypatch.setattr(isolated, "free_memory", lambda: next(free))
    with launcher(context, memory_limit=0.5) as jobs:
        assert run_all(jobs, ["good"])[0].state == "finished"
    assert next(free) == 10**12
    with pytest.raises(ConfigError, match="memory_limit: expected no more than this machine has"):
        launcher(context, memory_limit=10**6)


def test_a_process_runs_further_jobs_in_the_state_that_the_first_one_found(context):
    with launcher(context) as jobs:
        results = run_all(jobs, ["look", "litter", "look"])
    assert len(set(map(process_of, results))) == 1
    before, after = (
        json.loads((results[number].folder / "seen.json").read_text()) for number in (0, 2)
    )
    assert after == before
    with launcher(context, jobs_per_process=1) as jobs:
        assert len(set(map(process_of, run_all(jobs, ["good", "good"])))) == 2


def test_a_process_that_a_job_did_not_leave_as_it_was_runs_no_further_job(context):
    ways = ["obey", "raise", "nan", "grow", "child", "thread"]
    with launcher(context, timeout=2) as jobs:
        results = run_all(jobs, [each for way in ways for each in ("good", way)])
    processes = list(map(process_of, results))
    assert processes[::2] == processes[1::2]
    assert len(set(processes)) == len(ways)
    assert [result.state for result in results[1::2]] == [
        "finished",
        "failed",
        "failed",
        *["finished"] * 3,
    ]


def process_of(result: JobResult) -> int:
    return int((result.folder / "began").read_text().splitlines()[-1].split()[0])


def context_folder(context: SweepContext) -> Path:
    return Path(context.config.hydra.sweep.dir)


def _wait_until(condition) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
