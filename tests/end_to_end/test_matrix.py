"""The main job in real processes: every family, tracked and not, alone and in a sweep."""

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mlxlab.record.run_file import read_run
from mlxlab.tracking.records import FILE, read_records
from support.processes import NO_PLOTS, ROOT, environment, succeed, tiny_overrides
from support.run_records import best_metrics

SHORT = tiny_overrides(
    "trainer.max_steps=4",
    "trainer.eval_every=2",
    "checkpointing.every_steps=2",
    "trainer.log_every=1",
)
UNTRACKED = SHORT
COMPARED = [setting for setting in UNTRACKED if setting not in ("data.baselines=false", *NO_PLOTS)]
TRACKED = [
    setting for setting in SHORT if not setting.startswith("tracking") and setting not in NO_PLOTS
]


def store(folder: Path) -> list[str]:
    return [f"tracking.uri=sqlite:///{folder}/store.db", "tracking.wait=60"]


def rows(folder: Path, query: str) -> list[tuple]:
    with sqlite3.connect(f"file:{folder}/store.db?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("model", ["bert", "cnn_hybrid", "transformer"])
def test_every_family_writes_the_promised_files_without_tracking(tmp_path, model):
    finished = succeed(*COMPARED, f"model={model}", f"hydra.run.dir={tmp_path}")
    assert "final_state=" in finished.stdout
    assert 0 <= best_metrics(tmp_path)["valid/accuracy"] <= 1
    assert (tmp_path / "report.html").read_text().count("<svg") > 2
    summary = (tmp_path / "summary.md").read_text()
    assert "| accuracy" in summary
    assert "| majority" in summary
    assert read_run(tmp_path).is_evaluated
    assert json.loads((tmp_path / "inference" / "tokenizer.json").read_text())["model"]["vocab"]
    assert not (tmp_path / "journal.jsonl").exists()


TRAIN = "import gc, sys; from mlxlab.cli.train import main; code = main(); print(gc.isenabled()); sys.exit(code)"


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """The run folder and the finished process."""
    folder = tmp_path_factory.mktemp("traced")
    settings = [setting for setting in UNTRACKED if "report" not in setting]
    command = [sys.executable, "-X", "importtime", "-c", TRAIN, *settings]
    command += [f"hydra.run.dir={folder}"]
    env = environment(PYTHONPATH=str(ROOT / "src"))
    return folder, subprocess.run(command, env=env, capture_output=True, text=True, check=True)


def test_training_imports_no_package_that_only_other_commands_need(traced):
    folder, finished = traced
    assert (folder / "report.html").is_file()
    imported = {line.split("|")[-1].strip().split(".")[0] for line in finished.stderr.splitlines()}
    assert {"mlxlab", "numpy", "mlx", "jinja2"} <= imported
    assert (
        not {"scipy", "sklearn", "mlflow", "sqlalchemy", "datasets", "transformers", "matplotlib"}
        & imported
    )


def test_the_report_is_imported_after_the_first_step_and_before_training_ends(traced):
    imported = [line.split("|")[-1].strip() for line in traced[1].stderr.splitlines()]
    report = imported.index("mlxlab.views.pages")
    end = imported.index("mlxlab.models.baselines.predict")
    assert imported.index("mlxlab.run.train") < report < end


def test_garbage_is_collected_again_once_a_run_has_started(traced):
    assert traced[1].stdout.splitlines()[-1] == "True"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    grid = ["-m", "model=bert,cnn_hybrid,transformer", f"hydra.sweep.dir={folder}/jobs"]
    succeed(*grid, *TRACKED, *store(folder))
    return folder


def test_a_sweep_is_a_parent_run_with_one_child_per_job(sweep):
    tags = rows(sweep, "select run_uuid, value from tags where key = 'mlflow.parentRunId'")
    assert len(tags) == 3
    assert len({parent for _, parent in tags}) == 1
    states = rows(sweep, "select status from runs")
    assert states == [("FINISHED",)] * 4
    assert len(list((sweep / "jobs").glob("*/run.json"))) == 3


def test_a_tracked_run_has_its_parameters_metrics_and_artifacts_in_the_store(sweep):
    (uid,) = rows(
        sweep,
        "select run_uuid from params where key = 'model._target_' and value like '%.CnnHybrid' limit 1",
    )[0]
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
    (digest,) = rows(sweep, "select distinct digest from datasets")[0]
    assert digest
    (uri,) = rows(sweep, f"select artifact_uri from runs where run_uuid = '{uid}'")[0]
    artifacts = Path(uri.removeprefix("file://"))
    files = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*")}
    assert {"summary.md", "config/inference/config.yaml"} <= {
        re.sub(r"^config/(?!inference)", "config/inference/", name) for name in files
    }


def test_a_resumed_run_continues_in_its_folder_and_its_mlflow_run(tmp_path):
    settings = [*TRACKED, *store(tmp_path), f"hydra.run.dir={tmp_path}/run"]
    succeed(*settings)
    longer = [setting for setting in TRACKED if "max_steps" not in setting]
    finished = succeed(
        *longer,
        "trainer.max_steps=6",
        *store(tmp_path),
        f"resume={tmp_path}/run/checkpoints/step-00000002",
    )
    assert f"run folder: {tmp_path}/run" in finished.stdout
    assert len(rows(tmp_path, "select * from runs")) == 1
    points = rows(
        tmp_path,
        "select step, value from metrics where key = 'train/loss' order by step, timestamp",
    )
    # Step 3 is repeated from the same weights. More steps have another schedule, so step 4 differs, and both values stay.
    assert [step for step, _ in points] == [1, 2, 3, 4, 4, 5, 6]
    assert len(set(points)) == len(points)
    logged = [record for record, _ in read_records(tmp_path / "run" / FILE) if "m" in record]
    newest = {each["s"]: each["m"]["train/loss"] for each in logged if "train/loss" in each["m"]}
    assert dict(points) == newest


def test_every_job_of_a_sweep_logs_the_warnings_of_its_data(tmp_path):
    table = tmp_path / "rows.csv"
    row = '{i},{y},3,"Surname{i}, Mr. Name",male,30,0,0,T{i},7.5,,S'
    head = "PassengerId,Survived,Pclass,Name,Sex,Age,SibSp,Parch,Ticket,Fare,Cabin,Embarked"
    table.write_text("\n".join([head, *(row.format(i=i, y=i % 2) for i in range(1, 41)), ""]))
    cache = ROOT / ".cache"
    before = set(cache.iterdir()) if cache.is_dir() else set()
    settings = [*UNTRACKED, f"data.source={table}", f"hydra.run.dir={tmp_path}/run"]
    succeed(*settings)
    made = [path for path in set(cache.iterdir()) - before if path.is_file()]
    for path in made:
        path.write_bytes(b"spoiled")
    succeed(*settings, "-m", "tags.copy=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
    for path in made:
        path.unlink(missing_ok=True)
    assert made
    assert "corrupt" in (tmp_path / "sweep" / "0" / "output.log").read_text()
