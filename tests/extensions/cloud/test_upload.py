"""Uploads in the background: what is new goes up, a failure ends nothing, and what is missing is named."""

import os
import time

import pytest

from mlxlab.errors import WriteError
from mlxlab.extensions.cloud.commits import Commits
from mlxlab.extensions.cloud.object_store import DirectoryStore, StorageError
from mlxlab.extensions.cloud.upload import Uploads


class Folders:
    """A `Source`: each folder in a folder is a set of files."""

    def __init__(self, folder):
        self.folder = folder

    def names(self):
        return sorted(os.listdir(self.folder), reverse=True)

    def mark(self, name):
        return f"{name}/content"

    def files(self, name):
        return [f"{name}/content"], []

    def retained(self, names, keep):
        return sorted(names, reverse=True)[:keep]

    def superseded(self, names):
        return [name for name in names if name > max(self.names())]


class UnreliableStore(DirectoryStore):
    """Stores nothing before it is `up`."""

    up = True

    def put(self, key, chunks):
        if not self.up:
            raise StorageError(f"{key}: cannot be reached")
        super().put(key, chunks)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "sets").mkdir()
    return Folders(tmp_path / "sets")


@pytest.fixture
def store(tmp_path):
    return UnreliableStore(tmp_path / "store")


def add(source, name, content="content"):
    (source.folder / name).mkdir(exist_ok=True)
    (source.folder / name / "content").write_text(f"{name} {content}")


def uploads(source, store, *, keep=2, wait=0.3, required=False):
    return Uploads(Commits(store, "run"), source, keep=keep, wait=wait, required=required)


def test_every_set_goes_up_and_the_newest_stay(source, store):
    with uploads(source, store) as background:
        for name in ("a", "b", "c"):
            add(source, name)
            until(lambda name=name: name in Commits(store, "run").names())
    assert Commits(store, "run").names() == ["b", "c"]
    assert len(store.list("run/files").sizes) == 2
    assert background.pending() == []


def test_what_a_process_left_is_uploaded_by_the_next_one(source, store, caplog):
    caplog.set_level("INFO")
    add(source, "a")
    store.up = False
    with uploads(source, store):
        pass
    assert "a not uploaded (run/files/" in caplog.text
    assert "cannot be reached" in caplog.text
    store.up = True
    with uploads(source, store) as background:
        pass
    assert Commits(store, "run").names() == ["a"]
    assert "cloud: 1 checkpoint (0.0 MB) sent" in caplog.text
    with uploads(source, store) as background:
        pass
    assert background.sent == 0


def test_a_required_store_fails_the_run_at_its_end(source, store):
    add(source, "a")
    store.up = False
    with pytest.raises(WriteError, match="a not uploaded"), uploads(source, store, required=True):
        pass


def test_another_set_of_the_same_name_replaces_it_and_newer_ones_are_set_aside(source, store):
    for name in ("a", "b"):
        add(source, name)
    with uploads(source, store):
        pass
    (source.folder / "b" / "content").unlink()
    (source.folder / "b").rmdir()
    add(source, "a", "after another resume")
    with uploads(source, store):
        pass
    assert Commits(store, "run").names() == ["a"]
    assert len(store.list("run/superseded").sizes) == 1
    Commits(store, "run").fetch("a", source.folder.parent / "new")
    assert (source.folder.parent / "new" / "a" / "content").read_text() == "a after another resume"


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
