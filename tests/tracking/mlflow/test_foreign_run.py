"""The journal of a stranger changes its own run in the store and nothing else: no other run, experiment or alias, no
file of the queue's folder or outside of it. What it cannot have is named by the tag `mlxlab.missing`."""

import os
from pathlib import Path

import pytest

from mlxlab.errors import ServiceUnavailableError
from mlxlab.tracking import upload
from support.tracking import (
    T,
    append,
    change_start,
    finished_run,
    log_run,
    query_store,
    queue_of,
)

# Those of MLflow.
pytestmark = [
    pytest.mark.usefixtures("no_syncer"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
BEST = {"step": 1, "files": {}, "signature": None}


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
    journal = log_run(project, "own", wait=0.0)
    sync(project)
    return journal.folder, journal.uid


def tags_of(project: Path, name: str) -> dict[str, str]:
    query = "select key, value from tags join runs using (run_uuid) where name ="
    return dict(query_store(project, f"{query} '{name}'"))


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
    refused = {
        "mlflow.parentRunId": run_id,
        "mlflow.log-model.history": "[]",
        "mlxlab.migrated_from": "x",
    }
    own = {"mlxlab.uid": uid, "mlxlab.folder": str(folder), "mlflow.runName": "own"}
    allowed = {"mlflow.user": "me", "plain": "yes"}
    tags = refused | own | allowed
    change_start(foreign, tags=tags)
    append(foreign, {"t": T, "tags": tags})
    sync(project, foreign)
    stored = tags_of(project, "foreign")
    assert allowed.items() <= stored.items()
    assert not refused.keys() & stored.keys()
    assert stored["mlxlab.uid"] != uid
    assert (stored["mlxlab.folder"], stored["mlflow.runName"]) == (str(foreign), "foreign")
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
    (foreign / "holes").mkdir()
    for name, size in {"hole": 2**43, "holes/0": 2**42, "holes/1": 2**42, "holes/2": 2**42}.items():
        (foreign / name).touch()
        os.truncate(foreign / name, size)
    append(
        foreign,
        *({"t": T, "artifact": {"path": path, "to": ""}} for path in ("hole", "holes")),
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
    # The file system allows 4095 bytes, and the folder of the store is longer.
    path /= "e" * (4080 - len(str(path)))
    path.mkdir(parents=True)
    (path / "file").touch()
    append(foreign, {"t": T, "artifact": {"path": "d", "to": ""}})
    append(foreign, {"t": T, "tags": {"after": "yes"}})
    finished_run(project, "zzz")
    sync(project)
    assert query_store(project, "select status from runs where name = 'zzz'") == [("FINISHED",)]
    assert tags_of(project, "foreign")["after"] == "yes"


@pytest.mark.parametrize("name", ["lock", "handover", "faults.json", "upload.log"])
def test_a_link_or_a_pipe_in_the_queue_is_not_written_through_and_does_not_hang(project, name):
    finished_run(project)
    path = queue_of(project).folder / name
    precious = project / "precious"
    precious.write_text("precious")
    for make in (lambda: path.symlink_to(precious), lambda: os.mkfifo(path)):
        path.unlink(missing_ok=True)
        make()
        assert name in (refusal(project) or name)
    path.unlink(missing_ok=True)
    assert precious.read_text() == "precious"


def test_an_entry_of_the_queue_that_is_a_pipe_does_not_hang(project):
    finished_run(project)
    os.mkfifo(queue_of(project).folder / f"{'0' * 32}.json")
    assert refusal(project) == ""


LONG_DATA = {"name": "n" * 500, "digest": "d" * 5000, "source": "s" * 50_000, "context": "training"}
ODD = {
    "no data": {"dataset": {"name": "", "digest": "", "source": "", "context": "test"}},
    "long data": {"dataset": LONG_DATA},
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
        append(folder, {"t": T} | record, {"t": T, "tags": {"after": "yes"}})
    params = {"": "", "a" * 9999: "b\0" * 9999}
    change_start(finished_run(project, "names"), name="\x1b[2J\n" * 1000, params=params)
    printed = "\n".join(sync(project))
    query = "select name from runs join tags using (run_uuid) where key = 'after'"
    names = {name for (name,) in query_store(project, query)}
    assert names == ODD.keys(), printed
    assert "\x1b" not in printed
    assert all(name.isprintable() for (name,) in query_store(project, "select name from runs"))
