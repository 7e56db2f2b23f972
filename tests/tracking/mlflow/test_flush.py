"""`runs sync` says what it did: the exit code is that of the folders it was given, and its lines are its own."""

import json

import pytest

from mlxlab.tracking.destination import Entry
from mlxlab.tracking.records import read_uid
from support.tracking import (
    T,
    append,
    change_start,
    finished_run,
    query_store,
    queue_of,
    runs_py,
)

pytestmark = pytest.mark.usefixtures("no_syncer")


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


def test_each_rejected_journal_of_a_folder_is_reported(project):
    folder, other = finished_run(project), finished_run(project, "b")
    renamed = folder / f"journal-{read_uid(other / 'journal.jsonl')}.jsonl"
    for run in (folder, other):
        append(run, {"t": T, "surprise": 1})
    (other / "journal.jsonl").rename(renamed)
    queue_of(project).add(Entry(renamed.stem.removeprefix("journal-"), folder))
    done = runs_py(project, "sync", str(folder))
    assert (done.returncode, done.stderr.count("\n")) == (65, 2), done.stderr
    assert renamed.name in done.stderr


def test_artifacts_that_are_missing_are_named(project):
    folder = finished_run(project)
    paths = ("a\0b\x1b[31m", "x" * 5000)
    append(folder, *({"t": T, "artifact": {"path": path, "to": ""}} for path in paths))
    done = runs_py(project, "sync", str(folder))
    [line] = done.stdout.splitlines()
    assert line.startswith(f"{folder}: complete; artifact a b [31m: cannot be read (embedded null")
    [(missing,)] = query_store(project, "select value from tags where key = 'mlxlab.missing'")
    assert missing.endswith("...: cannot be read (File name too long)")


def test_no_warning_of_mlflow_reaches_the_terminal(project):
    folder = finished_run(project)
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "model.safetensors").write_text("weights")
    inputs = json.dumps([{"type": "integer", "name": "a"}])
    types = {"inputs": inputs, "outputs": json.dumps([{"type": "double"}])}
    model = {"step": 1, "files": {"checkpoint": "checkpoint"}, "signature": types}
    append(folder, {"t": T, "model": model})
    done = runs_py(project, "sync", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert query_store(project, "select name from logged_models") == [("best",)]
