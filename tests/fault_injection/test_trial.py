"""A trial that is killed with SIGKILL and continued ends as one that was not, and trains no run twice."""

import json
import random
import shutil
import signal
import sys
import time

import pytest

from mlxlab.sweep.trial.record import read_record
from support.past_run import past_run
from support.processes import run, start

pytestmark = [
    pytest.mark.fault_injection,
    pytest.mark.skipif(sys.platform == "darwin", reason="forks"),
]
KILLS = 5
RATE = "trainer.learning_rate=3e-3"


def outcome(folder):
    """What a trial came to, without times and folders of its own."""
    record = read_record(folder)
    runs = sorted((each.seed, each.arm, each.value) for each in record.runs)
    return runs, record.gains, record.looks, record.verdict


def attempts(folder):
    """The status of every attempt of every run, by the folder of the run."""
    records = sorted(folder.glob("*/run.json"))
    return {
        file.parent.name: [each["status"] for each in json.loads(file.read_text())["attempts"]]
        for file in records
    }


def test_a_killed_trial_continues(tmp_path):
    base = shutil.copytree(past_run(), tmp_path / "base")
    command = [f"baseline={base}", RATE, "budget=12steps", "max_seeds=3", "data.prefetch=1"]
    begin = time.monotonic()
    whole = run(*command, f"folder={tmp_path}/whole", script="trial")
    seconds = time.monotonic() - begin
    assert whole.returncode in (0, 10, 11), whole.stderr
    draw = random.Random(0)
    for _ in range(KILLS):
        process = start(*command, f"folder={tmp_path}/t", script="trial")
        time.sleep(draw.uniform(0.1, 0.8) * seconds)
        process.kill()
        process.communicate()
    ended = run(*command, f"folder={tmp_path}/t", script="trial")
    assert ended.returncode == whole.returncode, ended.stderr
    assert outcome(tmp_path / "t") == outcome(tmp_path / "whole")
    assert all(each.count("finished") == 1 for each in attempts(tmp_path / "t").values())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_trial_leaves_no_process_and_continues(tmp_path, number, code):
    import psutil

    base = shutil.copytree(past_run(), tmp_path / "base")
    command = [f"baseline={base}", RATE, "budget=120steps", "seeds=2", f"folder={tmp_path}/t"]
    command += ["trainer.eval_every=60", "checkpointing.every_steps=1"]
    process = start(*command, script="trial", fresh=True)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("t/*/checkpoints/step-*")) and time.monotonic() < end:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "interrupted; the same command continues" in err
    assert not any(
        child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children
    )
    before = attempts(tmp_path / "t")
    ended = run(*command, script="trial")
    assert ended.returncode in (0, 10, 11), ended.stderr
    assert len(read_record(tmp_path / "t").gains) == 2
    after = attempts(tmp_path / "t")
    assert all(each.count("finished") == 1 for each in after.values())
    assert all(after[folder][: len(statuses)] == statuses for folder, statuses in before.items())
    if number == signal.SIGTERM:  # it stopped the run, which continued
        assert ["interrupted", "finished"] in after.values()
