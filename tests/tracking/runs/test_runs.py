"""`mlxlab runs`: lists, shows and compares runs without heavy imports, and uploads what waits."""

import json
import subprocess
import sys

import pytest

from mlxlab.cli import info, runs
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.runs.filters import parse_filter
from mlxlab.tracking.runs.reader import RunReader, open_store
from mlxlab.tracking.runs.server import ServerRuns
from support.tracking import (
    kill_syncer,
    make_journal,
    make_project,
    project_fixture,  # noqa: F401
    query_store,
    runs_py,
    start_trainer,
    wait_until,
)


@pytest.fixture(name="stored")
def stored_runs(project):
    """Three runs that differ in `lr` and in their results."""
    for i, loss in enumerate((0.5, float("nan"), 0.25)):
        journal = make_journal(project, f"run{i}")
        journal.start({"lr": 0.1 * i, "width": 8}, {"objective": "valid/accuracy"})
        journal.log_dataset("titanic", f"1{1 + i}", "wheel")
        journal.log_metrics(1, {"valid/loss": 1.0, "valid/accuracy": 0.9 + 0.01 * i})
        journal.log_metrics(1, {"valid/perplexity": 7.0})
        journal.log_metrics(
            2, {"valid/loss": loss, "valid/accuracy": 0.8, "valid/bits_per_byte": 3.0 - i}
        )
        journal.log_metrics(2, {"valid/perplexity": 5.0})
        journal.end("FINISHED" if i else "FAILED")
    wait_until(
        lambda: (
            len(query_store(project, "select 1 from runs where status in ('FINISHED', 'FAILED')"))
            == 3
        )
    )
    return project


def table_rows(table):
    """The words of each row, without heading and rule."""
    return [line.replace("|", " ").split() for line in table.splitlines()[2:]]


def names(listing):
    return [row[1] for row in table_rows(listing)]


def test_list_show_and_compare_print_the_runs_of_the_store(stored, monkeypatch, capsys):
    assert names(runs_py(stored, "list").stdout) == ["run2", "run1", "run0"]
    assert names(runs_py(stored, "list", "limit=1").stdout) == ["run2"]
    assert names(runs_py(stored, "list", "status=failed").stdout) == ["run0"]
    assert names(runs_py(stored, "list", "status=all").stdout) == ["run2", "run1", "run0"]
    by_loss = runs_py(
        stored, "list", "sort=valid/loss", "experiment=mlxlab", "metrics=valid/loss"
    ).stdout
    assert names(by_loss) == ["run2", "run0", "run1"]  # the lowest first, NaN last
    assert [row[-1] for row in table_rows(by_loss)] == ["0.25", "0.5", "nan"]
    assert by_loss.splitlines()[0].endswith("valid/loss |")

    [(run_id, uid)] = query_store(
        stored,
        "select run_uuid, value from runs join tags using (run_uuid) where key = 'mlxlab.uid' and name = 'run2'",
    )
    assert (
        table_rows(runs_py(stored, "list", "limit=1").stdout)[0][0] == uid[:8]
    )  # as the run shows it
    for word in (run_id, run_id[:8], uid[:8], uid[:10], "run2", str(stored / "outputs" / "run2")):
        shown = runs_py(stored, "show", word).stdout
        assert run_id in shown
        assert ["valid/loss", "0.25", "0.25", "1", "2", "2"] in table_rows(shown)
        assert ["valid/accuracy", "(best)", "0.92"] in table_rows(shown)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{stored}/mlruns/mlflow.db")
    assert (
        info.main([f"run={uid[:8]}"]) == 66
    )  # the id names the folder, in which these runs have no manifest
    assert (
        capsys.readouterr().err
        == f"{uid[:8]}: the run folder {stored}/outputs/run2 was not found\n"
    )

    diverged = table_rows(runs_py(stored, "show", "run1").stdout)
    assert ["valid/loss", "nan", "1", "1", "2", "2"] in diverged  # NaN has no part in a range

    assert ["titanic", "12"] in table_rows(runs_py(stored, "show", "run1").stdout)

    compared = runs_py(stored, "compare", "run0", "run2").stdout
    rows = {row[0]: row[1:] for row in table_rows(compared)}
    assert rows["lr"] == ["0.0", "0.2"]
    assert rows["valid/loss"] == ["(last)", "0.5", "0.25"]
    objective = [row[1:] for row in table_rows(compared) if row[0] == "valid/accuracy"]
    assert objective == [["(best)", "0.9", "0.92"], ["(last)", "0.8", "0.8"]]
    listed = runs_py(stored, "list", "columns=name").stdout
    assert table_rows(listed)[0][1:3] == ["0.92", "0.8"]
    [newest] = json.loads(runs_py(stored, "list", "limit=1", "--json").stdout)
    assert newest["best"]["valid/accuracy"] == 0.92
    assert newest["best"]["valid/loss"] == 1.0  # of the best evaluation by the objective
    assert "width" not in rows


def test_find_prints_the_folders_of_runs_and_the_values_that_the_filter_is_on(stored):
    printed = runs_py(
        stored, "find", "metrics.valid/loss < 0.6 and params.lr in (0.0, 0.2)", "sort=valid/loss"
    ).stdout
    rows = [(row[1], row[-3:]) for row in table_rows(printed)]
    folder = str(stored / "outputs" / "run")
    assert rows == [("run2", [f"{folder}2", "0.2", "0.25"]), ("run0", [f"{folder}0", "0.0", "0.5"])]
    listed = runs_py(stored, "find", "name", "=", "run1", "--json")
    [run] = json.loads(listed.stdout)
    assert (run["name"], run["params"]["lr"], run["metrics"]["valid/loss"]) == ("run1", "0.1", None)
    assert run["start"].endswith("+00:00")


def test_list_shows_parameters_and_best_values_of_the_jobs_of_a_sweep(project, monkeypatch):
    sweep = make_journal(project, "sweep")
    sweep.start({}, {})
    monkeypatch.setenv("MLXLAB_PARENT_RUN", sweep.uid)
    for i in range(2):
        job = make_journal(project, f"job{i}")
        job.start({"seed": i}, {})
        for step, accuracy in enumerate((0.5, 0.75 + i / 8, 0.6)):
            job.log_metrics(step, {"valid/accuracy": accuracy})
        job.end("FINISHED")
    sweep.end("FINISHED")
    args = ("list", "sweep=sweep", "params=seed", "metrics=valid/accuracy", "best=valid/accuracy")
    printed = runs_py(project, *args).stdout
    assert [(row[1], row[-3:]) for row in table_rows(printed)] == [
        ("job1", ["1", "0.6", "0.875"]),
        ("job0", ["0", "0.6", "0.75"]),
    ]
    runs = json.loads(runs_py(project, *args, "--json").stdout)
    assert [run["best"] for run in runs] == [{"valid/accuracy": 0.875}, {"valid/accuracy": 0.75}]


def test_diff_prints_what_differs_in_config_data_code_and_metrics(stored):
    rows = {
        row[0]: row[1:] for row in table_rows(runs_py(stored, "diff", "run0", "run2").stdout) if row
    }
    assert rows["lr"] == ["0.0", "0.2"]
    assert rows["titanic"] == ["11", "13"]
    assert rows["valid/loss"] == ["(last)", "0.5", "0.25", "-0.25"]
    assert "width" not in rows
    difference = json.loads(runs_py(stored, "diff", "run0", "run1", "--json").stdout)
    assert difference["config"] == {"lr": ["0.0", "0.1"]}
    assert difference["code"] == {}
    assert difference["metrics"]["valid/loss"] == [0.5, None]
    assert difference["best"]["valid/accuracy"] == [0.9, 0.91]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_runs_copied_by_the_client_are_those_of_the_database(stored):
    address = resolve(f"sqlite:///{stored}/mlruns/mlflow.db", None, stored)
    server = ServerRuns(address)
    readers = [
        RunReader(open_store(address.database), "x"),
        RunReader(server.database, "x", server.load_histories),
    ]

    where = parse_filter("experiment = mlxlab and status = FINISHED and params.lr > 0.05")
    for sort in (None, "valid/loss", "valid/accuracy"):
        first, second = (reader.list_runs(limit=2, where=where, sort=sort) for reader in readers)
        assert str(first) == str(second)  # NaN does not equal itself
        assert len(first) == 2
    for reader in readers:
        reader.load_params(first if reader is readers[0] else second)
    assert [(run.params, run.tags) for run in first] == [(run.params, run.tags) for run in second]
    for metric in ("valid/loss", "valid/accuracy"):
        assert readers[0].best_values(first, metric) == readers[1].best_values(first, metric)
    assert readers[0].best_values(first, "valid/loss") == {
        run.run_id: float(run.name == "run1") or 0.25 for run in first
    }
    keys = ["valid/accuracy", "valid/perplexity", "other"]
    for objective, best in (("valid/accuracy", [0.92, 7.0]), ("valid/perplexity", [0.8, 5.0])):
        evaluations = [reader.best_evaluations(first, objective, keys) for reader in readers]
        assert evaluations[0] == evaluations[1]
        assert [*evaluations[0][first[0].run_id].values()] == best
    [run] = readers[0].find_runs("run1")
    for query in (run.run_id[:6], run.uid[:6], run.folder):
        assert str(readers[0].find_runs(query)) == str(readers[1].find_runs(query))
    assert readers[0].datasets(run) == readers[1].datasets(run) == {"titanic": "12"}
    assert str(readers[0].metric_ranges(run)) == str(readers[1].metric_ranges(run))
    for kind in ("metrics", "params", "tags", "experiments", "runs"):
        assert set(readers[0].names(kind)) == set(readers[1].names(kind))


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "postgresql://127.0.0.1:1/store"])
def test_a_store_that_does_not_answer_exits_with_69_and_one_line(project, uri):
    failed = runs_py(project, "list", f"uri={uri}")
    assert (failed.returncode, failed.stderr.count("\n")) == (69, 1), failed.stderr


def test_sorting_by_bits_per_byte_lists_the_lowest_first(stored):
    assert names(runs_py(stored, "list", "sort=valid/bits_per_byte").stdout) == [
        "run2",
        "run1",
        "run0",
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["lst"], "did you mean list?"),
        (["list", "lmit=3"], "did you mean limit?"),
        (["list", "limit=0"], "limit=0: expected a whole number"),
        (["list", "limit=-3"], "limit=-3: expected a whole number"),
        (["list", "status=finishd"], "expected one of RUNNING"),
        (
            ["list", "status=done"],
            "status=DONE: expected one of RUNNING, SCHEDULED, FINISHED, FAILED, KILLED\n",
        ),
        (["list", "sort=valid/los"], "not in the store"),
        (["list", "sort='; drop table runs; --"], "not in the store"),
        (["list", "experiment=mlxlb"], "not in the store"),
        (["show"], "run=...: missing"),
        (["show", "rum2"], "no such run"),
        (["find"], "expected a filter such as"),
        (["find", "metrics.valid_loss > 1"], "not in the store"),
        (["list", "filter=status = finishd"], "expected one of RUNNING"),
        (["list", "sweep=rum2"], "no such run"),
        (["list", "sweep="], "sweep=: a value is missing"),
        (["list", "columns=foldr"], "expected all, or some of"),
        (["list", "params=sed"], "params=sed: not in the store"),
        (["diff", "run1"], "expected 2 arguments without `=`, got 1; usage: "),
        (["list", "--jsn"], "did you mean json?"),
        (["compare", "run1"], "expected 2 to 20 arguments without `=`, got 1"),
        (["sync", "--all"], "--all"),
    ],
)
def test_a_wrong_argument_exits_with_2_and_one_line_that_names_the_nearest_valid_one(
    stored_once, args, message
):
    done = runs_py(stored_once, *args)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.fixture(name="stored_once", scope="module")
def stored_for_the_module(tmp_path_factory):
    """One store for all wrong words."""
    with (
        pytest.MonkeyPatch.context() as patch,
        make_project(tmp_path_factory.mktemp("runs"), patch) as project,
    ):
        for i in range(3):
            journal = make_journal(project, f"run{i}")
            journal.start({}, {})
            journal.log_metrics(1, {"valid/loss": 1.0})
            journal.end("FINISHED")
        yield project


def test_a_missing_or_damaged_store_exits_with_69_and_one_line(project):
    done = runs_py(project, "list")
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    (project / "mlruns").mkdir()
    (project / "mlruns" / "mlflow.db").write_text("no database at all" * 50)
    done = runs_py(project, "list")
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    done = runs_py(project, "sync", str(project))
    assert (done.returncode, done.stderr.count("\n")) == (66, 1)


def test_help_and_list_import_nothing_heavy(stored):
    for words in (["--help"], ["list"], ["compare", "run0", "run1"]):
        program = (
            f"import os, runpy, sys; sys.argv = ['mlxlab', 'runs', *{words!r}]\n"
            f"os.environ['MLFLOW_TRACKING_URI'] = 'sqlite:///{stored}/mlruns/mlflow.db'\n"
            f"try: runpy.run_module('mlxlab', run_name='__main__')\n"
            "except SystemExit as end: assert not end.code, end.code\n"
            "heavy = {'mlflow', 'sqlalchemy', 'pandas', 'numpy', 'mlx', 'hydra', 'omegaconf', 'yaml'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_sync_uploads_what_waits_and_prints_it(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(queue, "start_syncer", lambda address: False)
        journal = make_journal(project, wait=0.0)
        journal.start({}, {})
        for step in range(1, 101):
            journal.log_metrics(step, {"loss": 1.0})
        journal.end("FINISHED")
    done = runs_py(project, "sync")
    assert done.returncode == 0, done.stderr
    assert f"{journal.folder}: complete" in done.stdout
    assert "102 lines" in done.stdout
    assert query_store(project, "select count(*) from metrics") == [(100,)]
    assert "nothing is waiting" in runs_py(project, "sync").stdout


def test_sync_takes_any_number_of_folders(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert runs.main(["sync", *(f"{tmp_path}/run{i}" for i in range(1001))]) == 66
    assert "run0: no such folder" in capsys.readouterr().err


def test_sync_takes_over_from_a_running_syncer_which_resumes_afterwards(project):
    trainer = start_trainer(project, "a", 500, "hang")
    assert trainer.stdout.readline() == "logged\n"
    folder = project / "mlruns" / ".queue-mlflow.db"
    wait_until(lambda: query_store(project, "select count(*) from metrics") == [(1000,)])
    done = runs_py(project, "sync")
    assert done.returncode == 0, done.stderr
    assert "its run is not over" in done.stdout
    trainer.kill()
    trainer.communicate()
    wait_until(lambda: query_store(project, "select status from runs") == [("KILLED",)])
    assert query_store(project, "select count(*) from metrics") == [(1000,)]
    wait_until(lambda: not queue.registered(folder))
    kill_syncer(folder)


def test_uploading_every_line_twice_changes_nothing(project):
    journal = make_journal(project)
    journal.start({"lr": 0.1}, {"note": "x"})
    for step in range(1, 2001):
        journal.log_metrics(step, {"loss": 1 / step, "nan": float("nan"), "inf": float("inf")})
    journal.log_dataset("titanic", "0123", "wheel")
    (journal.folder / "plot.txt").write_text("a plot")
    journal.log_artifact(journal.folder / "plot.txt", "plots")
    journal.end("FINISHED")
    kill_syncer(journal.mlflow.address.queue)
    tables = [
        "runs",
        "params",
        "tags",
        "metrics",
        "latest_metrics",
        "datasets",
        "inputs",
        "input_tags",
    ]
    queries = [f"select * from {table} order by 1, 2, 3" for table in tables]
    before = [query_store(project, query) for query in queries]
    (journal.folder / "journal.sync.json").unlink()
    done = runs_py(project, "sync", str(journal.folder))
    assert done.returncode == 0, done.stderr
    assert "2004 lines" in done.stdout
    after = [query_store(project, query) for query in queries]
    for query, old, new in zip(queries, before, after, strict=True):
        assert old, query
        assert old == new, query
