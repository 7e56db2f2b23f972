"""A search that is killed with SIGKILL and continued ends as one that was not."""

import csv
import json
import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from support.processes import run_here, start, tiny_overrides

pytestmark = [
    pytest.mark.fault_injection,
    pytest.mark.skipif(sys.platform == "darwin", reason="forks"),
]
RANDOM = ["-m", "hydra/sweeper=search", "hydra.sweeper.sampler=random"]


def table(folder: Path) -> list[dict[str, str]]:
    """The jobs without the times."""
    with (folder / "report" / "jobs.csv").open() as file:
        rows = csv.DictReader(file)
        return [{key: row[key] for key in row if key != "seconds"} for row in rows]


def rungs(folder: Path) -> list[dict[str, object]]:
    """The trials in the journal of Optuna."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.jsonl")))
    trials = optuna.load_study(study_name="search", storage=storage).trials
    names = ("params", "state", "values", "intermediate_values", "user_attrs")
    return [{name: getattr(trial, name) for name in names} for trial in trials]


def test_a_search_with_promotions_that_is_killed_at_20_random_instants_has_the_same_rungs(tmp_path):
    rate = "trainer.learning_rate=tag(log,interval(1e-4,1e-1))"
    length = ["trainer.max_steps=18", "trainer.eval_every=2", "checkpointing.every_steps=1"]
    search = [*RANDOM, "hydra.sweeper.trials=9", "hydra.sweeper.pruner=asha", rate]
    command = [*search, *tiny_overrides(*length, "model.dropout=0.1")]
    whole = run_here(*command, f"hydra.sweep.dir={tmp_path}/whole")
    assert whole.returncode == 0, whole.stderr
    draw, folder, kills = random.Random(0), tmp_path / "0", 0
    while kills < 20:
        process = start(*command, f"hydra.sweep.dir={folder}", fresh=True)
        changes, before = draw.randint(0, 40), files(folder)
        while len(files(folder) ^ before) < changes and process.poll() is None:
            time.sleep(0.003)
        time.sleep(draw.uniform(0, 0.03))
        if process.poll() is not None:  # It has ended: the next kills are of another search.
            assert process.returncode == 0, process.communicate()[1]
            check_equal(folder, tmp_path / "whole")
            folder = tmp_path / str(kills)
            continue
        process.kill()
        process.communicate()
        kills += 1
    continued = run_here(*command, f"hydra.sweep.dir={folder}")
    assert continued.returncode == 0, continued.stderr
    check_equal(folder, tmp_path / "whole")


def files(folder: Path) -> set[str]:
    """The files below a folder, a new one for each time that one is replaced."""
    found = set()
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found.add(f"{place}/{name} {os.stat(os.path.join(place, name)).st_mtime_ns}")
    return found


def check_equal(folder: Path, whole: Path) -> None:
    """Two searches have the same rungs, the same table and the same weights."""
    assert rungs(folder) == rungs(whole)
    assert table(folder) == table(whole)
    for number in range(len(rungs(whole))):
        records = [each / str(number) / "run.json" for each in (folder, whole)]
        states = [json.loads(path.read_text())["training"]["final_state"] for path in records]
        assert states[0] == states[1]
    assert {row["state"] for row in table(folder)} == {"paused", "finished"}
