"""A run folder may come from a stranger: uploading it runs none of its code, reads and writes nothing outside it, and
holds up no other run."""

import os

import pytest

from mlxlab.errors import DataError, UserError
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.destination import Entry
from mlxlab.tracking.records import read_uid
from mlxlab.tracking.upload import sync
from support.tracking import (
    T,
    append,
    change_start,
    finished_run,
    make_journal,
    query_store,
    queue_of,
    runs_py,
    statuses,
    upload,
)

pytestmark = pytest.mark.usefixtures("no_syncer")


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
    assert f"{folder}: complete" in "\n".join(upload(make_journal(project)))
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_folder_that_cannot_be_opened_holds_up_no_other_run(project):
    lost = project / ("x" * 300)  # no file system has such names
    other = finished_run(project)
    queue_of(project).add(Entry("0" * 32, lost))
    printed = list(sync(queue_of(project), []))
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
