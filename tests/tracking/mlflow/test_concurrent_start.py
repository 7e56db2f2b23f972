"""Processes that start together on a store that does not exist yet: every one works, every run is complete."""

from pathlib import Path

from support.tracking import project_fixture, query_store, start_trainer, wait_until  # noqa: F401

PROCESSES = 8
STEPS = 3


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
