"""Stores made by real MLflow releases move into the central one, with everything that the release reads back."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mlxlab.extensions.store_migration.migration import Result, find_stores, migrate
from mlxlab.tracking.mlflow.address import Address, resolve
from mlxlab.tracking.mlflow.store import open_client
from support.old_stores.describe import describe
from support.old_stores.unpack import unpack
from support.tracking import make_project

# Warnings of MLflow.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

VERSIONS = ("1.30.1", "2.10.2", "2.22.5", "3.17.2")
STORES = [f"mlflow-{version}-{kind}" for version in VERSIONS for kind in ("sqlite", "files")]


@pytest.fixture(name="stores", scope="module")
def stores_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old stores, in another folder than the one they were made in."""
    return unpack(tmp_path_factory.mktemp("old"))


@pytest.fixture(name="project")
def project_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with make_project(tmp_path, monkeypatch) as project:
        yield project


def address(project: Path) -> Address:
    return resolve(None, None, project)


def move(project: Path, source: Path, *, dry_run: bool = False) -> list[Result]:
    central = address(project)
    assert central.database
    stores = find_stores(source, central.database)
    results, _ = migrate(stores, central, dry_run=dry_run)
    return results


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path): f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in files
    }


def read_back(project: Path) -> dict[str, Any]:
    """What the installed MLflow reads, without the tag that migrations add."""
    content = describe(open_client(address(project)))
    for experiment in content["experiments"].values():
        for run in experiment["runs"].values():
            del run["tags"]["mlxlab.migrated_from"]
        for model in experiment["logged_models"].values():
            del model[5]["mlxlab.migrated_from"]
    return content


def rows(project: Path) -> int:
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        counts = [database.execute(f"select count(*) from {name}") for (name,) in tables]
        return sum(each.fetchone()[0] for each in counts)


QUICK = ("mlflow-2.10.2-files", "mlflow-3.17.2-sqlite")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in STORES],
)
def test_everything_moves_once_and_the_source_stays_as_it_is(name, stores, project):
    before = checksums(stores / name)
    expected = json.loads((stores / name / "expected.json").read_text())
    (result,) = move(project, stores / name)
    assert (result.error, result.left_out) == (None, [])
    content = read_back(project)
    for experiment, values in expected["experiments"].items():
        assert content["experiments"][experiment] == values
    assert content["models"] == expected["models"]
    count, files = rows(project), checksums(project / "mlruns" / "artifacts")
    (again,) = move(project, stores / name)
    assert (again.rows, again.files) == ({}, 0)
    assert not list((project / "mlruns").glob("*.backup-*"))
    assert (rows(project), checksums(project / "mlruns" / "artifacts")) == (count, files)
    assert checksums(stores / name) == before


def test_a_dry_run_reports_the_same_and_creates_nothing(stores, project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for name in ("mlflow-1.30.1-files", "mlflow-3.17.2-sqlite"):
        shutil.copytree(stores / name, folder / name)
    planned = move(project, folder, dry_run=True)
    assert list(project.iterdir()) == []
    done = move(project, folder)
    assert planned == done
    assert len(done) == 2
