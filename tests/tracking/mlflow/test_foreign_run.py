"""The run folder of a stranger: uploading it runs none of its code, reads and writes nothing outside of it, changes no
other run, experiment or alias of the store, and holds up no other run. What cannot be uploaded is named."""

import os
from pathlib import Path

import pytest

from mlxlab.errors import DataError, ServiceUnavailableError, UserError
from mlxlab.tracking import upload
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.destination import Entry
from mlxlab.tracking.records import read_uid
from support.tracking import (
    T,
    append,
    change_start,
    finished_run,
    log_run,
    make_journal,
    query_store,
    queue_of,
    runs_py,
    statuses,
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
    refused = {"mlflow.parentRunId": run_id, "mlflow.log-model.history": "[]"}
    refused |= {"mlxlab.migrated_from": "x"}
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
    append(foreign, *({"t": T, "artifact": {"path": path, "to": ""}} for path in ("hole", "holes")))
    append(foreign, {"t": T, "model": BEST | {"files": {"checkpoint": "hole"}}})
    append(foreign, {"t": T, "tags": {"after": "yes"}})
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


def sync_code(project, folder, *args):
    """The exit code of `runs sync`, and what it prints, on one line at most where it fails."""
    done = runs_py(project, "sync", str(folder), *args)
    assert done.stderr.count("\n") == (done.returncode != 0)
    return done.returncode, done.stderr


def uploaded(project):
    return [path for path in (project / "mlruns" / "artifacts").rglob("*") if path.is_file()]


def test_code_that_a_journal_names_is_not_run(project):
    folder = finished_run(project)
    (folder / "evil.py").write_text(f"open({str(project / 'was_here')!r}, 'w')")
    model = {"step": 1, "files": {}, "signature": None}
    code = {"code": str(folder / "evil.py"), "packages": [], "requirements": []}
    append(folder, {"t": T, "model": model | code}, {"t": T, "model": model})
    runs_py(project, "sync", str(folder))
    assert not (project / "was_here").exists()


def test_nothing_outside_the_run_folder_is_uploaded(project):
    folder = finished_run(project)
    (project / "secret").mkdir()
    (project / "secret" / "key").write_text("secret")
    (folder / "link").symlink_to(project / "secret" / "key")
    (folder / "links").mkdir()
    (folder / "links" / "up").symlink_to(project / "secret")
    os.mkfifo(folder / "links" / "pipe")
    os.mkfifo(folder / "pipe")
    paths = [str(project / "secret"), "../../secret", "../../secret/key", ".", ""]
    paths += ["link", "links", "links/up", "pipe"]
    for number, path in enumerate(paths):
        append(folder, {"t": T, "artifact": {"path": path, "to": f"{number}"}})
    (folder / "good.txt").write_text("good")
    (folder / "inside.txt").symlink_to("good.txt")
    append(folder, {"t": T, "artifact": {"path": "inside.txt", "to": "good"}})
    assert sync_code(project, folder)[0] == 77
    assert f"{folder}: complete" in "\n".join(sync(project, folder))
    assert [path.name for path in uploaded(project)] == ["good.txt"]
    [(missing,)] = query_store(project, "select value from tags where key = 'mlxlab.missing'")
    assert missing.count("leads out of the run folder") == 8
    assert missing.count("expected a regular file") == 1


@pytest.mark.parametrize("name", ["../secret", "link", "checkpoints"])
def test_a_checkpoint_with_a_link_out_of_the_run_folder_is_not_copied(tmp_path, name):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "checkpoints" / "weights").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="leads out of the run folder"):
        copy_artifact(folder, name, tmp_path / "copy")
    assert not [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]


@pytest.mark.parametrize("uid", ["../../../escaped", "/tmp/mlxlab-escaped", "A" * 32, ""])
def test_a_uid_is_not_a_path(project, uid):
    folder = finished_run(project)
    change_start(folder, uid=uid)
    assert sync_code(project, folder)[0] == 65
    assert not list(project.rglob("*escaped*"))


def test_the_store_in_a_journal_is_used_only_if_the_user_names_it(project):
    folder = finished_run(project)
    change_start(folder, store=f"sqlite:///{project}/other/x.db")
    code, message = sync_code(project, folder)
    assert code == 77
    assert f"recorded for uri=sqlite:///{project}/other/x.db" in message
    assert not (project / "other").exists()
    assert sync_code(project, folder, f"uri=sqlite:///{project}/mlruns/mlflow.db")[0] == 0
    assert statuses(project) == ["FINISHED"]


def test_a_renamed_journal_of_another_store_is_refused_too(project):
    folder, other = finished_run(project), finished_run(project, "b")
    change_start(other, store=f"sqlite:///{project}/other/x.db")
    renamed = folder / f"journal-{read_uid(other / 'journal.jsonl')}.jsonl"
    (other / "journal.jsonl").rename(renamed)
    code, message = sync_code(project, folder)
    assert code == 77
    assert f"{renamed}: recorded for uri=sqlite:///{project}/other/x.db" in message
    assert statuses(project) == []


BAD_LINES = {
    "step": {"t": T, "s": 2**70, "m": {"x": 1.0}},
    "negative step": {"t": T, "s": -1, "m": {"x": 1.0}},
    "time": b'{"t": 1e30, "s": 2, "m": {"x": 1.0}}',
    "large time": {"t": 10**30, "s": 2, "m": {"x": 1.0}},
    "value": {"t": T, "s": 2, "m": {"x": [1.0]}},
    "tag": {"t": T, "tags": {"a": {"b": 1}}},
    "surrogate": {"t": T, "tags": {"a": "\ud800"}},
    "depth": b'{"t": 1, "tags": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "text": b"\xff\xfe",
    "zeros": bytes(100),
    "kind": {"t": T, "surprise": 1},
    "rewind": {"t": T, "rewind": 0},
    "no start": {},
}


def test_a_malformed_journal_is_rejected_in_one_line_and_other_runs_are_uploaded(project):
    folders = {name: finished_run(project, name) for name in BAD_LINES}
    for name, line in BAD_LINES.items():
        append(folders[name], line)
    (folders["no start"] / "journal.jsonl").write_text('{"t": 1, "s": 1, "m": {"x": 1.0}}\n')
    last = finished_run(project, "zzz")
    done = runs_py(project, "sync")
    assert done.returncode == 0, done.stderr
    assert f"{last}: complete" in done.stdout
    assert query_store(project, "select status from runs where name = 'zzz'") == [("FINISHED",)]
    for folder in folders.values():
        assert done.stdout.count(f"{folder}: rejected: ") == 1, (folder, done.stdout)


def test_a_run_folder_that_cannot_be_opened_holds_up_no_other_run(project):
    lost = project / ("x" * 300)  # no file system has such names
    other = finished_run(project)
    queue_of(project).add(Entry("0" * 32, lost))
    printed = sync(project)
    assert f"{other}: complete" in printed
    assert f"{lost}: rejected: File name too long: {lost}" in "\n".join(printed)


def test_a_journal_that_is_no_regular_file_is_neither_read_nor_appended_to(project):
    path = finished_run(project) / "journal.jsonl"
    elsewhere = path.rename(project / "elsewhere.jsonl")
    before = elsewhere.read_bytes()
    for make in (lambda: path.symlink_to(elsewhere), lambda: os.mkfifo(path)):
        path.unlink(missing_ok=True)
        make()
        assert sync_code(project, path.parent)[0] == 77
        with pytest.raises(UserError):
            make_journal(project).start({}, {})
    assert elsewhere.read_bytes() == before


def test_a_rejected_folder_on_the_command_line_exits_with_65_and_all_others_are_uploaded(project):
    names = ("empty", "long", "dataset", "uid", "good", "unnamed")
    folders = {name: finished_run(project, name) for name in names}
    change_start(folders["empty"], experiment="")
    change_start(folders["long"], experiment="x" * 501)
    data = {"name": "x" * 501, "digest": "0", "source": "s", "context": "test"}
    append(folders["dataset"], {"t": T, "dataset": data})
    change_start(folders["uid"], uid="../escaped")
    append(folders["unnamed"], {"t": T, "surprise": 1})
    unnamed = folders.pop("unnamed")
    uri = f"uri=sqlite:///{project}/mlruns/mlflow.db"
    done = runs_py(project, "sync", *map(str, folders.values()), uri)
    assert done.returncode == 65, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    for name in ("empty", "long", "dataset", "uid"):
        assert len([line for line in lines if str(folders[name]) in line]) == 1, done.stderr
        assert f"{folders[name]}: rejected" not in done.stdout
    assert f"{unnamed}: rejected: " in done.stdout
    assert f"{folders['good']}: complete\n" in done.stdout
    assert query_store(project, "select status from runs where name = 'good'") == [("FINISHED",)]
    assert runs_py(project, "sync").returncode == 0  # nobody asked for these folders


def test_artifacts_that_are_missing_are_named(project):
    folder = finished_run(project)
    paths = ("a\0b\x1b[31m", "x" * 5000)
    append(folder, *({"t": T, "artifact": {"path": path, "to": ""}} for path in paths))
    done = runs_py(project, "sync", str(folder))
    [line] = done.stdout.splitlines()
    assert line.startswith(f"{folder}: complete; artifact a b [31m: cannot be read (embedded null")
    [(missing,)] = query_store(project, "select value from tags where key = 'mlxlab.missing'")
    assert missing.endswith("...: cannot be read (File name too long)")
