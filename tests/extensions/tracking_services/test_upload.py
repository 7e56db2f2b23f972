"""A journal reaches a service once and in order, whatever happens to the service, and whoever wrote the journal."""

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlxlab.cli.runs import check_store
from mlxlab.errors import ConfigError, NotAllowedError, ServiceUnavailableError, UserError
from mlxlab.extensions.tracking_services.trackio import Trackio
from mlxlab.extensions.tracking_services.wandb import Wandb
from mlxlab.tracking import queue
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.journal import Journal
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.queue import Queue
from mlxlab.tracking.upload import sync
from support.tracking import append, make_journal

KEY = "k3y" * 14


@dataclass
class Recorder:
    """A service, and a run in it, that lists what it is given; its client fails at step `fails_at`."""

    calls: list[tuple] = field(default_factory=list)
    fails_at: int = -1
    position: int = 0
    has_ended: bool = False
    notes: list[str] = field(default_factory=list)

    def queue_folder(self, project):
        return project / "queue"

    def connect(self):
        return self

    def open_run(self, entry, start, t):
        self.folder = entry.folder
        self.calls.append(("open", start["name"]))
        return self

    def is_fault_of_journal(self, error):
        return False

    def describe(self):
        return "a recorder"

    def add(self, record, position):
        if record.get("s") == self.fails_at:
            raise RuntimeError("the server is busy")
        if "m" in record:
            self.calls.append((record["s"], record["m"]))
        elif "artifact" in record:
            self.copy(record["artifact"]["path"])
        elif "end" in record:
            self.has_ended = True
            self.calls.append(("end", record["end"]))
        self.position = position

    def flush(self):
        """It keeps nothing."""

    def copy(self, path):
        try:
            with tempfile.TemporaryDirectory() as temporary:
                text = copy_artifact(self.folder, path, Path(temporary)).read_text()
            self.calls.append((path, text))
        except UserError as error:
            self.notes.append(str(error))

    @property
    def points(self):
        return [call for call in self.calls if isinstance(call[0], int)]


@pytest.fixture(autouse=True)
def no_uploader(monkeypatch, tmp_path):
    monkeypatch.setattr(queue, "start_uploading", lambda queue: False)
    monkeypatch.setattr("mlxlab.tracking.upload.start_uploading", lambda queue: False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ARTIFACT_ROOT", "MLXLAB_PARENT_RUN", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def record(project: Path, steps: range, *, resumed: bool = False) -> Journal:
    """A run that logs the steps and ends."""
    journal = make_journal(project, wait=0.0)
    journal.start({"lr": 0.1, "model": {"name": "bert"}}, {"kind": "test"}, resumed=resumed)
    for step in steps:
        journal.log_metrics(step, {"loss": 1.0 / step})
    journal.end("FINISHED")
    return journal


def send(journal: Journal, service: Recorder) -> list[str]:
    return list(sync(Queue(service, journal.folder.parents[1]), [journal.folder]))


def test_a_journal_is_uploaded_once_and_in_order(tmp_path):
    journal, service = record(tmp_path, range(1, 4)), Recorder()
    assert send(journal, service) == [f"{journal.folder}: complete"]
    assert service.calls[0] == ("open", "a")
    assert service.points == [(1, {"loss": 1.0}), (2, {"loss": 0.5}), (3, {"loss": 1 / 3})]
    assert service.calls[-1] == ("end", "FINISHED")
    count = len(service.calls)
    send(journal, service)
    assert service.calls[count:] == [("open", "a")]


def test_a_resumed_run_sends_only_what_is_new(tmp_path):
    service = Recorder()
    send(record(tmp_path, range(1, 6)), service)
    service.calls.clear()
    send(record(tmp_path, range(6, 8), resumed=True), service)
    assert [step for step, _ in service.points] == [6, 7]
    assert service.calls[-1] == ("end", "FINISHED")


def test_a_killed_run_ends_as_killed(tmp_path):
    journal = make_journal(tmp_path, wait=0.0)
    journal.start({}, {})
    journal._writer.close()
    service = Recorder()
    send(journal, service)
    assert service.calls[-1] == ("end", "KILLED")


def test_a_service_that_fails_is_tried_again(tmp_path):
    journal = record(tmp_path, range(1, 4))
    with pytest.raises(ServiceUnavailableError, match="server is busy; nothing is lost"):
        send(journal, Recorder(fails_at=2))
    service = Recorder()
    assert send(journal, service) == [f"{journal.folder}: complete"]
    assert [step for step, _ in service.points] == [1, 2, 3]


def test_nothing_outside_the_run_folder_is_sent(tmp_path):
    journal = record(tmp_path, range(1, 2))
    (tmp_path / "secret").write_text("secret")
    (journal.folder / "link").symlink_to(tmp_path / "secret")
    (journal.folder / "own").write_text("text")
    paths = ("../../secret", str(tmp_path / "secret"), "link", "own")
    append(journal.folder, *({"t": 1, "artifact": {"path": path, "to": ""}} for path in paths))
    service = Recorder()
    [line] = send(journal, service)
    assert [call for call in service.calls if call[0] in paths] == [("own", "text")]
    assert line.count("leads out of the run folder") == 3


def test_a_service_that_cannot_be_used_is_refused_before_the_run(tmp_path, monkeypatch):
    paths = {"folder": tmp_path / "run", "project": tmp_path}
    for name, options in (("wandb", {"wandb": Wandb()}), ("trackio", {"trackio": Trackio()})):
        monkeypatch.setitem(sys.modules, name, None)  # cannot be imported
        with pytest.raises(ServiceUnavailableError, match=rf"pip install -e '.*\[{name}\]'"):
            Journal(**options, **paths)
    with pytest.raises(ConfigError, match="tracking=none"):
        Journal(**paths)
    assert list(tmp_path.iterdir()) == []


def test_runs_of_other_services_are_not_uploaded_to_mlflow(tmp_path, monkeypatch):
    monkeypatch.setattr(Wandb, "check", lambda self: None)
    journal = Journal(wandb=Wandb(), wait=0.0, folder=tmp_path / "outputs" / "a", project=tmp_path)
    journal.start({}, {})
    journal.end("FINISHED")
    with pytest.raises(NotAllowedError, match="to=wandb"):
        check_store(journal.folder, resolve(None, None, tmp_path))
