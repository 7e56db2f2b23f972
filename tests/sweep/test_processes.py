"""Jobs in processes of their own: however one ends, the others finish, and nothing outlives the sweep."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mlxlab.errors import ConfigError
from mlxlab.record.attempts import JobRecord
from mlxlab.sweep import processes
from mlxlab.sweep.jobs import JobTask, compose
from mlxlab.sweep.processes import JobProcesses
from support.sweep_jobs import WAYS, act, write_config

OPTIONS = {"n_jobs": 1, "timeout": None, "retries": 0, "memory_limit": None, "grace": 0.2}
MODULES = ["support.sweep_jobs", "mlxlab.sweep.child", "mlxlab.sweep.jobs"]


class Sweep:
    """The jobs of one sweep, whose tasks end as their config says."""

    def __init__(self, folder: Path) -> None:
        self.config, self.hydra = write_config(folder)
        self.folder = Path(self.config.hydra.sweep.dir)

    def launcher(self, **options: object) -> JobProcesses:
        return JobProcesses(self.hydra, JobTask(act), self.config, {**OPTIONS, **options})

    def start(self, jobs: JobProcesses, way: str, number: int) -> None:
        overrides = [f"way='{way}'", f"seed={number}"]
        jobs.start(compose(self.hydra, self.config, overrides, number))

    def run(self, jobs: JobProcesses, ways: list[str]) -> list[JobRecord]:
        for number, way in enumerate(ways):
            self.start(jobs, way, number)
        results = [jobs.wait() for _ in ways]
        jobs.close()
        results.sort(key=lambda result: result.job.number)
        return [result.record for result in results]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "preloaded_modules", lambda *_: MODULES)
    return Sweep(tmp_path)


def test_a_job_that_ends_in_any_way_leaves_the_others_alone(sweep, capfd):
    ways = ["good", *WAYS, "child", "good"]
    if sys.platform != "linux":
        ways.remove("memory")
    records = sweep.run(sweep.launcher(n_jobs=3, timeout=8, memory_limit=0.4), ways)
    reasons = {way: record.reason for way, record in zip(ways, records, strict=True)}
    assert reasons == {"good": "", "child": ""} | {
        way: reason for way, reason in WAYS.items() if way in ways
    }
    values = [record.value for record in records if record.state == "finished"]
    assert values == [0.5, len(ways) - 2 + 0.5, len(ways) - 1 + 0.5]
    assert {record.attempts for record in records} == {1}
    codes = {way: record.exit_code for way, record in zip(ways, records, strict=True)}
    assert (codes["data"], codes["diverge"]) == (65, 78)
    assert (codes["kill"], codes["crash"], codes["hang"], codes["exit"]) == (137, 139, 124, 3)
    assert "Fatal Python error" not in capfd.readouterr().err  # it is in the job's own file
    assert (sweep.folder / "0" / "output.log").exists()
    # The child of a job would have outlived it.
    assert ["sleep", "600"] not in [
        each.info["cmdline"] for each in psutil.process_iter(["cmdline"])
    ]


def test_a_crash_is_retried_from_the_checkpoint_and_an_error_is_not(sweep):
    crashed, failed = sweep.run(sweep.launcher(retries=1), ["crash once", "data"])
    assert (crashed.state, crashed.value, crashed.attempts) == ("finished", 0.5, 2)
    began = (sweep.folder / "0" / "began").read_text().splitlines()
    assert [line.split()[1] for line in began] == ["None", "auto"]
    assert (failed.state, failed.attempts) == ("failed", 1)


def test_a_signal_lets_running_jobs_end_and_a_second_one_stops_them(sweep):
    before = signal.getsignal(signal.SIGTERM)
    jobs = sweep.launcher()
    for number, way in enumerate(["slow", "good"]):
        sweep.start(jobs, way, number)
    os.kill(os.getpid(), signal.SIGINT)
    results = {each.job.number: each.record for each in (jobs.wait(), jobs.wait())}
    jobs.close()
    assert (results[0].state, results[0].value) == ("finished", 0.5)
    assert (results[1].state, results[1].reason) == ("stopped", "not started")
    assert jobs.stop_signal == signal.SIGINT

    jobs = sweep.launcher()
    sweep.start(jobs, "wait", 2)
    _wait_until((sweep.folder / "2" / "began").exists)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert jobs.wait().record.state == "stopped"
    assert jobs.stop_signal == signal.SIGTERM
    jobs.close()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_killed_server_is_a_crash_of_its_job_and_a_new_one_starts(sweep):
    jobs = sweep.launcher(retries=1)
    sweep.start(jobs, "slow", 0)
    own = psutil.Process().children()
    [server] = [each for each in own if "forkserver" in " ".join(each.cmdline())]
    server.kill()
    record = jobs.wait().record
    jobs.close()
    assert record.state == "finished"


def test_a_job_waits_for_free_memory(sweep, monkeypatch):
    free = iter([0, 0, 10**12, 10**12])
    monkeypatch.setattr(processes, "free_memory", lambda: next(free))
    assert sweep.run(sweep.launcher(memory_limit=0.5), ["good"])[0].state == "finished"
    assert next(free) == 10**12
    with pytest.raises(ConfigError, match="memory_limit: expected no more than this machine has"):
        sweep.launcher(memory_limit=10**6)


def test_a_job_that_another_process_runs_is_left_alone(sweep):
    first = sweep.launcher()
    second = sweep.launcher(retries=1)
    sweep.start(first, "wait", 0)
    _wait_until((sweep.folder / "0" / "began").exists)
    sweep.start(second, "good", 0)
    record = second.wait().record
    assert (record.state, record.reason) == ("stopped", "another process runs this job")
    first.close()
    second.close()


def _wait_until(condition) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
