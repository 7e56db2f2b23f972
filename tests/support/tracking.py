"""Parts for the tests of tracking: a project with a store of its own, and trainers in processes of their own."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlxlab.tracking import queue
from mlxlab.tracking.journal import Journal
from mlxlab.tracking.mlflow.destination import mlflow_destination
from mlxlab.tracking.queue import LOCK, Queue
from mlxlab.tracking.upload import sync
from support.forks import fork_uploader, start_server
from support.processes import run_here

START_UPLOADING = queue.start_uploading

# Logs `count` steps, then ends, or is still there when the signal comes.
TRAINER = """
import sys, time
from pathlib import Path
from mlxlab.tracking.journal import Journal
folder, project, count, ending = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
journal = Journal(None, None, "mlxlab", True, 100.0, folder=folder, project=project)
journal.start({"model": {"width": 8}}, {})
for step in range(1, count + 1):
    journal.log_metrics(step, {"train/loss": 1 / step, "lr": 0.1})
print("logged", flush=True)
if ending == "hang":
    time.sleep(60)
journal.end(ending)
"""


@pytest.fixture(name="project")
def project_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with make_project(tmp_path, monkeypatch) as project:
        yield project


@contextlib.contextmanager
def make_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder; its uploaders are gone when the test is over."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ARTIFACT_ROOT", "MLXLAB_PARENT_RUN"):
        monkeypatch.delenv(name, raising=False)
    # A test may have replaced it.
    if sys.platform == "linux" and queue.start_uploading is START_UPLOADING:
        start_server()
        monkeypatch.setattr(queue, "start_uploading", fork_uploader)
        monkeypatch.setattr("mlxlab.tracking.upload.start_uploading", fork_uploader)
    yield tmp_path
    for folder in tmp_path.glob("**/.queue-*"):
        kill_uploader(folder)


def queue_of(project: Path) -> Queue:
    """The queue of the project's own store."""
    uri = f"sqlite:///{quoted(project)}/mlruns/mlflow.db"
    return Queue(mlflow_destination(uri, None, project), project)


def quoted(project: Path) -> str:
    return str(project).replace("%", "%25").replace("?", "%3F")


def uploader_of(folder: Path) -> psutil.Process | None:
    """The process that holds the lock of a queue."""
    path = folder / LOCK
    if not path.exists():
        return None
    inode = path.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        _, kind, _, _, pid, file, *_ = line.split()
        if kind == "FLOCK" and file.endswith(f":{inode}"):
            return psutil.Process(int(pid))
    return None


def kill_uploader(folder: Path) -> bool:
    """kill -9; returns whether there was one."""
    process = uploader_of(folder)
    if process is None:
        return False
    process.kill()
    wait_until(lambda: uploader_of(folder) is None)
    return True


def make_journal(project: Path, name: str = "a", **keys: Any) -> Journal:
    defaults = {"uri": None, "artifacts": None, "experiment": "mlxlab", "log_models": True}
    defaults["wait"] = 30.0
    return Journal(**(defaults | keys), folder=project / "outputs" / name, project=project)


def log_run(project: Path, name: str = "a", status: Any = "FINISHED", **keys: Any) -> Journal:
    """A run that has ended, with a value of `x`."""
    journal = make_journal(project, name, **keys)
    journal.start({}, {}, name=name)
    journal.log_metrics(1, {"x": 1.0})
    journal.end(status)
    return journal


def statuses(project: Path) -> list[str]:
    """Those of the runs in the store, by the time of their start."""
    return [row[0] for row in query_store(project, "select status from runs order by start_time")]


T = 1_700_000_000_000  # ms since 1970, of records written by hand


def finished_run(project: Path, name: str = "a") -> Path:
    """The folder of a run that is over."""
    return log_run(project, name, wait=0.0).folder


def append(folder: Path, *records: dict[str, Any] | bytes) -> None:
    """Appends lines to the journal of a run."""
    with (folder / "journal.jsonl").open("ab") as file:
        for record in records:
            line = record if isinstance(record, bytes) else json.dumps(record).encode()
            file.write(line + b"\n")


def change_start(folder: Path, **changes: object) -> None:
    """Changes fields of the first record of a journal."""
    path = folder / "journal.jsonl"
    first, *rest = path.read_text().splitlines()
    record = json.loads(first)
    record["start"] |= changes
    path.write_text("\n".join([json.dumps(record), *rest, ""]))


def upload(journal: Journal) -> list[str]:
    """What `mlxlab runs sync` prints, in this process: parts of it can be replaced."""
    return list(sync(journal.queues[0], [journal.folder]))


def start_trainer(
    project: Path, name: str, count: int, ending: str = "FINISHED", prepare: str = ""
) -> subprocess.Popen[str]:
    """A trainer in a process group of its own, which runs the code `prepare` first."""
    paths = [str(project / "outputs" / name), str(project)]
    args = [sys.executable, "-c", f"{prepare}\n{TRAINER}", *paths, str(count), ending]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(args, **pipes, text=True, start_new_session=True)


def query_store(project: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the project's store; [] while there is none, or an empty file."""
    path = project / "mlruns" / "mlflow.db"
    if not path.exists() or not path.stat().st_size:
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=20)) as database:
        return database.execute(query).fetchall()


def wait_until(holds: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def runs_py(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """`mlxlab runs` in this process, on the project's store: MLflow is imported once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{quoted(project)}/mlruns/mlflow.db")
        return run_here(*args, script="runs")
