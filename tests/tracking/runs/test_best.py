"""Metrics of the best evaluation in lists: of every run, and with few requests to a tracking server."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from mlxlab.cli.runs import reading
from mlxlab.errors import ServiceUnavailableError
from mlxlab.tracking.runs import server as server_module
from mlxlab.tracking.runs.objectives import load_best
from mlxlab.tracking.runs.reader import RunReader, RunRow
from mlxlab.tracking.runs.server import ServerRuns

RUN = RunRow(
    "0", "run", "mlxlab", "1", "FINISHED", 1000, 6000, None, None, None, {"valid/accuracy": 0.75}
)
TAGS = {"objective": "valid/accuracy"}


class LocalReader:
    """25 runs; parameters and tags are loaded later, as from SQLite."""

    def names(self, kind):
        return ["valid/accuracy"]

    def list_runs(self, **options):
        return [
            replace(RUN, run_id=f"{n:08}", metrics=dict(RUN.metrics), best={}) for n in range(25)
        ]

    def load_tags(self, runs):
        for run in runs:
            run.tags = TAGS

    load_params = load_tags

    def best_evaluations(self, runs, objective, keys):
        return {run.run_id: {objective: 0.875} for run in runs}


@pytest.mark.parametrize("columns", ["run", "run,data", None])
def test_every_listed_run_has_the_metrics_of_its_best_evaluation(columns, monkeypatch, capsys):
    monkeypatch.setattr(reading, "open_reader", lambda uri: LocalReader())
    monkeypatch.setattr(reading, "pending_summary", lambda address: "")
    reading.list_runs(limit=25, columns=columns)
    head, _, *rows = (
        line.replace(" ", "").strip("|").split("|") for line in capsys.readouterr().out.splitlines()
    )
    cells = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(row["valid/accuracy(best)"], row["valid/accuracy(last)"]) for row in cells] == [
        ("0.875", "0.75")
    ] * 25


class Client:
    """Of a server: counts its requests, and how many of them it has at a time."""

    def __init__(self, error=None):
        self.requests, self.active, self.most, self.error = [], 0, 0, error
        self.pages = [Page()]
        self.lock = threading.Lock()

    def get_metric_history(self, run_id, key):
        with self.lock:
            self.requests.append((run_id, key))
            self.active += 1
            self.most = max(self.most, self.active)
        time.sleep(0.01)
        with self.lock:
            self.active -= 1
        if self.error:
            raise self.error
        values = [0.5, float("nan"), 0.9, 0.8] if key == "valid/accuracy" else [4.0, 3.0, 2.0, 1.0]
        return [SimpleNamespace(step=step, value=value) for step, value in enumerate(values)]

    def search_experiments(self):
        return []

    def search_runs(self, *args, page_token, **options):
        return self.pages[page_token or 0]


class Page(list):
    """Runs of a request; `token` is the number of the next page."""

    token = None


@pytest.fixture(name="client")
def client_of_a_server():
    return Client()


@pytest.fixture(name="server")
def reader_of_a_server(client, monkeypatch):
    store = SimpleNamespace(client=client)
    monkeypatch.setattr(server_module, "MlflowStore", lambda address: store)
    server = ServerRuns(SimpleNamespace(shown="http://server"))
    return RunReader(server.database, "http://server", server.load_histories)


def stored(count):
    metrics = {"valid/accuracy": 0.8, "valid/loss": 1.0}
    return [replace(RUN, run_id=str(n), metrics=metrics, tags=TAGS, best={}) for n in range(count)]


def test_a_server_is_asked_for_each_metric_of_each_run_once_and_not_for_those_it_lacks(
    server, client
):
    runs, started = (
        stored(20),
        replace(RUN, run_id="started", metrics={"valid/loss": 1.0}, tags=TAGS, best={}),
    )
    load_best(server, [*runs, started])
    assert [run.best for run in runs] == [{"valid/accuracy": 0.9, "valid/loss": 2.0}] * 20
    assert started.best == {}
    expected = [(run.run_id, key) for run in runs for key in ("valid/accuracy", "valid/loss")]
    assert sorted(client.requests) == sorted(expected)
    assert 1 < client.most <= 8


def test_the_best_values_of_runs_without_the_metric_are_not_requested(server, client):
    [run] = stored(1)
    assert server.best_values([run, replace(run, run_id="other", metrics={})], "valid/loss") == {
        "0": 1.0
    }
    assert client.requests == [("0", "valid/loss")]


def test_a_server_that_stops_answering_is_not_asked_for_the_rest(server, client):
    client.error = OSError("refused")
    with pytest.raises(ServiceUnavailableError, match=r"http://server: .*refused"):
        load_best(server, stored(500))
    assert len(client.requests) < 100


def test_the_runs_of_a_server_are_read_page_by_page(client, monkeypatch):
    client.search_experiments = lambda: [SimpleNamespace(experiment_id="1", name="mlxlab")]
    client.pages = [Page([stored_run(0), stored_run(1)]), Page([stored_run(2)])]
    client.pages[0].token = 1
    monkeypatch.setattr(server_module, "MlflowStore", lambda _: SimpleNamespace(client=client))
    database = ServerRuns(SimpleNamespace(shown="http://server")).database
    runs = RunReader(database, "http://server").list_runs(limit=9)
    assert [run.name for run in runs] == ["run2", "run1", "run0"]
    assert runs[0].metrics == {"valid/loss": 0.5}


def stored_run(number):
    """A run as MLflow's client returns it."""
    info = SimpleNamespace(
        run_id=f"{number:032}",
        run_name=f"run{number}",
        experiment_id="1",
        status="FINISHED",
        start_time=number,
        end_time=number,
        lifecycle_stage="active",
    )
    data = SimpleNamespace(metrics={"valid/loss": 0.5}, params={}, tags={})
    return SimpleNamespace(info=info, data=data, inputs=SimpleNamespace(dataset_inputs=[]))
