"""Damaged and hostile stores, and sources that have changed since: nothing is lost, nothing outside is read."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.commands import command
from support.old_stores.unpack import unpack
from support.tracking import make_project, query_store

main = command("migrate")
COUNT = "select count(*) from runs"

# Warnings of MLflow.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(name="project")
def project_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with make_project(tmp_path, monkeypatch) as project:
        monkeypatch.chdir(project)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlruns/mlflow.db")
        yield project


@pytest.fixture(name="source")
def source_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the installed schema: MLflow need not upgrade it."""
    return unpack(tmp_path_factory.mktemp("old")) / "mlflow-3.17.2-sqlite"


def change(source: Path, *statements: str) -> None:
    with closing(sqlite3.connect(source / "mlflow.db")) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update runs set run_uuid = '../../../x' where name = 'deleted'", "rows of runs hold"),
        ("update metrics set value = 'x' where step = 7", "rows of metrics hold values"),
        ("create view secrets_of as select 1", "it has the view secrets_of"),
        ("update alembic_version set version_num = 'ffffffffffff'", "ffffffffffff"),
        ("drop table metrics", "metrics"),
        ("create trigger x after update on runs begin delete from runs; end", "the trigger x"),
    ],
)
def test_a_store_that_mlflow_does_not_write_is_refused(statement, message, source, project, capsys):
    change(source, statement)
    assert main([f"source={source / 'mlflow.db'}"]) == 65
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert query_store(project, COUNT) == [(0,)]


def test_artifacts_are_read_only_below_a_folder_of_their_run(source, project, tmp_path_factory):
    private = tmp_path_factory.mktemp("private")
    (private / "key").write_text("secret")
    change(source, f"update runs set artifact_uri = '{private}'")
    assert main([f"source={source}"]) == 0
    assert not list((project / "mlruns" / "artifacts").rglob("key"))


def test_a_second_run_adds_what_the_source_has_got_since(source, project):
    change(
        source,
        "delete from metrics where step > 900",
        "update runs set status = 'RUNNING' where name = 'best'",
    )
    older = project / "older"
    shutil.copytree(source, older)
    change(
        source,
        "update runs set status = 'FINISHED', end_time = 7 where name = 'best'",
        "insert into metrics (key, value, timestamp, step, is_nan, run_uuid)"
        " select 'valid/loss', 0.5, 1, 2000, 0, run_uuid from runs where name = 'best'",
    )
    shutil.rmtree(source / "artifacts" / "titanic" / "none", ignore_errors=True)
    assert main([f"source={older}"]) == 0
    assert main([f"source={source}"]) == 0
    query = "select status, end_time from runs where name = 'best'"
    assert query_store(project, query) == [("FINISHED", 7)]
    query = "select value, step from latest_metrics where key = 'valid/loss'"
    assert query_store(project, query) == [(0.5, 2000)]
    assert query_store(project, "select count(*) from metrics where key = 'valid/loss'") == [(901,)]


@pytest.fixture(name="files")
def file_store_fixture(source: Path) -> tuple[Path, Path]:
    """A file store, and the folder of a run in it."""
    store = source.parent / "mlflow-2.22.5-files" / "mlruns"
    [loss] = store.glob("*/*/metrics/valid/loss")
    return store, loss.parents[2]


def test_a_torn_line_and_links_of_a_file_store_are_not_read(files, project):
    store, run = files
    loss = run / "metrics" / "valid" / "loss"
    count = len(loss.read_text().splitlines())
    with loss.open("a") as file:
        file.write("17000000")
    (run / "params" / "linked").symlink_to("/etc/hostname")
    assert main([f"source={store}"]) == 0
    assert query_store(project, "select 1 from params where key = 'linked'") == []
    query = "select count(*) from metrics where key = 'valid/loss'"
    assert query_store(project, query) == [(count,)]


@pytest.mark.parametrize("damage", ["aliases", "pipe"])
def test_a_file_store_that_mlflow_does_not_write_is_refused(damage, files, project, capsys):
    store, run = files
    if damage == "aliases":
        (run / "meta.yaml").write_text("a: &a [1]\nb: *a\n")
    else:
        os.mkfifo(run / "params" / "pipe")
    assert main([f"source={store}"]) == 65
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert query_store(project, COUNT) == [(0,)]


def test_a_run_of_the_central_store_is_not_changed_by_a_store_that_has_its_id(source, project):
    assert main([f"source={source}"]) == 0
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database, database:
        database.execute("delete from tags where key = 'mlxlab.migrated_from'")
    count = query_store(project, "select count(*) from params, tags, metrics")
    change(source, "insert into params select 'forged', 'x', run_uuid from runs")
    assert main([f"source={source}"]) == 0
    assert query_store(project, "select * from params where key = 'forged'") == []
    assert query_store(project, "select count(*) from params, tags, metrics") == count


def test_the_central_store_is_copied_before_the_first_change(source, project, capsys):
    assert main([f"source={source.parent / 'mlflow-2.10.2-sqlite'}"]) == 0
    assert not list((project / "mlruns").glob("*.backup-*"))
    before = query_store(project, COUNT)
    assert main([f"source={source}"]) == 0
    [backup] = (project / "mlruns").glob("*.backup-*")
    assert str(backup) in capsys.readouterr().out
    with closing(sqlite3.connect(backup)) as database:
        assert database.execute(COUNT).fetchall() == before


def test_a_source_that_is_no_store_ends_in_one_line(project, capsys):
    (project / "notes.db").write_text("no database")
    assert main(["source=nowhere"]) == 66
    assert main(["source=notes.db"]) == 65
    assert main([f"source={project}"]) == 66
    assert main(["source=notes.db", "uri=http://server"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4
