"""The main job in real processes: every family, tracked and not, alone and in a sweep."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mlxlab.record.run_file import read_run
from mlxlab.tracking.records import FILE, read_records
from support.processes import NO_PLOTS, ROOT, environment, succeed, tiny_overrides
from support.run_records import best_metrics

SHORT = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2", "trainer.log_every=1")
SHORT += ["checkpointing.every_steps=2"]
SHORT.remove("checkpointing.every_steps=5")


COMPARED = [setting for setting in SHORT if setting not in ("data.baselines=false", *NO_PLOTS)]


def tracked(folder: Path) -> list[str]:
    """The settings with a store."""
    omitted = ("tracking=none", *NO_PLOTS)
    settings = [setting for setting in SHORT if setting not in omitted]
    return [*settings, f"tracking.uri=sqlite:///{folder}/store.db", "tracking.wait=60"]


def rows(folder: Path, query: str) -> list[tuple]:
    with sqlite3.connect(f"file:{folder}/store.db?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("model", ["bert", "cnn_hybrid", "transformer"])
def test_every_family_writes_the_promised_files_without_tracking(tmp_path, model):
    finished = succeed(*COMPARED, f"model={model}", f"hydra.run.dir={tmp_path}")
    assert "final_state=" in finished.stdout
    assert 0 <= best_metrics(tmp_path)["valid/accuracy"] <= 1
    assert (tmp_path / "report.html").read_text().count("<svg") > 2
    assert "| majority" in (tmp_path / "summary.md").read_text()
    assert read_run(tmp_path).is_evaluated
    assert json.loads((tmp_path / "inference" / "tokenizer.json").read_text())["model"]["vocab"]
    assert not (tmp_path / "journal.jsonl").exists()


TRAIN = "import gc, sys; from mlxlab.cli.train import main; code = main(); print(gc.isenabled()); sys.exit(code)"


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """The run folder and the finished process."""
    folder = tmp_path_factory.mktemp("traced")
    settings = [setting for setting in SHORT if "report" not in setting]
    command = [sys.executable, "-X", "importtime", "-c", TRAIN, *settings]
    command += [f"hydra.run.dir={folder}"]
    env = environment(PYTHONPATH=str(ROOT / "src"))
    return folder, subprocess.run(command, env=env, capture_output=True, text=True, check=True)


def test_training_imports_no_package_that_only_other_commands_need(traced):
    folder, finished = traced
    assert (folder / "report.html").is_file()
    imported = {line.split("|")[-1].strip().split(".")[0] for line in finished.stderr.splitlines()}
    assert {"mlxlab", "numpy", "mlx", "jinja2"} <= imported
    heavy = "scipy sklearn mlflow sqlalchemy datasets transformers matplotlib"
    assert not {*heavy.split()} & imported
    assert finished.stdout.splitlines()[-1] == "True", "garbage is collected again"


def test_the_report_is_imported_after_the_first_step_and_before_training_ends(traced):
    imported = [line.split("|")[-1].strip() for line in traced[1].stderr.splitlines()]
    report = imported.index("mlxlab.views.pages")
    end = imported.index("mlxlab.models.baselines.predict")
    assert imported.index("mlxlab.run.train") < report < end


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    grid = ["-m", "model=bert,cnn_hybrid,transformer", f"hydra.sweep.dir={folder}/jobs"]
    succeed(*grid, *tracked(folder))
    return folder


def test_a_sweep_is_a_parent_run_with_one_child_per_job(sweep):
    tags = rows(sweep, "select run_uuid, value from tags where key = 'mlflow.parentRunId'")
    assert len(tags) == 3
    assert len({parent for _, parent in tags}) == 1
    assert rows(sweep, "select status from runs") == [("FINISHED",)] * 4
    assert len(list((sweep / "jobs").glob("*/run.json"))) == 3


def test_a_tracked_run_has_its_parameters_metrics_and_artifacts_in_the_store(sweep):
    query = "select run_uuid from params where key = 'model._target_' and value like '%.CnnHybrid'"
    (uid,) = rows(sweep, query)[0]
    params = dict(rows(sweep, f"select key, value from params where run_uuid = '{uid}'"))
    tags = dict(rows(sweep, f"select key, value from tags where run_uuid = '{uid}'"))
    metrics = rows(sweep, f"select key, step from metrics where run_uuid = '{uid}'")
    assert params["trainer.max_steps"] == "4"
    assert "model=cnn_hybrid" in tags["mlxlab.overrides"]
    assert "mlflow.source.git.dirty" in tags
    assert len([tag for tag in tags if not tag.startswith("mlflow.")]) <= 10
    assert all(tag.startswith(("mlflow.", "mlxlab.")) for tag in tags)
    assert {("train/loss", step) for step in (1, 2, 3, 4)} <= set(metrics)
    assert {("valid/accuracy", 2), ("valid/accuracy", 4)} <= set(metrics)
    assert len(metrics) == len(set(metrics))
    assert rows(sweep, "select distinct digest from datasets")[0][0]
    (uri,) = rows(sweep, f"select artifact_uri from runs where run_uuid = '{uid}'")[0]
    artifacts = Path(uri.removeprefix("file://"))
    files = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*")}
    assert "summary.md" in files
    assert any(name.startswith("config/") and name.endswith("config.yaml") for name in files)


def test_a_resumed_run_continues_in_its_folder_and_its_mlflow_run(tmp_path):
    settings = tracked(tmp_path)
    succeed(*settings, f"hydra.run.dir={tmp_path}/run")
    resume = f"resume={tmp_path}/run/checkpoints/step-00000002"
    finished = succeed(*settings, "trainer.max_steps=6", resume)
    assert f"run folder: {tmp_path}/run" in finished.stdout
    assert len(rows(tmp_path, "select * from runs")) == 1
    query = "select step, value from metrics where key = 'train/loss' order by step, timestamp"
    points = rows(tmp_path, query)
    # Step 3 is repeated from the same weights. More steps have another schedule, so step 4 differs, and both values stay.
    assert [step for step, _ in points] == [1, 2, 3, 4, 4, 5, 6]
    assert len(set(points)) == len(points)
    logged = [record for record, _ in read_records(tmp_path / "run" / FILE) if "m" in record]
    newest = {each["s"]: each["m"]["train/loss"] for each in logged if "train/loss" in each["m"]}
    assert dict(points) == newest
