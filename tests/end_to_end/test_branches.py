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


@pytest.fixture(scope="module")
def uninterrupted(finished):
    return finished[1]


def tracked(project):
    store = [
        f"tracking.uri=sqlite:///{project}/mlflow.db",
        f"tracking.artifacts={project}/artifacts",
    ]
    return ["tracking=mlflow", *store, "tracking.wait=0", "tracking.log_models=false"]


def starts(folder):
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [line["start"] for line in lines if "start" in line]


def test_a_fork_trains_in_a_new_folder_as_a_run_of_its_own(tmp_path, source, uninterrupted):
    untouched = names(source)
    settings = [setting for setting in SETTINGS if not setting.startswith("tracking")]
    fork = succeed_here(
        *settings, *tracked(tmp_path), f"resume={source}/step-8", f"hydra.run.dir={tmp_path}/fork"
    )
    assert final_state(fork) == uninterrupted
    assert names(source) == untouched
    [start] = starts(tmp_path / "fork")
    assert start["params"]["choices.model"] == "bert"
    assert start["tags"]["mlxlab.forked_from"] == f"{source}/checkpoints/step-00000008"
    record = json.loads((tmp_path / "fork" / "run.json").read_text())
    assert {"kind": "checkpoint", "of": f"{source}/checkpoints/step-00000008"} in record["parents"]
    succeed_here("run=" + str(tmp_path / "fork"), script="evaluate")
    assert (
        run_here("run=" + str(tmp_path / "fork"), script="verify").stdout.splitlines()[-1]
        == "verified"
    )


def test_newer_checkpoints_are_set_aside_before_a_branch_is_trained(used, uninterrupted):
    branch = succeed_here(*SETTINGS, f"hydra.run.dir={used}", "resume=step-8")
    assert "set aside step-00000012" in branch.stderr
    assert final_state(branch) == uninterrupted
    assert any(name.startswith("superseded-step-00000012") for name in names(used))


def test_a_new_run_in_a_used_folder_moves_the_earlier_one_into_a_folder_inside(used):
    left = {path.name for path in used.iterdir()} - {".hydra", ".lock", "STATUS.finished"}
    summary, facts = (
        (used / "summary.md").read_text(),
        json.loads((used / "run.json").read_text()),
    )
    log = (used / "train.log").read_bytes()
    (used / "notes.txt").write_text("of the user")
    shorter = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=4", "seed=5", *CHEAP)
    second = run_here(*shorter, f"hydra.run.dir={used}")
    earlier = used / f"earlier-{facts['id'][:8]}"
    assert (
        f"the earlier run of this folder, {facts['id'][:8]}, is now in {earlier}" in second.stderr
    )
    assert left <= {path.name for path in earlier.iterdir()}
    assert (earlier / "train.log").read_bytes() == log
    assert "the earlier run of this folder" in (used / "train.log").read_text()
    assert log not in (used / "train.log").read_bytes()
    assert (earlier / "summary.md").read_text() == summary
    assert json.loads((earlier / "run.json").read_text()) == facts
    new = json.loads((used / "run.json").read_text())
    assert (new["id"] != facts["id"], len(new["attempts"]), names(used)) == (
        True,
        1,
        ["step-00000004"],
    )
    for folder, step in ((used, 4), (earlier, 12)):
        assert f"step {step} of" in run_here(f"run={folder}", script="evaluate").stderr
    assert (used / "notes.txt").exists()


def test_points_of_an_attempt_without_checkpoints_are_taken_back(tmp_path):
    settings = [setting for setting in SETTINGS if not setting.startswith("tracking")]
    args = [*settings, *tracked(tmp_path), f"hydra.run.dir={tmp_path}/run", "resume=auto"]
    succeed_here(*args)
    uid = starts(tmp_path / "run")[0]["uid"]
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "lost")
    succeed_here(*args)
    assert read_metrics(tmp_path / "run" / "journal.jsonl")  # each once
    assert {start["uid"] for start in starts(tmp_path / "run")} == {uid}


def test_choices_are_parameters_and_stay_those_of_the_start_on_resume(tmp_path):
    options = ["trainer/optimizer=lion", "trainer.max_steps=4", "checkpointing.every_steps=4"]
    settings = [
        setting for setting in tiny_overrides(*options) if not setting.startswith("tracking")
    ]
    folder = [*tracked(tmp_path), f"hydra.run.dir={tmp_path}/run"]
    succeed_here(*settings, *folder)
    succeed_here(*folder, "resume=auto", "trainer.max_steps=6")
    choices = [start["params"]["choices.trainer/optimizer"] for start in starts(tmp_path / "run")]
    assert choices == ["lion", "lion"]


def test_a_resume_keeps_the_name_of_the_run_and_a_fork_does_not(tmp_path):
    folder, fork = f"hydra.run.dir={tmp_path}/run", f"hydra.run.dir={tmp_path}/fork"
    settings = [*tiny_overrides("trainer.max_steps=2"), "name=mine"]
    for args in ([*settings, folder], [folder, "resume=auto", "trainer.max_steps=4"]):
        succeed_here(*args)
        assert json.loads((tmp_path / "run" / "run.json").read_text())["name"] == "mine"
    succeed_here(f"resume={tmp_path}/run", fork, "trainer.max_steps=6")
    assert json.loads((tmp_path / "fork" / "run.json").read_text())["name"] == "bert-titanic-simple"


def test_emergency_checkpoints_have_the_same_names_for_all_commands(tmp_path, source):
    for name in ("last", "best", "step-8", f"{source}/checkpoints/step-00000008"):
        succeed_here(f"run={source}", f"checkpoint={name}", script="evaluate")
    missing = run_here(f"run={source}", "checkpoint=step-7", script="evaluate")
    assert (missing.returncode, missing.stderr.count("\n")) == (76, 1)
