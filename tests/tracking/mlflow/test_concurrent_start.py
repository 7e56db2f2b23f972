"""Processes that start together on a store that does not exist yet: every one works, every run is complete."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.tracking import project_fixture, query_store, start_trainer, wait_until  # noqa: F401

PROCESSES = 8
STEPS = 3

OPEN = """
import sys
from pathlib import Path
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.client import MlflowStore
store = MlflowStore(resolve(None, None, Path(sys.argv[1])))
store.experiment("mlxlab")
"""


def check_runs(project: Path) -> None:
    """Trains eight runs at once, and waits until the store has all of them."""
    trainers = [start_trainer(project, str(number), STEPS) for number in range(PROCESSES)]
    for trainer in trainers:
        _, err = trainer.communicate(timeout=200)
        assert (trainer.returncode, err) == (0, "")
    finished = "select count(*) from runs where status = 'FINISHED'"
    wait_until(lambda: query_store(project, finished) == [(PROCESSES,)])
    assert query_store(
        project, "select count(*), count(distinct run_uuid) from metrics where key = 'train/loss'"
    ) == [(PROCESSES * STEPS, PROCESSES)]
    assert query_store(project, "select count(*) from experiments where name = 'mlxlab'") == [(1,)]


def test_eight_runs_that_start_together_create_one_store(project):
    check_runs(project)


@pytest.mark.fault_injection
@pytest.mark.parametrize("round_number", range(10))
def test_eight_runs_and_eight_readers_that_start_together_all_work(
    project, monkeypatch, round_number
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))  # the schema is not cached either
    args = [sys.executable, "-c", OPEN, str(project)]
    readers = [subprocess.Popen(args, stderr=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
    check_runs(project)
    for reader in readers:
        _, err = reader.communicate(timeout=200)
        assert reader.returncode == 0, err
