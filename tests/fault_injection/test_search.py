"""A search that is killed with SIGKILL and continued ends as one that was not."""

import csv
import sys
from pathlib import Path

import pytest

from support.processes import run_here, start, tiny_overrides, wait_for

pytestmark = [
    pytest.mark.fault_injection,
    pytest.mark.skipif(sys.platform == "darwin", reason="forks"),
]


def table(folder: Path) -> list[dict[str, str]]:
    """`trials.csv` without the times."""
    with (folder / "trials.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def final_states(output: str) -> list[str]:
    return [text for text in output.splitlines() if text.startswith("final_state=")]


def test_a_killed_search_continues_in_its_half_done_trial(tmp_path):
    rate = "trainer.learning_rate=tag(log,interval(1e-4,1e-2))"
    short = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2", "checkpointing.every_steps=1")
    command = ["-m", "hydra/sweeper=search", "hydra.sweeper.sampler=random", "hydra.sweeper.trials=3", rate, *short]
    whole = run_here(*command, f"hydra.sweep.dir={tmp_path}/whole")
    assert whole.returncode == 0, whole.stderr
    process = start(*command, f"hydra.sweep.dir={tmp_path}/s")
    wait_for(tmp_path / "s" / "1" / "checkpoints" / "step-00000001", process)
    process.kill()
    process.communicate()
    continued = run_here(*command, f"hydra.sweep.dir={tmp_path}/s")
    assert continued.returncode == 0, continued.stderr
    assert "1 of 3 trials are finished" in continued.stderr
    assert table(tmp_path / "s") == table(tmp_path / "whole")
    assert final_states(continued.stdout) == final_states(whole.stdout)[1:]
