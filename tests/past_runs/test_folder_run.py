"""A run that no store has is shown and compared by its folder, which anyone may have written."""

import json
import os
import shutil
from dataclasses import asdict

import pytest

from mlxlab.record.run_file import read_run
from support.commands import command
from support.past_run import past_run
from support.run_records import attempt_of

main = command("runs")


@pytest.fixture(name="folder")
def copied_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    shutil.copytree(past_run(), tmp_path / "run")
    return tmp_path / "run"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_without_a_store_is_shown_and_compared_by_its_folder(folder, capsys, tmp_path):
    assert main(["show", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["status"], shown["folder"]) == ("first", "FINISHED", str(folder))
    assert shown["params"]["trainer.max_steps"] == "3"
    training = read_run(folder).training
    assert shown["metrics"]["valid/loss"] == training.final["valid/loss"]
    assert shown["datasets"]

    other = shutil.copytree(folder, tmp_path / "other")
    config = other / "inference" / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 3", "max_steps: 4"))
    assert main(["diff", str(folder), str(other), "--json"]) == 0
    difference = json.loads(capsys.readouterr().out)
    assert difference["config"] == {"trainer.max_steps": ["3", "4"]}
    assert (difference["data"], difference["code"]) == ({}, {})
    assert main(["diff", str(folder), str(other)]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(line for line in lines if line.startswith("| best"))
    assert first.split()[3] == "valid/loss"
    assert f"{training.best:.4g}" in first
    assert not (tmp_path / "none.db").exists()


def test_run_folders_are_listed_and_found_by_their_id_without_a_store(
    folder, capsys, tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    uid = read_run(folder).id
    for path in (tmp_path / "outputs" / "mine", tmp_path / "multirun" / "x" / "0"):
        shutil.copytree(folder, path)
    (tmp_path / "multirun" / "x" / "0" / "run.json").write_text("{")
    for module in ("cli.runs", "past_runs.lookup"):
        monkeypatch.setattr(f"mlxlab.{module}.project_root", lambda: tmp_path)
    assert main(["list", "--json"]) == 0
    [listed] = json.loads(capsys.readouterr().out)
    assert (listed["run_id"], listed["name"]) == (uid, "first")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    assert main(["list", f"in={tmp_path / 'run'}", "--json"]) == 0
    [named] = json.loads(capsys.readouterr().out)
    assert named["folder"] == str(tmp_path / "run")
    assert main(["list", f"in={tmp_path}", "experiment=mlxlab"]) == 2
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["show", uid[:8], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == listed["folder"]
    assert not (tmp_path / "mlruns").exists()


def replace(path, make):
    path.unlink()
    make(path)


# Other damages of `run.json` are in tests/record and tests/files.
FOREIGN = {
    "pipe": lambda folder: replace(folder / "run.json", os.mkfifo),
    "deep": lambda folder: (folder / "run.json").write_text("[" * 100_000 + "]" * 100_000),
    "nan": lambda folder: edit(folder / "run.json", config={"seed": float("nan")}),
    "folder": lambda folder: replace(folder / "run.json", os.mkdir),
    "target": lambda folder: (folder / "inference" / "config.yaml").write_text(
        "model: {_target_: os.system}"
    ),
}


@pytest.mark.parametrize("damage", FOREIGN)
@pytest.mark.parametrize("command", ["show", "diff"])
def test_a_foreign_folder_is_refused_in_one_line(folder, command, damage, capsys):
    FOREIGN[damage](folder)
    code = main([command, *[str(folder)] * (1 + (command == "diff"))])
    message = capsys.readouterr().err
    assert (code in (65, 66, 77), message.count("\n")) == (True, 1), message
    assert "Traceback" not in message


def test_a_time_that_is_none_is_refused_by_its_field(folder, capsys):
    edit(folder / "run.json", attempts=[asdict(attempt_of(start=1e300))])
    assert main(["show", str(folder)]) == 65
    assert "run.json: attempts[0].start: " in capsys.readouterr().err
