"""Filters: what they accept, and which runs they find."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from mlxlab.errors import ConfigError
from mlxlab.tracking.runs.filters import MAX_DOUBLE, parse_filter
from mlxlab.tracking.runs.reader import RunReader, RunRow, open_store

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
    return RunReader(open_store(path), str(path))


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
def test_a_filter_finds_the_runs_that_meet_it(reader, text, expected):
    if expected is None:
        with pytest.raises(ConfigError, match="unknown field"):
            parse_filter(text)
        return
    where = parse_filter(text)
    assert (
        "".join(sorted(run.run_id[0] for run in reader.list_runs(limit=9, where=where))) == expected
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "joined by"),
        ("metrics.x >", "got 'metrics.x >'"),
        ("metrics.x > high", "expected a number"),
        ("metrics.x > nan", "expected a number"),
        ("metrics.x like '%'", "expected one of = != < <= > >="),
        ("metrics.x in (1)", "expected one of = != < <= > >="),
        ("metrics. = 1", "metrics.: unknown field"),
        ("accuracy = 1", "expected one of metrics.KEY"),
        ("name > a", "expected one of = != in like"),
        ("params.lr < low", "expected a number"),
        ("start > yesterday", "expected a time such as"),
        ("start > 99999-01-01", "expected a time such as"),
        ("name = 'bert", """got "'bert"|got "name = 'bert"|'name"""),
        ("(name = a", "joined by"),
        ("name = a name = b", "joined by"),
        ("name = a b", "got 'b'"),
        ("name in (a b)", "got 'name in"),
        ("name ! a", "got 'name ! a'"),
        ("status = finishd", "expected one of RUNNING"),
        ("status in (failed, done)", "expected one of RUNNING"),
        ("(" * 999 + "name = a", "joined by"),
        ("name = 'x'; drop table runs", "got '; drop"),
    ],
)
def test_what_is_no_filter_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_filter(text)


def test_a_pattern_with_many_percent_signs_takes_little_time(reader):
    pattern = "%a" * 20 + "b"
    assert reader.list_runs(limit=9, where=parse_filter(f"name like '{pattern}'")) == []
    [run] = reader.list_runs(limit=9, where=parse_filter("name like 'b%r_ 1' and name like '%'"))
    assert run.name == "bert 1"
    assert reader.list_runs(limit=9, where=parse_filter("name like 'B%' or name like '*'")) == []
