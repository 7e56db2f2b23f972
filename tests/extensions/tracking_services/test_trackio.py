"""Runs in Trackio, on this machine, next to MLflow."""

import json
import sqlite3
from contextlib import closing

import pytest

from mlxlab.extensions.tracking_services.trackio import Trackio
from support.services import accounts, check_no_secret, points_of_mlflow, record  # noqa: F401
from support.tracking import project_fixture  # noqa: F401

pytest.importorskip("trackio", reason="needs the extra trackio")
pytestmark = pytest.mark.usefixtures("accounts")


def test_a_run_is_recorded_in_mlflow_and_in_trackio_on_this_machine(project, capfd):
    record(project, trackio=Trackio())
    with closing(sqlite3.connect(project / "trackio" / "mlxlab.db")) as database:
        rows = database.execute("select step, metrics from metrics order by id").fetchall()
        (config,) = database.execute("select config from configs").fetchone()
    points = [(step, json.loads(values)) for step, values in rows]
    for _, values in points:
        values.pop("journal/position")
    losses = [(step, {"train/loss": 1 / step}) for step in (1, 2, 3)]
    assert points == [*losses, (2, {"test/accuracy": 0.5})]
    expected = {"model.width": 8, "tags.kind": "test", "dataset.name": "rows"}
    assert json.loads(config).items() >= expected.items()
    assert len(points_of_mlflow(project)) == 4
    check_no_secret(project, "".join(capfd.readouterr()))
