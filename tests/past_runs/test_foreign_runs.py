"""A stranger's run folder that is resumed: what is left out is named; tests/cli tries every command and channel."""

import os
import shutil

import pytest

from mlxlab.config.paths import conf_dir
from mlxlab.inference.restore import restore_model
from mlxlab.past_runs.lookup import read_run_config
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.record.run_file import read_run
from support.foreign_runs import (
    VICTIM,
    change_configs,
    change_states,
    csv,
    directory,
    journal,
    replace_by_link,
    s3,
    setting,
    surroundings,
)
from support.past_run import START, past_run
from support.processes import run_here, succeed_here
from support.run_records import edit_run
from support.tracking import project_fixture, query_store  # noqa: F401

OWN_CALLBACK = """
from mlxlab.training.callback import Callback
from support.run_records import edit_run


class Mine(Callback):
    def __init__(self, *, folder):
        self.folder = folder

    def on_start(self, context, state):
        (self.folder / "mine").touch()
"""
FORWARD = ["trainer.max_steps=4"]  # The run ended at step 3.
CONF = conf_dir()


@pytest.fixture
def run_dir(project, monkeypatch):
    """A copy of a finished run, in the project of the user."""
    monkeypatch.chdir(project)
    return shutil.copytree(past_run(), project / "stranger")


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """With credentials that no request may carry."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "SECRET")
    with surroundings(tmp_path / "outside") as outside:
        yield outside


def resume_auto(folder):
    return ["resume=auto", f"hydra.run.dir={folder}"]


def left_out(finished):
    """The line on what was left out; "" if there is none."""
    lines = [line for line in finished.stderr.splitlines() if "left out: " in line]
    assert len(lines) < 2
    return "".join(lines)


@pytest.mark.parametrize("typed", [[], ["tracking=none"]])
def test_a_run_that_recorded_nothing_or_is_told_to_records_nothing(run_dir, outside, typed):
    if typed:
        change_configs(run_dir, setting("tracking", journal(outside.url)))
    resumed = run_here(f"resume={run_dir}", *FORWARD, *typed)
    assert (resumed.returncode, left_out(resumed)) == (0, "")
    outside.check()
    assert not (run_dir / "journal.jsonl").exists()


@pytest.mark.parametrize("name", ["resume", "auto"])
def test_typed_trust_admits_all_that_the_folder_stores(name, run_dir, tmp_path):
    change_configs(
        run_dir,
        setting("callbacks.csv", csv(tmp_path / "own.csv")),
        setting("cloud", directory(tmp_path / "copies")),
    )
    command = [f"resume={run_dir}"] if name == "resume" else resume_auto(run_dir)
    resumed = run_here(*command, *FORWARD, "trust_folder=true")
    assert (resumed.returncode, left_out(resumed)) == (0, "")
    assert (tmp_path / "own.csv").exists()
    assert list((tmp_path / "copies").rglob("*step-00000004*"))
    lock, record = read_lock(run_dir), read_run(run_dir)
    assert "trust_folder" not in {*lock["config"], *read_run_config(run_dir)}
    assert "trust_folder=true" not in [*lock["overrides"], *record.command.overrides]


def test_what_was_left_out_counts_when_it_is_typed_again(run_dir, tmp_path):
    change_configs(run_dir, setting("callbacks.csv", csv(tmp_path / "own.csv")))
    typed = [f"callbacks.csv.path={tmp_path}/typed.csv", "callbacks.csv.allow_outside=true"]
    resumed = run_here(f"resume={run_dir}", *FORWARD, *typed)
    assert (resumed.returncode, left_out(resumed)) == (0, "")
    assert (tmp_path / "typed.csv").exists()
    assert not (tmp_path / "own.csv").exists()


def test_a_callback_of_ones_own_that_nobody_typed_refuses_the_resume(
    run_dir, tmp_path, monkeypatch
):
    (tmp_path / "own_callback.py").write_text(OWN_CALLBACK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MLXLAB_ALLOWED_TARGETS", "own_callback.Mine")
    change_configs(run_dir, setting("callbacks.mine", {"_target_": "own_callback.Mine"}))
    refused = run_here(f"resume={run_dir}", *FORWARD)
    assert refused.returncode == 77
    assert "callbacks.mine" in refused.stderr
    assert not (run_dir / "mine").exists()
    typed = "+callbacks.mine={_target_: own_callback.Mine}"
    succeed_here(f"resume={run_dir}", *FORWARD, typed)
    assert (run_dir / "mine").exists()
    succeed_here(f"resume={run_dir}", "trainer.max_steps=5", "trust_folder=true")


@pytest.mark.parametrize(
    "name", [".hydra", ".hydra/config.yaml", ".lock", "plots", "checkpoints", "inference", "new"]
)
@pytest.mark.parametrize("trusted", [[], ["trust_folder=true"]], ids=["foreign", "trusted"])
def test_a_link_inside_a_folder_is_refused_before_anything_is_written(
    name, trusted, run_dir, outside
):
    target = outside.folder / "target"
    replace_by_link(run_dir / name, target)
    before = snapshot(target)
    for command in ([f"resume={run_dir}", *trusted], [*resume_auto(run_dir), *trusted]):
        refused = run_here(*command, *FORWARD)
        assert refused.returncode == 77, refused.stderr
        assert f"{run_dir / name}: a symbolic link" in refused.stderr
    assert snapshot(target) == before


def test_a_new_run_does_not_follow_a_link_in_its_folder(run_dir, outside):
    replace_by_link(run_dir / ".hydra" / "config.yaml", outside.folder / "target")
    refused = run_here("tracking=none", f"hydra.run.dir={run_dir}", "trainer.max_steps=1")
    assert refused.returncode == 77
    assert (outside.folder / "target").read_text() == VICTIM


def test_an_option_that_a_folder_names_is_no_path_of_a_file(run_dir, tmp_path, outside):
    evil = tmp_path / "evil.yaml"
    evil.write_text(
        f"# @package _global_\ncallbacks:\n  csv:\n    path: {outside.victim}\n"
        "    allow_outside: true\n"
    )
    choice = {"trainer/loss": os.path.relpath(evil, CONF / "trainer/loss")}
    edit_run(run_dir, lambda record: record.command.choices.update(choice))
    run_here(f"resume={run_dir}", *FORWARD, "trainer.loss.label_smoothing=0.1")
    outside.check()


def test_an_edited_architecture_may_not_build_what_a_config_may_not(run_dir, outside):
    command = f"touch {outside.folder}/ran"
    change_states(
        run_dir, setting("architecture.mlp", {"_target_": "os.system", "command": command})
    )
    refused = run_here(f"resume={run_dir}", *FORWARD)
    assert refused.returncode in (65, 77)
    outside.check()


def test_a_run_of_the_default_store_is_resumed_in_its_mlflow_run(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    start = [text for text in START if text != "tracking=none"]
    folder = tmp_path / "own"
    succeed_here(*start, f"hydra.run.dir={folder}")
    resumed = run_here(f"resume={folder}", *FORWARD)
    assert (resumed.returncode, left_out(resumed)) == (0, "")
    assert query_store(project, "select count(*) from runs") == [(1,)]
    steps = query_store(project, "select max(step) from metrics where key = 'valid/loss'")
    assert steps == [(4,)]


def test_a_store_of_ones_own_is_named_and_left_out_unless_it_is_typed(project, run_dir):
    change_configs(run_dir, setting("tracking", journal(f"sqlite:///{project}/other.db")))
    resumed = run_here(f"resume={run_dir}", *FORWARD)
    assert "tracking.uri" in left_out(resumed)
    assert not (project / "other.db").exists()
    succeed_here(
        f"resume={run_dir}", "trainer.max_steps=5", f"tracking.uri=sqlite:///{project}/other.db"
    )
    assert (project / "other.db").exists()


def snapshot(path):
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {file: file.read_bytes() for file in files if file.is_file()}


def test_names_in_an_edited_history_reach_no_other_file(run_dir, outside):
    curve = [[1, {"$(touch owned)": 1.0}]]
    change_states(run_dir, setting("history.curve", curve))
    change_configs(run_dir, setting("callbacks.csv", csv(outside.victim)))
    resumed = succeed_here(f"resume={run_dir}", *FORWARD)
    assert "callbacks.csv.path" in left_out(resumed)
    outside.check()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture.hidden_size", 64),
        ("architecture.x", {"_target_": "os.system", "command": "touch owned"}),
    ],
)
def test_a_best_checkpoint_of_another_run_is_left_out_of_the_final_evaluation(
    key, value, run_dir, outside
):
    change_states(run_dir, setting("history.best_step", 2))
    change_states(run_dir, setting("history.best", 0.0))
    newest = run_dir / "checkpoints" / "step-00000003"
    shutil.copytree(newest, run_dir / "other" / "checkpoints" / "step-00000002")
    change_states(run_dir / "other", setting("progress.step", 2))
    change_states(run_dir / "other", setting(key, value))
    (run_dir / "other" / "checkpoints" / "step-00000002").rename(newest.with_name("step-00000002"))
    resumed = succeed_here(f"resume={run_dir}/step-3", *FORWARD)
    assert "the final evaluation is of the last step, 4" in resumed.stderr
    outside.check()


def test_a_restored_model_and_its_export_have_nothing_of_what_is_left_out(run_dir, outside):
    services = setting("cloud", s3(outside.url)), setting("tracking", journal(outside.url))
    change_configs(run_dir, *services)
    assert outside.url not in str(restore_model(run_dir).config)
    quantize = ["quantize", f"run={run_dir}", "out=exported", "group_size=32", "evaluate=false"]
    succeed_here(*quantize, script="export")
    assert outside.url not in str(read_run_config(run_dir.parent / "exported"))
    outside.check()
