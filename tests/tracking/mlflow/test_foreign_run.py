"""The journal of a stranger changes its own run in the store and nothing else: no other run, experiment or alias, no
file of the queue's folder or outside of it. What it cannot have is named by the tag `mlxlab.missing`."""

import os
from pathlib import Path

import pytest

from mlxlab.errors import ServiceUnavailableError
from mlxlab.tracking import queue, upload
from support.tracking import (
    T,
    append,
    change_start,
    finished_run,
    make_journal,
    project_fixture,  # noqa: F401
    query_store,
    queue_of,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # of MLflow
BEST = {"step": 1, "files": {}, "signature": None}


@pytest.fixture(autouse=True)
def no_syncer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "start_uploading", lambda queue: False)


def sync(project: Path, *folders: Path) -> list[str]:
    """What `runs sync FOLDER ...` prints."""
    return list(upload.sync(queue_of(project), [*folders]))


def refusal(project: Path) -> str:
    """The message if nothing can be uploaded, or ""."""
    try:
        sync(project)
    except ServiceUnavailableError as error:
        return str(error)
    return ""


def own_run(project: Path) -> tuple[Path, str]:
    """The folder of a run of the user that is in the store, and its uid."""
    journal = make_journal(project, "own", wait=0.0)
    journal.start({"seed": 1}, {"note": "mine"})
    journal.log_metrics(1, {"x": 1.0})
    journal.end("FINISHED")
    sync(project)
    return journal.folder, journal.uid


def tags_of(project: Path, name: str) -> dict[str, str]:
    return dict(
        query_store(
            project, f"select key, value from tags join runs using (run_uuid) where name = '{name}'"
        )
    )


def everything_of(project: Path, name: str) -> list[list[tuple[object, ...]]]:
    run = f"(select run_uuid from runs where name = '{name}')"
    tables = ("runs", "tags", "params", "metrics", "latest_metrics")
    return [
        query_store(project, f"select * from {table} where run_uuid = {run} order by 1, 2, 3")
        for table in tables
    ]


def test_a_journal_with_the_uid_of_another_run_does_not_reach_that_run(project):
    _, uid = own_run(project)
    before = everything_of(project, "own")
    foreign = finished_run(project, "foreign")
    change_start(foreign, uid=uid, tags={"note": "not yours"}, params={"seed": "2"})
    append(foreign, {"t": T, "s": 9, "m": {"x": 9.0}}, {"t": T, "end": "FAILED"})
    with pytest.raises(Exception, match=f"another run in the store has the id {uid}"):
        sync(project, foreign)
    assert everything_of(project, "own") == before


def test_tags_that_place_a_run_are_not_taken_from_a_journal(project):
    folder, uid = own_run(project)
    [(run_id,)] = query_store(project, "select run_uuid from runs")
    foreign = finished_run(project, "foreign")
    tags = {
        "mlxlab.uid": uid,
        "mlxlab.folder": str(folder),
        "mlflow.parentRunId": run_id,
        "mlflow.runName": "own",
    }
    tags |= {
        "mlflow.log-model.history": "[]",
        "mlxlab.migrated_from": "x",
        "mlflow.user": "me",
        "plain": "yes",
    }
    change_start(foreign, tags=tags)
    append(foreign, {"t": T, "tags": tags})
    sync(project, foreign)
    stored = tags_of(project, "foreign")
    assert stored["mlxlab.uid"] != uid
    assert stored["mlxlab.folder"] == str(foreign)
    assert stored["plain"] == "yes"
    assert stored["mlflow.user"] == "me"
    assert not stored.keys() & {
        "mlflow.parentRunId",
        "mlflow.log-model.history",
        "mlxlab.migrated_from",
    }
    assert stored["mlflow.runName"] == "foreign"
    assert "mlflow.parentRunId" in stored["mlxlab.missing"]


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "mlxlab/0/artifacts", ".."])
def test_an_experiment_keeps_its_artifacts_in_one_folder_of_its_own(project, name):
    foreign = finished_run(project, "foreign")
    change_start(foreign, experiment=name)
    sync(project, foreign)
    query = "select artifact_location from experiments where experiment_id > 0"
    for (location,) in query_store(project, query):
        assert Path(location).parent == project / "mlruns" / "artifacts"


def test_a_huge_sparse_artifact_does_not_fill_the_disk(project):
    foreign = finished_run(project, "foreign")
    (foreign / "hole").touch()
    os.truncate(foreign / "hole", 2**43)
    (foreign / "holes").mkdir()
    for number in range(3):
        (foreign / "holes" / str(number)).touch()
        os.truncate(foreign / "holes" / str(number), 2**42)
    append(
        foreign,
        {"t": T, "artifact": {"path": "hole", "to": ""}},
        {"t": T, "artifact": {"path": "holes", "to": ""}},
    )
    append(
        foreign,
        {"t": T, "model": BEST | {"files": {"checkpoint": "hole"}}},
        {"t": T, "tags": {"after": "yes"}},
    )
    sync(project, foreign)
    tags = tags_of(project, "foreign")
    assert tags["after"] == "yes"
    assert tags["mlxlab.missing"].count("free") == 3


def test_an_artifact_whose_path_is_too_long_in_the_store_holds_up_no_other_run(project):
    foreign = finished_run(project, "foreign")
    path = foreign / "d"
    while len(str(path)) < 3800:
        path /= "d" * 200
    path /= "e" * (
        4080 - len(str(path))
    )  # the file system allows 4095 bytes, and the folder of the store is longer
    path.mkdir(parents=True)
    (path / "file").touch()
    append(
        foreign, {"t": T, "artifact": {"path": "d", "to": ""}}, {"t": T, "tags": {"after": "yes"}}
    )
    finished_run(project, "zzz")
    sync(project)
    assert query_store(project, "select status from runs where name = 'zzz'") == [("FINISHED",)]
    assert tags_of(project, "foreign")["after"] == "yes"


@pytest.mark.parametrize("name", ["lock", "handover", "faults.json", "upload.log"])
def test_a_link_in_the_queue_is_not_written_through(project, name):
    finished_run(project)
    folder = queue_of(project).folder
    (project / "precious").write_text("precious")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(project / "precious")
    assert name in (refusal(project) or name)
    (folder / name).unlink(missing_ok=True)
    assert (project / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["lock", "handover", "faults.json", f"{'0' * 32}.json"])
def test_a_pipe_in_the_queue_does_not_hang(project, name):
    finished_run(project)
    folder = queue_of(project).folder
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert name in (refusal(project) or name)
    (folder / name).unlink(missing_ok=True)


ODD = {
    "no data": {"dataset": {"name": "", "digest": "", "source": "", "context": "test"}},
    "long data": {
        "dataset": {
            "name": "n" * 500,
            "digest": "d" * 5000,
            "source": "s" * 50_000,
            "context": "training",
        }
    },
    "null": {"tags": {"a\0b": "a\0b"}},
    "no key": {"tags": {"": "x"}},
    "long tags": {"tags": {"k" * 5000: "v" * 100_000}},
    "many": {"tags": {f"k{number}": "" for number in range(5000)}},
    "signature": {"model": BEST | {"signature": {"inputs": "[" * 100_000, "outputs": "{}"}}},
    "model file": {"model": BEST | {"files": {"../../x": "../../x", "": ""}}},
    "model step": {"model": BEST | {"step": 2**53}},
    "metrics": {"s": 2**53, "m": {"": "NaN", "a" * 1000: "Infinity", "../b": 1e308, "c": 2**63}},
    "truncate": {"truncate_after": -1},
    "to": {"artifact": {"path": "plot.txt", "to": "../../../../" + "x/" * 3000}},
}


def test_odd_but_valid_records_hold_up_neither_their_run_nor_others(project):
    for name, record in ODD.items():
        folder = finished_run(project, name)
        (folder / "plot.txt").write_text("plot")
        append(
            folder,
            {"t": T} | record,
            {"t": T, "tags": {"after": "yes"}},
            {"t": T, "end": "FINISHED"},
        )
    change_start(
        finished_run(project, "names"),
        name="\x1b[2J\n" * 1000,
        params={"": "", "a" * 9999: "b\0" * 9999},
    )
    printed = "\n".join(sync(project))
    query = "select name from runs join tags using (run_uuid) where key = 'after'"
    names = {name for (name,) in query_store(project, query)}
    assert names == ODD.keys(), printed
    assert "\x1b" not in printed
    assert all(name.isprintable() for (name,) in query_store(project, "select name from runs"))
