"""A sweep of jobs that end in every way, killed with SIGKILL at random instants, ends as one that was left alone."""

import json
import random
import sys
from pathlib import Path

import psutil
import pytest

from mlxlab.record.attempts import JobRecord, read_jobs
from support.processes import ROOT, start, tiny_overrides

pytestmark = [
    pytest.mark.fault_injection,
    pytest.mark.skipif(
        sys.platform != "linux", reason="memory of a process is measured as Linux does"
    ),
]

KILLS = 20
WAYS = ["none", "raise", "exit", "kill", "none", "crash", "hang", "memory"]
WAYS += ["none", "nan", "data", "none"]
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


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    own = tmp_path_factory.mktemp("own") / "experiment"
    own.mkdir()
    for number, way in enumerate(WAYS):
        fault = f"callbacks:\n  fault: {{_target_: support.sweep_faults.Fault, way: {way}}}\n"
        fault = "trainer:\n  learning_rate: 1.0e+30\n" if way == "nan" else fault
        (own / f"job{number}.yaml").write_text(f"# @package _global_\nseed: {number}\n{fault}")
    settings = tiny_overrides(
        "trainer.max_steps=20", "trainer.eval_every=10", "callbacks.progress_bar.bar=off"
    )
    settings_of_launcher = ("n_jobs=2", "timeout=20", "grace=1", "memory_limit=1.2")
    limits = [f"hydra.launcher.{each}" for each in settings_of_launcher]
    jobs = f"experiment={','.join(f'job{number}' for number in range(len(WAYS)))}"
    return ["--config-dir", str(own.parent), "-m", jobs, *settings, *limits]


def records(folder: Path) -> list[JobRecord]:
    return sorted(read_jobs(folder).values(), key=lambda record: record.job.number)


def table(folder: Path) -> list[tuple[int, str, str, float | None, int | None]]:
    """What came of each job: number, state, reason, objective, exit code."""
    return [
        (job.job.number, job.state, job.reason, job.value, job.exit_code) for job in records(folder)
    ]


def run_records(folder: Path) -> list[dict]:
    """Of the jobs that finished."""
    numbers = [job.job.number for job in records(folder) if job.state == "finished"]
    return [json.loads((folder / str(number) / "run.json").read_text()) for number in numbers]


def final_states(folder: Path) -> list[str]:
    return [record["training"]["final_state"] for record in run_records(folder)]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    process = start(*command, f"hydra.sweep.dir={folder}", fresh=True, **ENVIRONMENT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert f"{WAYS.count('none')} finished" in out
    return folder


def test_the_good_jobs_finish_and_each_other_one_has_its_reason(whole):
    rows = table(whole)
    by_way = dict(zip(WAYS, rows, strict=True))
    assert {rows[number][1] for number, way in enumerate(WAYS) if way == "none"} == {"finished"}
    assert {by_way[way][1] for way in EXPECTED} == {"failed"}
    assert {way: by_way[way][2] for way in EXPECTED} == EXPECTED
    codes = {"none": 0, "raise": 70, "exit": 3, "kill": 137, "crash": 139, "hang": 124}
    codes |= {"memory": 137, "nan": 78, "data": 65}
    assert {way: row[-1] for way, row in by_way.items()} == codes


def test_a_killed_sweep_ends_with_the_same_table(command, whole, tmp_path):
    draw, kills = random.Random(5), 0
    ended: dict[int, JobRecord] = {}
    while kills < KILLS:
        process = start(*command, f"hydra.sweep.dir={tmp_path}", fresh=True, **ENVIRONMENT)
        try:
            process.wait(draw.uniform(1, 12))
        except Exception:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            kills += 1
            process.communicate()
            for job in records(tmp_path):
                assert ended.get(job.job.number, job) == job, "a job ran twice"
                if job.ended:
                    ended[job.job.number] = job
            psutil.wait_procs(family, timeout=5)
            alive = [each for each in family if each.is_running()]
            assert {each.status() for each in alive} <= {psutil.STATUS_ZOMBIE}
        else:
            process.communicate()
            break
    process = start(*command, f"hydra.sweep.dir={tmp_path}", fresh=True, **ENVIRONMENT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert table(tmp_path) == table(whole)
    assert final_states(tmp_path) == final_states(whole)
