"""Filters: what they accept, and that SQL and Python find the same runs by them."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from mlxlab.errors import ConfigError
from mlxlab.tracking.runs.evaluate import MAX_DOUBLE, matches
from mlxlab.tracking.runs.filters import parse_filter
from mlxlab.tracking.runs.reader import RunRow
from mlxlab.tracking.runs.sqlite_reader import SqliteRunReader

NAN, INF = float("nan"), float("inf")
SCHEMA = """
create table experiments(experiment_id integer, name text);
create table runs(run_uuid text, name text, experiment_id integer, status text, lifecycle_stage text,
                  start_time integer, end_time integer);
create table latest_metrics(key text, value float, is_nan boolean, run_uuid text);
create table metrics(key text, value float, is_nan boolean, run_uuid text, step integer);
create table params(key text, value text, run_uuid text);
create table tags(key text, value text, run_uuid text);
insert into experiments values (1, 'mlxlab'), (2, 'other');
"""
A = RunRow("a" * 32, "bert 1", "mlxlab", "1", "FINISHED", 1_000, 61_000, "1" * 32, None, "/runs/a")
B = replace(
    A,
    run_id="b" * 32,
    name="gpt",
    experiment="other",
    experiment_id="2",
    status="RUNNING",
    end=None,
    uid=None,
)
C = replace(
    A, run_id="c" * 32, name="bert_2", status="FAILED", start=2_000, parent="b" * 32, folder=None
)
A = replace(
    A,
    metrics={"valid/accuracy": 0.9, "valid/loss": NAN, "up": INF},
    params={"lr": "1e-3", "x": "True"},
)
B = replace(
    B, metrics={"valid/accuracy": 0.7, "valid/loss": 2.0}, params={"lr": "0.1", "model.name": "gpt"}
)
C = replace(
    C,
    metrics={"valid/accuracy": 0.8},
    params={"lr": "auto", "model.name": "bert"},
    tags={"note": "it's"},
)


@pytest.fixture(name="reader", scope="module")
def reader_of_three_runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMA)
        for run in (A, B, C):
            facts = (
                run.run_id,
                run.name,
                run.experiment_id,
                run.status,
                "active",
                run.start,
                run.end,
            )
            database.execute("insert into runs values (?, ?, ?, ?, ?, ?, ?)", facts)
            for key, value in run.metrics.items():
                row = (
                    key,
                    0 if value != value else min(value, MAX_DOUBLE),
                    value != value,
                    run.run_id,
                )
                database.execute("insert into latest_metrics values (?, ?, ?, ?)", row)
            for key, text in run.params.items():
                database.execute("insert into params values (?, ?, ?)", (key, text, run.run_id))
            own = {
                "mlxlab.uid": run.uid,
                "mlflow.parentRunId": run.parent,
                "mlxlab.folder": run.folder,
            }
            for key, text in (run.tags | {key: text for key, text in own.items() if text}).items():
                database.execute("insert into tags values (?, ?, ?)", (key, text, run.run_id))
        database.commit()
    return SqliteRunReader(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.valid/accuracy > 0.75", "ac"),
        ("metrics.valid/accuracy >= 0.8 and metrics.valid/accuracy<0.9", "c"),
        ("metrics.valid/accuracy > 0.75 and params.model.name = bert", "c"),
        ("metrics.valid/accuracy>.75 and not params.model.name='bert'", "a"),
        ("metrics.valid/loss = nan", "a"),
        ("metrics.valid/loss != nan", "b"),
        ("metrics.valid/loss != 3", "b"),
        ("not metrics.valid/loss < 1", "abc"),
        ("metrics.up = inf or metrics.up = -inf", "a"),
        ("params.lr = 0.001", "a"),
        ("params.lr = '0.001'", ""),
        ("params.lr != 0.001", "bc"),
        ("params.lr < 0.5", "ab"),
        ("params.lr = auto", "c"),
        ("params.lr != auto", "ab"),
        ("params.lr in (auto, '0.1')", "bc"),
        ("params.x == true", "a"),
        ("params.model.name like '%t'", "bc"),
        ("name like 'bert_%'", "ac"),
        ("name = 'bert 1'", "a"),
        ("NAME = x OR name = gpt", None),
        ("status = running or status in (failed)", "bc"),
        ("status != finished", "bc"),
        ("experiment = mlxlab and (name = gpt or name = bert_2)", "c"),
        ('tags.note = "it\'s"', "c"),
        ('tags.`note` like "it\'s"', "c"),
        ("seconds >= 59", "ac"),
        ("not seconds > 59.5", "bc"),
        ("start >= 1970-01-01T00:00:02+00:00", "c"),
        ("end < 2020-01-31", "ac"),
        ("parent = " + "b" * 32, "c"),
        ("id like 'a%' or uid = " + "1" * 32, "ac"),
        ("folder = /runs/a", "ab"),
        ("attributes.name = gpt", "b"),
    ],
)
def test_sql_and_python_find_the_same_runs(reader, text, expected):
    if expected is None:
        with pytest.raises(ConfigError, match="unknown field"):
            parse_filter(text)
        return
    where = parse_filter(text)
    assert "".join(run.run_id[0] for run in (A, B, C) if matches(where, run)) == expected
    assert (
        "".join(sorted(run.run_id[0] for run in reader.list_runs(limit=9, where=where))) == expected
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a field such as metrics.valid/loss at the end"),
        ("metrics.x >", "expected a value at the end"),
        ("metrics.x > high", "expected a number"),
        ("metrics.x > nan", "expected a number"),
        ("metrics.x like '%'", "expected one of = != < <= > >="),
        ("metrics.x in (1)", "expected one of = != < <= > >="),
        ("metrics. = 1", "metrics.: unknown field"),
        ("accuracy = 1", "expected one of metrics.KEY"),
        ("name > a", "as it is a text"),
        ("params.lr < low", "expected a number"),
        ("start > yesterday", "expected a time such as"),
        ("start > 99999-01-01", "expected a time such as"),
        ("name = 'bert", "a character or quote that cannot stand there"),
        ("(name = a", r"expected `\)` at the end"),
        ("name = a b", "expected `and`, `or` or the end, got 'b'"),
        ("name in (a b)", r"expected `\)`, got 'b'"),
        ("name ! a", "cannot stand there"),
        ("(" * 40 + "name = a", "at most 30 levels"),
        ("not " * 40 + "name = a", "at most 30 levels"),
        (" or ".join(["name = a"] * 101), "at most 100 conditions, got 101"),
        ("name = " + "a" * 20_000, "at most 20000 characters"),
        ("name = 'x'; drop table runs", "expected `and`, `or` or the end, got ';'"),
    ],
)
def test_what_is_no_filter_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_filter(text)


def test_a_pattern_with_many_percent_signs_takes_linear_time():
    assert (
        matches(parse_filter("name like '" + "%a" * 20 + "b'"), replace(A, name="a" * 8000))
        is False
    )
    assert (
        matches(parse_filter("name like 'a%ab%a_b%'"), replace(A, name="a" * 50 + "b" + "acb" * 2))
        is True
    )
