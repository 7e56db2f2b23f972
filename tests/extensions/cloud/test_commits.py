"""Commits are visible as a whole or not at all, and whatever is read from a store is checked."""

import pytest

from mlxlab.extensions.cloud.commits import Commits
from mlxlab.extensions.cloud.object_store import (
    DirectoryStore,
    ObjectNotFoundError,
    StorageError,
)
from mlxlab.extensions.cloud.run_files import Snapshots

NAME = "step-00000120"
CONTENTS = {"a.txt": b"alpha", "sub/b.bin": bytes(100_000), "sub/copy.bin": bytes(100_000)}


class FaultyStore(DirectoryStore):
    """Refuses to store after some objects, or stores another byte."""

    puts_left, damages = 1_000, False
    keys: list[str] = []

    def put(self, key, chunks):
        data = b"".join(chunks)
        self.puts_left -= 1
        if self.puts_left < 0:
            raise StorageError(f"{key}: the service answers 503")
        self.keys = [*self.keys, key]
        super().put(key, [data[:-1] + b"?"] if self.damages and "files" in key else [data])


@pytest.fixture
def files(tmp_path):
    snapshots, folder = Snapshots(), tmp_path / "run"
    for name, data in CONTENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return {name: snapshots.take(folder / name, held=False) for name in CONTENTS}


@pytest.fixture
def store(tmp_path):
    return FaultyStore(tmp_path / "store")


def test_an_upload_that_breaks_off_is_invisible_and_continues_with_the_missing_files(store, files):
    store.puts_left = 1
    with pytest.raises(StorageError, match="503"):
        Commits(store, "runs/1").commit(NAME, files)
    assert Commits(store, "runs/1").names() == []
    store.puts_left, store.keys = 1_000, []
    assert Commits(store, "runs/1").commit(NAME, files) == 100_000
    assert store.keys[-1] == f"runs/1/{NAME}.json"
    assert Commits(store, "runs/1").names() == [NAME]


def test_an_object_that_is_not_what_was_sent_is_no_part_of_a_commit(store, files):
    store.damages = True
    with pytest.raises(StorageError, match="another checksum"):
        Commits(store, "runs/1").commit(NAME, files)
    assert Commits(store, "runs/1").names() == []
    store.damages = False
    Commits(store, "runs/1").commit(NAME, files)


def test_retention_keeps_files_that_another_commit_names(store, files):
    commits = Commits(store, "runs/1")
    commits.commit("step-00000001", files)
    commits.commit("step-00000002", {"a.txt": files["a.txt"]})
    commits.retain(["step-00000002"])
    assert commits.names() == ["step-00000002"]
    assert list(store.list("runs/1/files").sizes) == [f"runs/1/files/{files['a.txt'].sha256}"]
    commits.commit("step-00000003", files)  # sends again what was removed
    commits.supersede(["step-00000003"])
    commits.retain([])
    assert commits.names() == []
    assert len(store.list("runs/1/files").sizes) == 2


def test_a_file_that_changes_during_its_upload_is_noticed(store, files):
    files["a.txt"].path.write_bytes(b"other")
    with pytest.raises(StorageError, match="changed while it was uploaded"):
        Commits(store, "runs/1").commit(NAME, files)
    with pytest.raises(ObjectNotFoundError):
        next(store.get(f"runs/1/files/{files['a.txt'].sha256}"))


def test_a_commit_is_fetched_as_it_was_though_a_file_has_grown(store, files, tmp_path):
    with files["a.txt"].path.open("ab") as file:
        file.write(b" and more")
    commits = Commits(store, "runs/1")
    assert commits.commit(NAME, files) == 100_005  # Equal files are sent once.
    commits.fetch(NAME, tmp_path / "new")
    fetched = {name: (tmp_path / "new" / name).read_bytes() for name in CONTENTS}
    assert fetched == CONTENTS
