"""The columns of `runs list`: what tells runs apart, and on a terminal what fits it."""

import pytest

from mlxlab.tracking.mlflow.runs import RunRow
from mlxlab.views.runs import list_table, shown_metrics

METRICS = {"train/loss": 0.3, "test/loss": 0.5, "valid/loss": 0.4567, "valid/accuracy": 0.81}
METRICS |= {"test/accuracy": 0.79}
RUN = RunRow(
    run_id="0" * 32,
    name="bert-nano-text_classification-simple",
    experiment="mlxlab",
    experiment_id="1",
    status="FINISHED",
    start=1000,
    end=6000,
    seconds=4.0,
    uid="3a4ebdea" * 4,
    parent=None,
    folder="/data/outputs/first",
    metrics=METRICS,
    params={"choices.data": "text_classification"},
    tags={"mlxlab.objective": "valid/accuracy"},
)


def head(table):
    return [name.strip() for name in table.splitlines()[0].strip("|").split("|")]


@pytest.mark.parametrize("width", [140, 200])
def test_a_list_fits_the_terminal(width):
    assert max(map(len, list_table([RUN], width=width).splitlines())) <= width


def test_a_narrow_terminal_shows_the_metrics():
    metrics = ["valid/accuracy", "test/accuracy", "valid/loss", "test/loss"]
    assert head(list_table([RUN], width=80)) == ["run", *metrics]
    assert shown_metrics([RUN]) == metrics


def test_columns_that_were_requested_are_not_left_out():
    table = list_table([RUN], ["valid/loss"], ["choices.data"], width=20)
    assert head(table) == ["run", "choices.data", "valid/loss"]
