"""The tracker of MLflow and other services: a journal in the run folder, which other processes upload."""

import getpass
import json
import os
import shlex
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from mlxlab.errors import CannotCreateError, ConfigError
from mlxlab.record import provenance
from mlxlab.schema.constraints import NonNegative
from mlxlab.terminal.redact import redact
from mlxlab.tracking import queue
from mlxlab.tracking.destination import Destination, Entry
from mlxlab.tracking.mlflow.destination import MlflowDestination, mlflow_destination
from mlxlab.tracking.queue import Queue
from mlxlab.tracking.records import (
    FILE,
    Context,
    RecordWriter,
    RunStart,
    has_writer,
    new_uid,
    read_records,
    read_uid,
    utf8,
)
from mlxlab.tracking.tracker import Status

PARENT = "MLXLAB_PARENT_RUN"  # environment: uid of the sweep that this process is a job of
DEFAULT_EXPERIMENT = "mlxlab"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"  # environment: it replaces the default
RUN_ID = "MLFLOW_RUN_ID"  # environment: run of MLflow to continue
INTERVAL_SECONDS = 10.0  # between samples of the machine
MAX_WAIT = {"FAILED": 3.0, "KILLED": 1.0}  # seconds for the uploads
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class Journal:
    """Records a run in its folder, from where other processes upload it to MLflow and other services.

    Args:
        uri: the store as MLflow writes it; null takes MLFLOW_TRACKING_URI, else mlruns/mlflow.db in the project.
        artifacts: folder or URI of the artifacts; null takes MLFLOW_ARTIFACT_ROOT, else `artifacts` by the database.
        experiment: name of the MLflow experiment; created if it does not exist. Null records nothing in MLflow; mlxlab,
            the default, takes MLFLOW_EXPERIMENT_NAME if that is set.
        log_models: whether the best checkpoint is logged as a model that `mlflow.pyfunc.load_model` loads.
        wait: seconds to wait for the uploads at the end, at most 3 after a failure and 1 after a signal; what is
            missing then follows by itself.
        wandb: Weights & Biases.
        trackio: Trackio.

    Raises:
        ConfigError: an address that MLflow has no store for.
        ServiceUnavailableError: a service cannot be used: no package, no account.
    """

    def __init__(
        self,
        uri: str | None = None,
        artifacts: str | None = None,
        experiment: str | None = None,
        log_models: bool = True,
        wait: NonNegative = 20.0,
        wandb: Destination | None = None,
        trackio: Destination | None = None,
        *,
        folder: Path,
        project: Path,
    ) -> None:
        if experiment == DEFAULT_EXPERIMENT:
            experiment = os.environ.get(EXPERIMENT) or experiment
        self.experiment = experiment
        self.address: MlflowDestination | None = None
        if experiment is not None:
            self.address = mlflow_destination(uri, artifacts, project)
        destinations = (self.address, wandb, trackio)
        self.queues = [Queue(each, project) for each in destinations if each is not None]
        if not self.queues:
            raise ConfigError(
                "tracking.experiment: null, and no other service; expected tracking=none"
            )
        for each in self.queues:
            each.destination.check()
        self.log_models = log_models
        self.wait = wait
        self.folder = folder.absolute()
        self.uid = read_uid(self.folder / FILE) or new_uid(self.folder)
        self._writer: RecordWriter | None = None
        self._warned = False
        self._system = SystemMetrics()

    def start(
        self,
        params: Mapping[str, object],
        tags: dict[str, str],
        *,
        resumed: bool = False,
        name: str | None = None,
    ) -> None:
        if not resumed:
            self._rename_earlier()
        elif (self.folder / FILE).exists():
            next(read_records(self.folder / FILE), None)  # raises if the file is not a journal
        self._writer = RecordWriter(self.folder / FILE)
        parent = os.environ.get(PARENT) or None
        run_id = None if parent else os.environ.get(RUN_ID)
        start: RunStart = {
            "uid": self.uid,
            "name": name or utf8(self.folder.name),
            "experiment": self.experiment or "",
            "params": _texts(flatten(params)),
            "tags": _texts(_origin() | tags),
            "parent": parent,
            "store": self.address.shown if self.address else None,
            "resumed": resumed,
        }
        self._write(start=start)
        entry = Entry(self.uid, self.folder, run_id)
        for each in self.queues:
            try:
                each.add(entry)
                queue.start_uploading(each)
            except OSError as error:
                _print(f"the run is not uploaded ({error}); {self._advice(each)}")

    def log_metrics(self, step: int, metrics: dict[str, float]) -> None:
        values = metrics | self._system.sample()
        self._write(s=int(step), m={utf8(key): _number(value) for key, value in values.items()})

    def set_tags(self, tags: dict[str, str]) -> None:
        self._write(tags=_texts(tags))

    def log_dataset(
        self,
        name: str,
        digest: str,
        source: str,
        context: Context = "training",
        schema: str = "",
        profile: Mapping[str, int] | None = None,
    ) -> None:
        dataset = {"name": name, "digest": digest, "source": source, "context": context}
        if schema:
            dataset["schema"] = json.dumps({"mlflow_colspec": json.loads(schema)})
        if profile:
            dataset["profile"] = json.dumps(profile)
        self._write(dataset=_texts(dataset))

    def log_artifact(self, path: Path, to: str = "") -> None:
        relative = self._relative(path)
        if relative is not None:
            self._write(artifact={"path": relative, "to": to})

    def log_model(
        self, checkpoint: Path, step: int, files: dict[str, Path], signature: dict[str, str] | None
    ) -> None:
        if not self.log_models:
            return
        all_files = {"checkpoint": checkpoint, **files}
        paths = {name: self._relative(path) for name, path in all_files.items()}
        if None in paths.values():
            return
        self._write(model={"step": step, "files": paths, "signature": signature})

    def truncate_after(self, step: int) -> None:
        self._write(truncate_after=step)

    def end(self, status: Status) -> None:
        """Waits for the uploads, less after a failure or a signal; prints what is missing."""
        if self._writer is None:
            return
        self._write(end=status)
        if self._writer.waiting:
            _print(
                f"the last {len(self._writer.waiting)} bytes of {self._writer.path} could not be written"
            )
        self._writer.close()
        self._writer = None
        for each in self.queues:
            with suppress(OSError):  # The next run or `runs sync` starts it.
                if each.find(self.uid):
                    queue.start_uploading(each)
        until = time.monotonic() + min(self.wait, MAX_WAIT.get(status, self.wait))
        for each in self.queues:
            fault = each.wait(self.uid, max(0.0, until - time.monotonic()))
            if fault:
                advice = self._advice(each)
                _print(f"{each.destination.describe()} is not complete yet ({fault}); {advice}")

    def describe(self) -> list[str]:
        experiment = ""
        if self.experiment:
            experiment = f", experiment {self.experiment}"
        return [
            f"tracking: {each.destination.describe()}{experiment}, run {self.uid[:8]}"
            for each in self.queues
        ]

    def _write(self, **record: object) -> None:
        assert self._writer is not None, "Journal.start comes first"
        error = self._writer.write(**record)
        if error and not self._warned:
            _print(f"{self._writer.path} cannot be written ({error}); its lines wait in memory")
        self._warned = bool(error)

    def _relative(self, path: Path) -> str | None:
        """The path in the run folder; None, with a message, if it cannot be recorded."""
        path = Path(os.path.abspath(path))
        if path.is_relative_to(self.folder):
            relative = str(path.relative_to(self.folder))
            if utf8(relative) == relative:
                return relative
        _print(
            f"{utf8(path)}: outside the run folder, or its name is not UTF-8; it is not recorded"
        )
        return None

    def _rename_earlier(self) -> None:
        """Renames the journal of an earlier run. It stays in the folder: its upload may not be complete."""
        journal = self.folder / FILE
        if not journal.exists():
            return
        if has_writer(journal):
            raise CannotCreateError(f"another process is writing {journal}")
        old = read_uid(journal) or uuid.uuid4().hex
        journal.rename(self.folder / f"journal-{old}.jsonl")
        self.uid = uuid.uuid4().hex

    def _advice(self, waiting: Queue) -> str:
        options = " ".join(waiting.destination.options(waiting.project))
        command = f"mlxlab runs sync {shlex.quote(utf8(self.folder))} {options}".rstrip()
        return f"nothing is lost, complete it with: {command}"


class SystemMetrics:
    """Samples the machine when metrics are logged and the last sample is old: no thread runs between two log lines.

    The names are those of MLflow's own monitor.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        psutil.cpu_percent()

    def sample(self) -> dict[str, float]:
        """New values; nothing if the last ones are recent, or the run has just begun."""
        if time.monotonic() - self._last < INTERVAL_SECONDS:
            return {}
        self._last = time.monotonic()
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(".")
        return {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),  # since the last call
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / 1e6,
            "system/disk_usage_percentage": disk.percent,
            "system/disk_available_megabytes": disk.free / 1e6,
        }


def _origin() -> dict[str, str]:
    """User, program and commit, as MLflow's own clients tag runs. Takes about 15 ms."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    tags = {"mlflow.user": user, "mlflow.source.type": "LOCAL"}
    return tags | {"mlflow.source.name": sys.argv[0] or "python"} | provenance.git()


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """The leaves of nested dicts and lists: `a.b.0` -> value; an empty one is a leaf."""
    leaves: dict[str, object] = {}
    for name, value in params.items():
        items = value
        if isinstance(value, list | tuple):
            items = dict(enumerate(value))
        if isinstance(items, Mapping) and items:
            leaves |= flatten(items, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    """Fields as texts, without credentials."""
    return {utf8(key): redact(utf8(str(value))) for key, value in fields.items()}


def _number(value: float) -> float | str:
    return _NOT_FINITE.get(str(float(value)), float(value))


def _print(line: str) -> None:
    print(f"tracking: {line}", file=sys.stderr, flush=True)
