"""Runs recorded in MLflow and another service, whose client keeps its files below the project."""

import os
from pathlib import Path

import pytest

from mlxlab.tracking.journal import Journal
from support.tracking import query_store

KEY, TOKEN = "k3y" * 14, "hf_" + "t0ken" * 6


@pytest.fixture
def accounts(project, monkeypatch):
    """Keys that must appear nowhere; the clients keep their own files below the project."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("TRACKIO_DIR", str(project / "trackio"))
    monkeypatch.setenv("HOME", str(project / "home"))


def record(project: Path, **services: object) -> Journal:
    """A run of three steps, a value of an earlier step, a file and a model."""
    folder = project / "outputs" / "a"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    (folder / "summary.md").write_text("summary")
    journal = Journal(experiment="mlxlab", wait=60.0, **services, folder=folder, project=project)
    journal.start({"model": {"width": 8}}, {"kind": "test"})
    journal.log_dataset("rows", "f" * 32, "rows.csv")
    for step in (1, 2, 3):
        journal.log_metrics(step, {"train/loss": 1 / step})
    journal.log_metrics(2, {"test/accuracy": 0.5})
    journal.log_artifact(folder / "summary.md", "report")
    journal.log_model(folder / "checkpoint", 2, {}, None)
    journal.end("FINISHED")
    return journal


def check_no_secret(project: Path, captured: str) -> None:
    for path in (Path(folder, name) for folder, _, names in os.walk(project) for name in names):
        if path.is_file():
            content = path.read_bytes()
            assert KEY.encode() not in content, path
            assert TOKEN.encode() not in content, path
    assert KEY not in captured
    assert TOKEN not in captured


def points_of_mlflow(project: Path) -> list[tuple]:
    return query_store(project, "select step, key, value from metrics order by key, step")
