"""`mlxlab runs`: lists, shows and compares runs, and uploads what waits."""

import json
import shutil

import pytest

from mlxlab.tracking import queue
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.runs import RunReader
from mlxlab.tracking.mlflow.store import open_client
from support.processes import passed
from support.tracking import (
    finished_run,
    kill_uploader,
    make_journal,
    make_project,
    query_store,
    queue_of,
    runs_py,
    start_trainer,
    statuses,
    wait_until,
)
from tracking.mlflow.test_log_model import forget_position

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(name="stored", scope="module")
def stored_runs(tmp_path_factory):
    """Three runs that differ in `lr` and in their results. Tests leave them as they are."""
    with (
        pytest.MonkeyPatch.context() as patch,
        make_project(tmp_path_factory.mktemp("runs"), patch) as project,
    ):
        for i, loss in enumerate((0.5, float("nan"), 0.25)):
            journal = make_journal(project, f"run{i}")
            journal.start({"lr": 0.1 * i, "width": 8}, {"mlxlab.objective": "valid/accuracy"})
            journal.log_dataset("titanic", f"1{1 + i}", "wheel")
            journal.log_metrics(1, {"valid/loss": 1.0, "valid/accuracy": 0.9 + 0.01 * i})
            journal.log_metrics(2, {"valid/loss": loss, "valid/accuracy": 0.8})
            journal.end("FINISHED" if i else "FAILED")
        ended = "select 1 from runs where status in ('FINISHED', 'FAILED')"
        wait_until(lambda: len(query_store(project, ended)) == 3)
        yield project


def table_rows(table):
    """The words of each row, without heading and rule."""
    return [line.replace("|", " ").split() for line in table.splitlines()[2:]]


def names(listing):
    return [row[1] for row in table_rows(listing)]


def test_list_show_and_compare_print_the_runs_of_the_store(stored):
    assert names(runs_py(stored, "list").stdout) == ["run2", "run1", "run0"]
    assert names(runs_py(stored, "list", "limit=1").stdout) == ["run2"]
    failed = "filter=attributes.status = 'FAILED'"
    assert names(runs_py(stored, "list", failed).stdout) == ["run0"]
    where = "filter=metrics.`valid/loss` < 0.6 and params.lr = '0.2'"
    assert names(runs_py(stored, "list", where).stdout) == ["run2"]
    args = ["sort=valid/loss", "experiment=mlxlab", "metrics=valid/loss"]
    by_loss = runs_py(stored, "list", *args).stdout
    assert names(by_loss) == ["run2", "run0", "run1"]  # the lowest first, NaN last
    assert [row[-1] for row in table_rows(by_loss)] == ["0.25", "0.5", "nan"]
    assert by_loss.splitlines()[0].endswith("valid/loss |")

    query = "select run_uuid, value from runs join tags using (run_uuid)"
    [(run_id, uid)] = query_store(stored, f"{query} where key = 'mlxlab.uid' and name = 'run2'")
    # The id is that which the run shows.
    assert table_rows(runs_py(stored, "list", "limit=1").stdout)[0][0] == uid[:8]
    for word in (run_id, run_id[:8], uid[:8], uid[:10], "run2"):
        shown = runs_py(stored, "show", word).stdout
        assert run_id in shown
        assert ["valid/loss", "0.25"] in table_rows(shown)
        assert ["valid/accuracy", "0.8"] in table_rows(shown)

    diverged = table_rows(runs_py(stored, "show", "run1").stdout)
    assert ["valid/loss", "nan"] in diverged
    assert ["titanic", "12"] in diverged

    assert "| valid/accuracy |" in runs_py(stored, "list").stdout
    [newest] = json.loads(runs_py(stored, "list", "limit=1", "--json").stdout)
    assert newest["metrics"]["valid/accuracy"] == 0.8


def test_diff_prints_what_differs_in_config_data_code_and_metrics(stored):
    table = table_rows(runs_py(stored, "diff", "run0", "run2").stdout)
    rows = {(row[0], row[1]): row[2:] for row in table}
    assert rows["config", "lr"] == ["0.0", "0.2"]
    assert rows["data", "titanic"] == ["11", "13"]
    assert rows["metrics", "valid/loss"] == ["0.5", "0.25"]
    assert ("config", "width") not in rows
    difference = json.loads(runs_py(stored, "diff", "run0", "run1", "--json").stdout)
    assert difference["config"] == {"lr": ["0.0", "0.1"]}
    assert difference["code"] == {}
    assert difference["metrics"]["valid/loss"] == [0.5, None]


def test_a_reader_finds_runs(stored):
    address = resolve(f"sqlite:///{stored}/mlruns/mlflow.db", None, stored)
    reader = RunReader(open_client(address), "x")
    runs = reader.list_runs(limit=2, where="attributes.status = 'FINISHED'", sort="valid/loss")
    assert [run.name for run in runs] == ["run2", "run1"]
    [run] = reader.find_runs("run1")
    for query in (run.run_id[:6], run.uid[:6], run.folder):
        assert [each.run_id for each in reader.find_runs(query)] == [run.run_id]
    assert [reader.find_runs(query) for query in ("it's", "%", "_" * 8)] == [[], [], []]
    assert run.datasets == {"titanic": "12"}


def test_runs_are_deleted_and_restored(stored):
    assert "restore" in runs_py(stored, "delete", "run0", "run1").stdout
    assert names(runs_py(stored, "list").stdout) == ["run2"]
    assert runs_py(stored, "restore", "run1").stdout == "restored run1\n"
    assert names(runs_py(stored, "list").stdout) == ["run2", "run1"]
    listed = json.loads(runs_py(stored, "experiments", "--json").stdout)
    assert {"name": "mlxlab", "runs": 2} in listed
    assert runs_py(stored, "restore", "run0").stdout == "restored run0\n"
    assert names(runs_py(stored, "list").stdout) == ["run2", "run1", "run0"]


def test_runs_whose_folder_is_gone_are_marked_as_deleted(project):
    for name in ("kept", "lost"):
        runs_py(project, "sync", str(finished_run(project, name)))
    shutil.rmtree(project / "outputs" / "lost")
    assert runs_py(project, "clean", "gone=true", "dry_run=true").stdout.count("\n") == 1
    assert "deleted lost" in runs_py(project, "clean", "gone=true").stdout
    assert names(runs_py(project, "list").stdout) == ["kept"]
    assert "no run" in runs_py(project, "clean", "gone=true").stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["lst"], "did you mean list?"),
        (["list", "limit=0"], "limit=0: expected a whole number"),
        (["list", "sort=valid/los"], "valid/los: no such key"),
        (["list", "experiment=mlxlb"], "not in the store"),
        (["show", "rum2"], "no such run"),
    ],
)
def test_a_wrong_argument_exits_with_2_and_one_line_that_names_the_nearest_valid_one(
    stored, args, message
):
    done = runs_py(stored, *args)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_store_that_is_missing_silent_or_damaged_exits_with_69_and_one_line(project):
    def failure(*args):
        done = runs_py(project, *args)
        assert done.stderr.count("\n") == 1, done.stderr
        return done.returncode

    for uri in ("http://127.0.0.1:1", "postgresql://127.0.0.1:1/store"):
        assert failure("list", f"uri={uri}") == 69
    assert failure("list") == 69
    (project / "mlruns").mkdir()
    (project / "mlruns" / "mlflow.db").write_text("no database at all" * 50)
    assert failure("list") == 69
    assert failure("sync", str(project)) == 66


def test_sync_uploads_what_waits_and_prints_it(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(queue, "start_uploading", lambda queue: False)
        folder = finished_run(project)
    assert f"{folder}: complete" in passed(runs_py(project, "sync")).stdout
    assert query_store(project, "select count(*) from metrics") == [(1,)]
    assert "nothing is waiting" in runs_py(project, "sync").stdout


@pytest.mark.slow
def test_sync_takes_over_from_a_running_process_which_resumes_afterwards(project):
    trainer = start_trainer(project, "a", 500, "hang")
    assert trainer.stdout.readline() == "logged\n"
    uploaded = "select count(*) from metrics"
    wait_until(lambda: query_store(project, uploaded) == [(1000,)], seconds=120)
    assert "its run is not over" in passed(runs_py(project, "sync")).stdout
    trainer.kill()
    trainer.communicate()
    wait_until(lambda: statuses(project) == ["KILLED"], seconds=120)
    assert query_store(project, "select count(*) from metrics") == [(1000,)]
    wait_until(lambda: not queue_of(project).entries())
    kill_uploader(queue_of(project).folder)


def test_uploading_every_line_twice_changes_nothing(project):
    journal = make_journal(project)
    journal.start({"lr": 0.1}, {"note": "x"})
    for step in range(1, 1101):  # more rows than a batch takes
        journal.log_metrics(step, {"loss": 1 / step, "nan": float("nan"), "inf": float("inf")})
    journal.log_dataset("titanic", "0123", "wheel")
    (journal.folder / "plot.txt").write_text("a plot")
    journal.log_artifact(journal.folder / "plot.txt", "plots")
    journal.end("FINISHED")
    kill_uploader(queue_of(project).folder)
    tables = "runs params tags metrics latest_metrics datasets inputs input_tags"
    queries = [f"select * from {table} order by 1, 2, 3" for table in tables.split()]
    before = [query_store(project, query) for query in queries]
    forget_position(project)
    passed(runs_py(project, "sync", str(journal.folder)))
    after = [query_store(project, query) for query in queries]
    for query, old, new in zip(queries, before, after, strict=True):
        assert old, query
        assert old == new, query
