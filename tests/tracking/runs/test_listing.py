"""The columns of `runs list`: what tells runs apart, and on a terminal what fits it."""

from dataclasses import replace

import pytest

from mlxlab.tracking.runs.listing import Columns, default_metrics, format_list
from mlxlab.tracking.runs.reader import RunRow

METRICS = {
    "valid/accuracy": 0.81,
    "valid/loss": 0.4567,
    "test/accuracy": 0.79,
    "test/loss": 0.5,
    "train/loss": 0.3,
}
RUN = RunRow(
    *(
        "0" * 32,
        "bert-nano-text_classification-simple",
        "mlxlab",
        "1",
        "FINISHED",
        1000,
        6000,
        "3a4ebdea" * 4,
        None,
    ),
    *(
        "/data/outputs/first",
        METRICS,
        {"choices.data": "text_classification", "data.source": "/data/my.csv"},
    ),
    tags={"objective": "valid/accuracy"},
)


def head(text):
    return text.splitlines()[0].strip("| ").replace(" ", "").split("|")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_list_fits_the_terminal_and_names_what_it_leaves_out(width):
    everything = head(format_list([RUN], Columns()).table)
    listing = format_list([RUN], Columns(), width)
    assert max(map(len, listing.table.splitlines())) <= width
    empty = ["parent"]
    assert sorted([*head(listing.table), *listing.left_out, *empty]) == sorted(everything)


def test_80_columns_show_the_objective_on_validation_and_test_rows():
    assert {"run", "valid/accuracy", "test/accuracy"} < {
        *head(format_list([RUN], Columns(), 80).table)
    }


def test_the_best_evaluation_takes_the_columns_of_its_metrics_and_the_last_one_is_labelled():
    run = replace(RUN, best={"valid/accuracy": 0.85})
    assert head(format_list([run], Columns(["run"])).table)[1:3] == [
        "valid/accuracy(best)",
        "valid/accuracy(last)",
    ]
    shown = head(format_list([run], Columns(), 80).table)
    assert {"valid/accuracy(best)", "test/accuracy"} < {*shown}
    assert "valid/accuracy(last)" not in shown
    assert "valid/accuracy(last)" in head(
        format_list([run], Columns(sort="valid/accuracy"), 80).table
    )


def test_columns_that_were_requested_are_not_left_out():
    columns = Columns(["data", "folder"], ["valid/loss"], ["data.source"])
    assert head(format_list([RUN], columns, 20).table) == [
        "data",
        "folder",
        "data.source",
        "valid/loss",
    ]


def test_data_are_named_by_option_and_file():
    titanic = replace(RUN, params={"choices.data": "titanic", "data.source": "None"})
    rows = format_list([RUN, titanic], Columns(["data"], [])).table.splitlines()[2:]
    assert [row.strip("| ") for row in rows] == ["text_classification my.csv", "titanic"]


def test_a_folder_below_the_working_folder_is_shown_as_it_is_typed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    below = replace(RUN, folder=str(tmp_path / "outputs" / "first"))
    rows = format_list([below, RUN], Columns(["folder"], [])).table.splitlines()[2:]
    assert [row.strip("| ") for row in rows] == ["outputs/first", "/data/outputs/first"]


def test_the_metric_of_the_order_comes_first_and_each_objective_before_the_same_metric_of_the_test_rows():
    assert default_metrics([RUN]) == ["valid/accuracy", "test/accuracy", "valid/loss", "test/loss"]
    assert default_metrics([RUN], "train/loss")[:2] == ["train/loss", "valid/accuracy"]
    interrupted = replace(RUN, metrics={"valid/accuracy": 0.8, "valid/loss": 0.5})
    assert default_metrics([interrupted, interrupted, RUN])[:2] == [
        "valid/accuracy",
        "test/accuracy",
    ]
