"""A new folder is there as a whole or not at all, and what a killed process left of it is removed."""

import os
import subprocess
import sys

import pytest

from mlxlab.errors import CannotCreateError
from mlxlab.files.atomic import new_folder, temporary_name
from support.processes import environment

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
    others = [
        left.with_name(left.name.replace("-out", f"-{name}")) for name in ("other", "x-out", "out2")
    ]
    others += [
        temporary_name(tmp_path / "out"),
        tmp_path / ".out-a1b2c3",
        tmp_path / f".tmp-{killed.pid}-mine-out",
    ]
    for other in others:
        other.mkdir()
    link = left.with_name(f".tmp-{killed.pid}-00000000-out")
    link.symlink_to(others[0])
    with new_folder(tmp_path / "out"):
        pass
    assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*others, link, tmp_path / "out"])
    assert os.path.isdir(link)
