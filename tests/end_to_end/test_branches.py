"""Runs that do not start from the end of their own folder: forks, branches, used folders."""

import json
import shutil

import pytest

from mlxlab.tracking import queue
from support.fault_injection.harness import read_metrics
from support.processes import final_state, run_here, succeed_here, tiny_overrides

CHEAP = ["data.templates=[basic]", "data.augment.copies=1"]
SETTINGS = tiny_overrides(
    "trainer.max_steps=12", "trainer.eval_every=4", "checkpointing.every_steps=4", *CHEAP
)


@pytest.fixture(autouse=True)
def no_syncer(monkeypatch):
    """Only the journals of these runs are looked at."""
    monkeypatch.setattr(queue, "start_uploading", lambda _address: False)


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and its final state."""
    folder = tmp_path_factory.mktemp("source") / "run"
    return folder, final_state(succeed_here(*SETTINGS, f"hydra.run.dir={folder}"))


@pytest.fixture(scope="module")
def source(finished):
    return finished[0]


@pytest.fixture
def used(source, tmp_path):
    """A copy of its folder."""
    return shutil.copytree(source, tmp_path / "used")


def tracked(project):
    """The settings with a store."""
    settings = [setting for setting in SETTINGS if not setting.startswith("tracking")]
    store = ["tracking=mlflow", f"tracking.uri=sqlite:///{project}/mlflow.db", "tracking.wait=0"]
    store += ["tracking.log_models=false", f"tracking.artifacts={project}/artifacts"]
    return [*settings, *store]


def starts(folder):
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [line["start"] for line in lines if "start" in line]


def test_a_fork_trains_in_a_new_folder_as_a_run_of_its_own(tmp_path, finished):
    source, uninterrupted = finished
    untouched, run = names(source), tmp_path / "fork"
    fork = succeed_here(*tracked(tmp_path), f"resume={source}/step-8", f"hydra.run.dir={run}")
    assert final_state(fork) == uninterrupted
    assert names(source) == untouched
    [start] = starts(run)
    assert start["params"]["choices.model"] == "bert"
    checkpoint = f"{source}/checkpoints/step-00000008"
    assert start["tags"]["mlxlab.forked_from"] == checkpoint
    record = json.loads((run / "run.json").read_text())
    assert {"kind": "checkpoint", "of": checkpoint} in record["parents"]
    verified = run_here(f"run={run}", script="verify")
    assert verified.stdout.splitlines()[-1] == "verified"


def test_newer_checkpoints_are_set_aside_before_a_branch_is_trained(used, finished):
    branch = succeed_here(*SETTINGS, f"hydra.run.dir={used}", "resume=step-8")
    assert "set aside step-00000012" in branch.stderr
    assert final_state(branch) == finished[1]
    assert any(name.startswith("superseded-step-00000012") for name in names(used))


def test_a_new_run_in_a_used_folder_moves_the_earlier_one_into_a_folder_inside(used):
    kept = {path.name for path in used.iterdir()} - {".hydra", ".lock", "STATUS.finished"}
    record, log = json.loads((used / "run.json").read_text()), (used / "train.log").read_bytes()
    (used / "notes.txt").write_text("of the user")
    shorter = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=4", "seed=5", *CHEAP)
    second = run_here(*shorter, f"hydra.run.dir={used}")
    earlier = used / f"earlier-{record['id'][:8]}"
    assert f"is now in {earlier}" in second.stderr
    assert kept <= {path.name for path in earlier.iterdir()}
    assert (earlier / "train.log").read_bytes() == log
    assert log not in (used / "train.log").read_bytes()
    assert json.loads((earlier / "run.json").read_text()) == record
    new = json.loads((used / "run.json").read_text())
    assert new["id"] != record["id"]
    assert (len(new["attempts"]), names(used)) == (1, ["step-00000004"])
    for folder, step in ((used, 4), (earlier, 12)):
        assert f"step {step} of" in run_here(f"run={folder}", script="evaluate").stderr
    assert (used / "notes.txt").exists()


def test_points_of_an_attempt_without_checkpoints_are_taken_back(tmp_path):
    args = [*tracked(tmp_path), f"hydra.run.dir={tmp_path}/run", "resume=auto"]
    succeed_here(*args)
    uid = starts(tmp_path / "run")[0]["uid"]
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "lost")
    succeed_here(*args)
    assert read_metrics(tmp_path / "run" / "journal.jsonl")  # each once
    assert {start["uid"] for start in starts(tmp_path / "run")} == {uid}
