"""`mlxlab runs clean`: the best and the newest checkpoint of a finished run stay, and all of any other run."""

import json
import os
import shutil

import pytest

from support.commands import command
from support.past_run import past_run

main = command("runs")


@pytest.fixture
def folder(tmp_path):
    """A finished run with three checkpoints; the last one is the best."""
    folder = shutil.copytree(past_run(), tmp_path / "outputs" / "run")
    checkpoints = folder / "checkpoints"
    for step in (1, 2):
        shutil.copytree(checkpoints / "step-00000003", checkpoints / f"step-{step:08d}")
    return folder


def steps(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_only_the_best_and_the_newest_checkpoint_of_a_finished_run_stay(folder, capsys):
    root = str(folder.parent)
    size = sum(path.stat().st_size for path in (folder / "checkpoints/step-00000001").iterdir())
    assert main(["clean", root, "dry_run=true", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["freed"] == 2 * size
    assert row["used"] > row["freed"]
    assert len(steps(folder)) == 3
    assert main(["clean", root]) == 0
    assert steps(folder) == ["step-00000003"]
    assert main(["clean", root]) == 0
    assert str(folder) in capsys.readouterr().out
    assert steps(folder) == ["step-00000003"]


def test_a_run_that_is_not_finished_keeps_its_checkpoints(folder):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "failed"}))
    assert main(["clean", str(folder)]) == 0
    assert len(steps(folder)) == 3


def test_checkpoints_behind_a_link_stay(folder, tmp_path):
    shutil.move(folder / "checkpoints", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", folder / "checkpoints")
    assert main(["clean", str(folder)]) == 0
    assert len(steps(folder)) == 3
