"""A project folder that is moved or copied keeps the links from its store to artifacts."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.log_model import register_model
from mlxlab.tracking.mlflow.store import open_client, repair_locations
from support.tracking import make_journal, query_store, upload
from tracking.mlflow.test_log_model import code_of_the_installed_package, write_checkpoint  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(name="first")
def first_project(project, code):
    """A project with one run: a file, a model and a registered version."""
    folder = project / "first"
    journal = make_journal(folder, wait=0.0)
    journal.start({}, {})
    checkpoint = write_checkpoint(journal)
    (journal.folder / "summary.md").write_text("summary")
    journal.log_artifact(journal.folder / "summary.md", "report")
    journal.log_model(checkpoint, 7, {"run": journal.folder / "inference"}, None)
    journal.end("FINISHED")
    upload(journal)
    [(run_id,)] = query_store(folder, "select run_uuid from runs")
    register_model(open_client(address(folder)), run_id, "titanic", "champion", None)
    return folder


def address(folder):
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # an open store sets it for MLflow
    return resolve(None, None, folder)


def locations(folder):
    queries = (
        *("select artifact_location from experiments", "select artifact_uri from runs"),
        *("select artifact_location from logged_models", "select source from model_versions"),
        "select value from tags where key = 'mlxlab.folder'",
    )
    return [value for query in queries for (value,) in query_store(folder, query)]


def read_artifacts(folder, target):
    """A file of the run and the files of the registered version, through MLflow's client."""
    client = open_client(address(folder))
    target.mkdir()
    [run] = client.search_runs(["1"])
    summary = client.download_artifacts(run.info.run_id, "report/summary.md", str(target))
    version = client.get_model_version_by_alias("titanic", "champion")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    with open(summary) as file:
        return file.read(), (Path(model.artifact_location) / "MLmodel").is_file()


def test_links_to_artifacts_survive_a_moved_project_folder(first, project):
    second = project / "else where" / "second"
    second.parent.mkdir()
    first.rename(second)
    assert read_artifacts(second, project / "out") == ("summary", True)
    assert not [value for value in locations(second) if str(first) in value]
    assert str(second / "outputs" / "a") in locations(second)
    assert repair_locations(address(second)) == 0
    second.rename(first)
    assert read_artifacts(first, project / "out2") == ("summary", True)


@pytest.fixture(name="small")
def project_without_models(project, no_syncer):
    """A project with one run that has a file."""
    journal = make_journal(project / "small", wait=0.0)
    journal.start({}, {})
    (journal.folder / "summary.md").write_text("summary")
    journal.log_artifact(journal.folder / "summary.md", "report")
    journal.end("FINISHED")
    upload(journal)
    return project / "small"


@pytest.mark.parametrize("name", ["copy", "small/copy"])
def test_a_copy_of_a_project_reads_its_own_artifacts(small, project, name):
    shutil.copytree(small, project / "temporary")
    copy = shutil.move(project / "temporary", project / name)
    before = locations(small)
    assert repair_locations(address(copy)) > 0
    assert all(value.startswith(f"{copy}/") for value in locations(copy))
    assert not [value for value in locations(copy) if f"{copy}/copy" in value]
    assert locations(small) == before


def test_artifacts_that_are_kept_elsewhere_are_left_there(small, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_ARTIFACT_ROOT", str(project / "other"))
    (project / "other").mkdir()
    before = locations(small)
    assert repair_locations(address(small)) == 0
    with closing(sqlite3.connect(small / "mlruns" / "mlflow.db")) as database:
        database.execute(
            "update experiments set artifact_location = 's3://bucket/0' where experiment_id = 0"
        )
        database.commit()
    assert repair_locations(address(small)) == 0
    assert locations(small)[1:] == before[1:]
