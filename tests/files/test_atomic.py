"""Atomic writes: the old file or the new one, never a mixture, and no leftovers."""

import errno
import os
import subprocess
import sys

import pytest

from mlxlab.files.atomic import remove_leftovers, write_atomic, write_json


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
