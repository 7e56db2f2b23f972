"""A sweep of jobs that end in every way, killed with SIGKILL at random instants, ends as one that was left alone."""

import json
import random
import sys
from pathlib import Path

import psutil
import pytest

from mlxlab.sweep.job_journal import read_job_journal
from support.processes import ROOT, start, tiny_overrides

pytestmark = [
    pytest.mark.fault_injection,
    pytest.mark.skipif(
        sys.platform != "linux", reason="memory of a process is measured as Linux does"
    ),
]

KILLS = {"new": 20, "shared": 5}  # by the processes of jobs: one for each, or for several
WAYS = [
    "none",
    "raise",
    "exit",
    "kill",
    "none",
    "crash",
    "hang",
    "memory",
    "none",
    "nan",
    "data",
    "none",
]
EXPECTED = {
    "raise": "ZeroDivisionError: planted",
    "exit": "exited with code 3 before its end",
    "kill": "killed by SIGKILL",
    "crash": "killed by SIGSEGV",
    "hang": "timeout: took more than 20 seconds",
    "memory": "took more than the 1.2 GB of hydra.launcher.memory_limit",
    "nan": "no evaluation was finite: lower trainer.learning_rate or trainer.optimizer.weight_decay",
    "data": "rows.csv:3:5: a number was expected",
}
ENVIRONMENT = {
    "MLXLAB_ALLOWED_TARGETS": "support.sweep_faults.Fault",
    "PYTHONPATH": f"{ROOT}/src:{ROOT}/tests",
}


@pytest.fixture(scope="module", params=list(KILLS))
def processes(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def ways(processes) -> list[str]:
    """Of the jobs; only a new process has a limit of memory."""
    return ["none" if way == "memory" and processes == "shared" else way for way in WAYS]


@pytest.fixture(scope="module")
def command(ways, processes, tmp_path_factory) -> list[str]:
    own = tmp_path_factory.mktemp("own") / "experiment"
    own.mkdir()
    for number, way in enumerate(ways):
        fault = f"callbacks:\n  fault: {{_target_: support.sweep_faults.Fault, way: {way}}}\n"
        fault = "trainer:\n  learning_rate: 1.0e+30\n" if way == "nan" else fault
        (own / f"job{number}.yaml").write_text(f"# @package _global_\nseed: {number}\n{fault}")
    settings = tiny_overrides(
        "trainer.max_steps=20", "trainer.eval_every=10", "callbacks.progress_bar.bar=off"
    )
    limits = [f"hydra.launcher.{each}" for each in ("n_jobs=2", "timeout=20", "grace=1")]
    if processes == "new":
        limits.append("hydra.launcher.memory_limit=1.2")
    jobs = f"experiment={','.join(f'job{number}' for number in range(len(ways)))}"
    return ["--config-dir", str(own.parent), "-m", jobs, *settings, *limits]


def table(folder: Path) -> list[tuple[int, str, str, float | None, int | None]]:
    """What came of each job: number, state, reason, objective, exit code."""
    return [
        (job.number, job.state, job.reason, job.value, job.exit_code)
        for job in read_job_journal(folder)[1]
    ]


def manifests(folder: Path) -> list[dict]:
    """Of the jobs that finished."""
    numbers = [job.number for job in read_job_journal(folder)[1] if job.state == "finished"]
    return [json.loads((folder / str(number) / "manifest.json").read_text()) for number in numbers]


def final_states(folder: Path) -> list[str]:
    return [manifest["outcome"]["final_state"] for manifest in manifests(folder)]


@pytest.fixture(scope="module")
def whole(command, ways, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    process = start(*command, f"hydra.sweep.dir={folder}", fresh=True, **ENVIRONMENT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert f"{ways.count('none')} finished" in out
    return folder


def test_the_good_jobs_finish_and_each_other_one_has_its_reason(whole, ways):
    rows = table(whole)
    assert [state for _, state, *_ in rows] == [
        "finished" if way == "none" else "failed" for way in ways
    ]
    reasons = {
        way: reason for way, (_, _, reason, *_) in zip(ways, rows, strict=True) if way != "none"
    }
    assert reasons == {way: reason for way, reason in EXPECTED.items() if way in ways}
    codes = {way: code for way, (*_, code) in zip(ways, rows, strict=True)}
    expected = {
        "raise": 70,
        "exit": 3,
        "kill": 137,
        "crash": 139,
        "hang": 124,
        "memory": 137,
        "nan": 78,
        "data": 65,
    }
    assert codes == {way: code for way, code in {"none": 0, **expected}.items() if way in ways}


def test_a_killed_sweep_ends_with_the_same_table(command, processes, whole, tmp_path, summarize):
    draw, kills = random.Random(5), 0
    while kills < KILLS[processes]:
        process = start(*command, f"hydra.sweep.dir={tmp_path}", fresh=True, **ENVIRONMENT)
        try:
            process.wait(draw.uniform(1, 12))
        except Exception:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            kills += 1
            process.communicate()
            psutil.wait_procs(family, timeout=5)
            assert not [
                each
                for each in family
                if each.is_running() and each.status() != psutil.STATUS_ZOMBIE
            ]
        else:
            process.communicate()
            break
    process = start(*command, f"hydra.sweep.dir={tmp_path}", fresh=True, **ENVIRONMENT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert table(tmp_path) == table(whole)
    assert final_states(tmp_path) == final_states(whole)
    ended = set()
    for text in (tmp_path / "sweep.jsonl").read_text().splitlines():
        job = json.loads(text).get("job")
        assert not (job and job["state"] == "running" and job["number"] in ended), "a job ran twice"
        if job and job["state"] in ("finished", "failed"):
            ended.add(job["number"])
    summarize(
        f"sweep: {kills} kills of 12 jobs in {processes} processes, the same table and the same final weights"
    )


def test_jobs_that_share_a_process_end_as_in_processes_of_their_own(tmp_path):
    jobs = ["-m", "model=bert,transformer,cnn_hybrid", "seed=0,1", "model.dropout=0.1"]
    settings = tiny_overrides(
        "callbacks.progress_bar.bar=off", "trainer.max_steps=10", "trainer.eval_every=5"
    )
    for name, limit in {"own": "1", "shared": "null"}.items():
        launcher = [
            f"hydra.sweep.dir={tmp_path / name}",
            f"hydra.launcher.jobs_per_process={limit}",
        ]
        process = start(*jobs, *settings, *launcher, fresh=True, **ENVIRONMENT)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        pids = {manifest["attempts"][-1]["pid"] for manifest in manifests(tmp_path / name)}
        assert len(pids) == (6 if name == "own" else 1)
    assert final_states(tmp_path / "shared") == final_states(tmp_path / "own")
    assert table(tmp_path / "shared") == table(tmp_path / "own")
