"""Atomic writes: the old file or the new one, a folder as a whole or not at all, and no leftovers."""

import errno
import os
import subprocess
import sys

import pytest

from mlxlab.errors import CannotCreateError
from mlxlab.files.atomic import (
    new_folder,
    remove_leftovers,
    temporary_name,
    write_atomic,
    write_json,
)
from support.processes import environment


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_atomically(tmp_path, durable):
    path = tmp_path / "a.txt"
    write_atomic(path, "old", durable=durable)
    write_atomic(path, "new \u00e9", durable=durable)
    assert path.read_text(encoding="utf-8") == "new \u00e9"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new", durable=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_leftovers_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getpid()):
        (tmp_path / f".tmp-{process}-0a1b2c3d-a.txt").write_text("incomplete")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".tmp-{os.getpid()}-0a1b2c3d-a.txt"]


def test_not_a_number_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})


KILLED = """
import os, signal, sys
from pathlib import Path
from mlxlab.files.atomic import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "part").write_text("a")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_appears_at_the_end_and_not_after_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "out") as folder:
        (folder / "missing" / "file").write_text("a")
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("a")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(CannotCreateError), new_folder(tmp_path / "out"):
        pass


def test_what_a_killed_process_left_of_the_same_folder_is_removed_and_nothing_else(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "out"], env=environment())
    assert killed.wait() < 0
    [left] = tmp_path.iterdir()
    names = [left.name.replace("-out", f"-{name}") for name in ("other", "x-out", "out2")]
    names += [".out-a1b2c3", f".tmp-{killed.pid}-mine-out"]
    others = [temporary_name(tmp_path / "out"), *(tmp_path / name for name in names)]
    for other in others:
        other.mkdir()
    link = left.with_name(f".tmp-{killed.pid}-00000000-out")
    link.symlink_to(others[0])
    with new_folder(tmp_path / "out"):
        pass
    assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*others, link, tmp_path / "out"])
    assert os.path.isdir(link)
