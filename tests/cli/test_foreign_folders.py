"""Every command that takes a folder, on one that a stranger wrote: nothing outside of it changes, nothing is sent."""

import json
import os
import resource
import shutil

import pytest

from mlxlab.cli.main import subcommands
from mlxlab.tracking import queue
from support.foreign_runs import (
    change_configs,
    change_states,
    csv,
    journal,
    replace_by_link,
    s3,
    setting,
    surroundings,
)
from support.past_run import CHEAP, past_run
from support.processes import ROOT, run_here
from support.tracking import make_journal, project_fixture, query_store, upload  # noqa: F401

SHORT = ["trainer.max_steps=1", "tracking=none", *CHEAP]
NARROW = ["model.num_layers=1", "model.hidden_size=32", "model.intermediate_size=32"]
COMMANDS = {  # command line, where {F} is the run folder and {OUT} a new path
    "train resume": ["train", "resume={F}", "trainer.max_steps=4"],
    "train resume=auto": ["train", "resume=auto", "hydra.run.dir={F}", "trainer.max_steps=4"],
    "train fork": ["train", "resume={F}", "hydra.run.dir={OUT}", "tracking=none"],
    "train rerun": ["train", "rerun={F}", "trainer.max_steps=1"],
    "train teachers": ["train", "trainer=distill", "trainer.teachers=[{F}]", *SHORT, *NARROW],
    "train init_from": ["train", "model.init_from={F}", *SHORT],
    "reproduce": ["reproduce", "{F}", "out={OUT}"],
    "verify": ["verify", "{F}"],
    "compare": ["compare", "a={F}", "b={F}", "baseline=a", "out={OUT}"],
    "evaluate": ["evaluate", "run={F}"],
    "predict": ["predict", "run={F}", "input=rows.csv", "output={OUT}.csv"],
    "generate": ["generate", "run={F}", "prompt=x"],
    "embed": ["embed", "{F}", "input=rows.csv", "output={OUT}.npy"],
    "export merge": ["export", "merge", "run={F}", "out={OUT}"],
    "export hf": ["export", "hf", "run={F}", "out={OUT}"],
    "export quantize": ["export", "quantize", "run={F}", "out={OUT}", "group_size=32"],
    "info": ["info", "run={F}"],
    "report": ["report", "{F}"],
    "runs show": ["runs", "show", "run={F}"],
    "runs sync": ["runs", "sync", "{F}"],
}
# Commands whose folder holds no run, or that only pass overrides to train.
OTHERS = {
    *("crossvalidate", "doctor", "kernels", "launch", "schema", "ui"),
    *("migrate", "registry"),
    "example_losses",  # It reads Parquet files of a folder.
}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """With credentials that no request may carry."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "SECRET")
    with surroundings(tmp_path / "outside") as outside:
        yield outside


@pytest.fixture
def run_dir(project, monkeypatch):
    """A copy of a finished run, in the project of the user."""
    monkeypatch.chdir(project)
    shutil.copy(ROOT / "src/mlxlab/data/titanic/titanic.csv", "rows.csv")
    folder = shutil.copytree(past_run(), project / "stranger")
    start = {"uid": "0" * 32, "name": "x", "experiment": "x", "params": {}, "tags": {}}
    store = f"sqlite:///{project}/mlruns/mlflow.db"
    start |= {"parent": None, "store": store, "resumed": False}
    (folder / "journal.jsonl").write_text(json.dumps({"t": 1, "start": start}) + "\n")
    return folder


def change_json(path, change):
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def make_hostile(run_dir, outside):
    """Asks in every file of a run folder for what only the user may decide."""
    url, victim = outside.url, outside.victim
    change_configs(
        run_dir,
        setting("callbacks.csv", csv(victim)),
        setting("callbacks.early_stopping", csv(victim)),
        setting("cloud", s3(url)),
        setting("tracking", journal(url)),
        setting("signals.requeue", True),
        setting("trust_folder", True),
    )
    typed = [f"callbacks.csv.path={victim}", "callbacks.csv.allow_outside=true", "cloud=directory"]
    typed += [f"cloud.path={outside.folder}", f"tracking.uri={url}", "trust_folder=true"]
    typed += [f"hydra.run.dir={outside.folder}/run", "hydra.output_subdir=../../outside/x"]
    typed += [f"experiment={os.path.relpath(victim)}"]
    change_json(run_dir / "run.lock", lambda lock: lock["overrides"].extend(typed))
    choices = {"experiment": str(victim), "cloud": "directory"}
    change_json(run_dir / "run.json", lambda run: run["command"]["choices"].update(choices))
    change_json(run_dir / "run.json", lambda run: run["command"]["overrides"].extend(typed))


def run_command(name, run_dir, tmp_path):
    command, *args = [text.format(F=run_dir, OUT=tmp_path / "out") for text in COMMANDS[name]]
    return run_here(*args, script=command)


def test_every_command_is_in_the_table():
    assert {*subcommands()} <= {name.split()[0] for name in COMMANDS} | OTHERS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_touches_nothing_outside_of_a_hostile_folder(name, run_dir, outside, tmp_path):
    make_hostile(run_dir, outside)
    finished = run_command(name, run_dir, tmp_path)
    outside.check()
    assert finished.returncode in (0, 2, 10, 11, 66, 76, 77), finished.stderr
    assert "Traceback" not in finished.stderr


BUILDS_A_MODEL = ["train resume", "train fork", "train rerun", "train teachers", "reproduce"]
BUILDS_A_MODEL += ["verify", "evaluate", "predict", "export hf", "export quantize"]


@pytest.mark.parametrize("name", BUILDS_A_MODEL)
def test_a_command_builds_no_model_that_memory_cannot_hold(name, run_dir, tmp_path):
    change_configs(run_dir, setting("model.hidden_size", 10**6))
    change_states(run_dir, setting("architecture.hidden_size", 10**6))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = run_command(name, run_dir, tmp_path)
    assert refused.returncode in (2, 65, 76, 77), refused.stderr
    assert "Traceback" not in refused.stderr
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024  # KiB


@pytest.mark.parametrize("name", ["train resume", "reproduce", "verify", "evaluate"])
def test_a_command_reads_no_address_that_nobody_typed(name, run_dir, outside, tmp_path):
    change_configs(run_dir, setting("data.source", f"{outside.url}/rows.csv"))
    assert run_command(name, run_dir, tmp_path).returncode == 77
    outside.check()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_a_link_inside_of_a_folder(name, run_dir, outside, tmp_path):
    target = outside.folder / "target"
    replace_by_link(run_dir / ".hydra", target)
    before = sorted(target.iterdir())
    finished = run_command(name, run_dir, tmp_path)
    assert "a symbolic link" in finished.stderr + finished.stdout
    assert finished.returncode == 77, finished.stderr
    assert sorted(target.iterdir()) == before


def register(run_dir, project, monkeypatch):
    """Logs the model of a run folder to the store of the project, as `mine`."""
    from mlflow import MlflowClient

    monkeypatch.setattr(queue, "start_uploading", lambda address: False)
    folder = shutil.copytree(run_dir, project / "outputs" / "mine")
    (folder / "journal.jsonl").unlink()
    journal = make_journal(project, "mine", wait=0.0)
    journal.start({}, {})
    [checkpoint, *_] = sorted(folder.glob("checkpoints/step-*"))
    journal.log_model(checkpoint, 3, {"run": folder / "inference"}, None)
    journal.end("FINISHED")
    upload(journal)
    [(model, run)] = query_store(project, "select model_id, source_run_id from logged_models")
    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    client.create_registered_model("mine")
    client.create_model_version("mine", f"models:/{model}", run)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_model_of_a_store_names_no_address_to_read(run_dir, outside, project, monkeypatch):
    change_configs(run_dir, setting("data.source", f"{outside.url}/rows.csv"))
    register(run_dir, project, monkeypatch)
    assert run_here("run=models:/mine/1", script="evaluate").returncode == 77
    outside.check()
