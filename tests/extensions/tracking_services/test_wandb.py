"""Runs in Weights & Biases, offline, next to MLflow."""

import json

import pytest

from mlxlab.extensions.tracking_services.wandb import Wandb
from support.services import accounts, check_no_secret, points_of_mlflow, record  # noqa: F401
from support.tracking import project_fixture  # noqa: F401
from support.wandb_files import read_wandb_records

pytest.importorskip("wandb", reason="needs the extra wandb")
pytestmark = pytest.mark.usefixtures("accounts", "offline")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_a_run_is_recorded_in_mlflow_and_offline_in_weights_and_biases(project, capfd):
    journal = record(project, wandb=Wandb())
    (file,) = (project / "wandb").glob(f"offline-run-*/run-{journal.uid}.wandb")
    records = read_wandb_records(file)
    points = []
    for each in records:
        if each.WhichOneof("record_type") == "history":
            items = each.history.item
            row = {item.key or "/".join(item.nested_key): item.value_json for item in items}
            names = ("step", "train/loss", "test/accuracy")
            points.append(tuple(json.loads(row.get(name, "null")) for name in names))
    assert points == [(1, 1.0, None), (2, 0.5, None), (3, 1 / 3, None), (2, None, 0.5)]
    assert "exit" in {each.WhichOneof("record_type") for each in records}
    assert len(points_of_mlflow(project)) == 4
    check_no_secret(project, "".join(capfd.readouterr()))


def test_services_that_fail_harm_neither_the_run_nor_the_others(project, capfd, monkeypatch):
    (project / "wandb").write_text("in the way")
    record(project, wandb=Wandb())
    assert len(points_of_mlflow(project)) == 4
    err = capfd.readouterr().err
    assert "wandb" in err
    assert "nothing is lost, complete it with: " in err
    check_no_secret(project, err)
