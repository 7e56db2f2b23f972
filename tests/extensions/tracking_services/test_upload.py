"""A journal reaches a service once and in order, whatever happens to the service, and whoever wrote the journal."""

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlxlab.errors import ConfigError, DataError, NotAllowedError, ServiceUnavailableError
from mlxlab.extensions.tracking_services import destination
from mlxlab.extensions.tracking_services.service import typed
from mlxlab.extensions.tracking_services.trackio import Trackio
from mlxlab.extensions.tracking_services.upload import ServiceUploader, upload_folder
from mlxlab.extensions.tracking_services.wandb import Wandb
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.journal import Journal
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.flush import check_store, flush, unsent_folders
from support.processes import run_here
from support.tracking import append, make_journal

KEY = "k3y" * 14


@dataclass
class Recorder:
    """A service, and a run in it, that lists what it is given; its client fails at step `fails_at`."""

    calls: list[tuple] = field(default_factory=list)
    fails_at: int | None = None
    name: str = "recorder"

    def options(self):
        return {}

    def check(self):
        """It can always be used."""

    def open(self, project, start):
        self.calls.append(("open", start["name"]))
        return self

    def describe(self):
        return "a recorder"

    def log(self, step, metrics, t):
        if step == self.fails_at:
            raise RuntimeError(f"the server refused {KEY}")
        self.calls.append((step, metrics))

    def set_config(self, values):
        self.calls.append(("config", values))

    def log_artifact(self, folder, path, to):
        self.calls.append((path, read_copy(folder, path)))

    def log_model(self, folder, files, step):
        self.calls.append(("model", files))

    def end(self, status):
        self.calls.append(("end", status))

    @property
    def points(self):
        return [call for call in self.calls if isinstance(call[0], int)]


def read_copy(folder, path):
    with tempfile.TemporaryDirectory() as temporary:
        return copy_artifact(folder, path, Path(temporary)).read_text()


@pytest.fixture(autouse=True)
def no_syncer(monkeypatch, tmp_path):
    monkeypatch.setattr(queue, "start_syncer", lambda address: False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ARTIFACT_ROOT", "MLXLAB_PARENT_RUN", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def record(
    project: Path, steps: range, *, resumed: bool = False, after: int | None = None
) -> Journal:
    """A run that logs the steps and ends."""
    journal = make_journal(project, wait=0.0)
    journal.start({"lr": 0.1, "model": {"name": "bert"}}, {"kind": "test"}, resumed=resumed)
    if after is not None:
        journal.truncate_after(after)
    for step in steps:
        journal.log_metrics(step, {"loss": 1.0 / step})
    journal.end("FINISHED")
    return journal


def send(journal: Journal, service: Recorder) -> None:
    ServiceUploader(service, journal.folder, journal.uid, journal.folder.parents[1]).upload()


def test_a_journal_is_uploaded_once_and_in_order(tmp_path):
    journal, service = record(tmp_path, range(1, 4)), Recorder()
    send(journal, service)
    assert service.calls[0] == ("open", "a")
    assert (
        service.calls[1][1].items()
        >= {"lr": 0.1, "model.name": "bert", "tags.kind": "test"}.items()
    )
    assert service.points == [(1, {"loss": 1.0}), (2, {"loss": 0.5}), (3, {"loss": 1 / 3})]
    assert service.calls[-1] == ("end", "FINISHED")
    again = Recorder()
    send(journal, again)
    assert again.calls == []


def test_a_resumed_run_sends_no_step_again_that_the_service_has(tmp_path):
    journal, service = record(tmp_path, range(1, 6)), Recorder()
    send(journal, service)
    service.calls.clear()
    send(record(tmp_path, range(3, 8), resumed=True, after=2), service)
    assert [step for step, _ in service.points] == [6, 7]
    assert service.calls[-1] == ("end", "FINISHED")


def test_what_a_run_took_back_before_the_upload_is_not_sent(tmp_path):
    record(tmp_path, range(1, 6))
    service = Recorder()
    send(record(tmp_path, range(3, 5), resumed=True, after=2), service)
    assert [step for step, _ in service.points] == [1, 2, 3, 4]


def test_a_killed_run_ends_as_killed(tmp_path):
    journal = make_journal(tmp_path, wait=0.0)
    journal.start({}, {})
    journal._lines.close()
    service = Recorder()
    send(journal, service)
    assert service.calls[-1] == ("end", "KILLED")


def test_a_service_that_fails_is_tried_again_and_shows_no_key(tmp_path):
    journal = record(tmp_path, range(1, 4))
    with pytest.raises(ServiceUnavailableError, match=r"refused \*\*\*; nothing is lost") as fault:
        list(upload_folder(Recorder(fails_at=2), journal.folder, tmp_path))
    (state,) = journal.folder.glob("journal-*.recorder.json")
    assert json.loads(state.read_text())["fault"] == "the server refused ***"
    assert KEY not in str(fault.value)
    service = Recorder()
    assert list(upload_folder(service, journal.folder, tmp_path)) == [
        f"{journal.folder}: a recorder: complete"
    ]
    assert [step for step, _ in service.points] == [1, 2, 3]
    assert "fault" not in json.loads(state.read_text())


def test_nothing_outside_the_run_folder_is_sent(tmp_path):
    journal = record(tmp_path, range(1, 2))
    (tmp_path / "secret").write_text("secret")
    (journal.folder / "link").symlink_to(tmp_path / "secret")
    (journal.folder / "own").write_text("text")
    paths = ("../../secret", str(tmp_path / "secret"), "link", "own")
    append(journal.folder, *({"t": 1, "artifact": {"path": path, "to": ""}} for path in paths))
    service = Recorder()
    lines = list(upload_folder(service, journal.folder, tmp_path))
    assert [call for call in service.calls if call[0] in paths] == [("own", "text")]
    assert lines[0].endswith("but missing: ../../secret: leads out of the run folder")


def test_a_service_that_cannot_be_used_is_refused_before_the_run(tmp_path, monkeypatch):
    paths = {"folder": tmp_path / "run", "project": tmp_path}
    for name, options in (("wandb", {"wandb": Wandb()}), ("trackio", {"trackio": Trackio()})):
        monkeypatch.setitem(sys.modules, name, None)  # cannot be imported
        with pytest.raises(
            ServiceUnavailableError,
            match=rf"needs the package {name}: pip install -e '.*\[{name}\]'",
        ):
            Journal(**options, **paths)
    with pytest.raises(ConfigError, match="tracking=none"):
        Journal(**paths)
    assert list(tmp_path.iterdir()) == []


def test_runs_of_other_services_are_not_uploaded_to_mlflow(tmp_path, monkeypatch):
    monkeypatch.setattr(Wandb, "check", lambda self: None)
    monkeypatch.setattr(destination, "start_detached", lambda *_: None)
    journal = Journal(
        wandb=Wandb(mode="offline"), wait=0.0, folder=tmp_path / "outputs" / "a", project=tmp_path
    )
    journal.start({}, {})
    journal.end("FINISHED")
    address = resolve(None, None, tmp_path)
    assert unsent_folders(tmp_path, address) == []
    with pytest.raises(NotAllowedError, match="to=wandb"):
        check_store(journal.folder, address)
    with pytest.raises(DataError, match="to=wandb"):
        list(flush(address, [journal.folder]))


def test_keys_of_an_account_are_asked_for_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "mlxlab.extensions.tracking_services.wandb.check_package", lambda name: None
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    Wandb().check()
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(ServiceUnavailableError, match="mode=offline"):
        Wandb().check()
    Wandb(mode="offline").check()
    with pytest.raises(ConfigError, match=r"tracking\.wandb\.project=a/b"):
        Wandb(project="a/b").check()


@pytest.mark.parametrize("text", ["True", "None", "3", "0.5", "bert"])
def test_parameters_have_their_types_again(text):
    assert str(typed({"x": text})["x"]) == text


def test_a_folder_is_uploaded_to_a_service_by_its_name(tmp_path, monkeypatch, capsys):
    services = []

    def upload(self, folder, project):
        services.append(self)
        yield f"{folder.name}: complete"

    monkeypatch.setattr(Wandb, "check", lambda self: None)
    monkeypatch.setattr(Wandb, "upload", upload)
    args = [str(tmp_path / "run"), "to=wandb", "project=mine", "mode=offline"]
    assert run_here("sync", *args, script="runs").stdout == "run: complete\n"
    assert services == [Wandb(project="mine", mode="offline")]
    monkeypatch.setattr("mlxlab.cli.runs.upload.shipped_conf", lambda: tmp_path)
    assert run_here("sync", *args, script="runs").returncode == 2
