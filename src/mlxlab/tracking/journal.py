"""The tracker of `tracking=mlflow`: a journal in the run folder, which another process uploads to MLflow."""

import math
import os
import shlex
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlxlab.constraints import NonNegative
from mlxlab.errors import CannotCreateError, ConfigError, DataError
from mlxlab.metric_names import TEST, VALID
from mlxlab.program import command
from mlxlab.tracking import provenance
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.address import check_driver, resolve
from mlxlab.tracking.record_writer import RecordWriter, has_writer
from mlxlab.tracking.records import FILE, STATE, RunStart, is_uid, read_records, read_start, read_state, read_uid, utf8
from mlxlab.tracking.registration import RegistrationOptions, check_options
from mlxlab.tracking.tracker import Status

PARENT = "MLXLAB_PARENT_RUN"  # environment: uid of the sweep that this process is a job of
CHECK_SECONDS = 60.0  # between checks that the syncer is alive
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class Journal:
    """Records a run in its folder, from where another process uploads it to MLflow.

    Args:
        uri: the store as MLflow writes it; null takes MLFLOW_TRACKING_URI, else mlruns/mlflow.db in the project.
        artifacts: folder or URI of the artifacts; null takes MLFLOW_ARTIFACT_ROOT, else `artifacts` by the database.
        experiment: name of the MLflow experiment; created if it does not exist.
        log_models: whether the best checkpoint is logged as a model that `mlflow.pyfunc.load_model` loads.
        wait: seconds to wait for the store at the end; what is missing then follows by itself.
        register: how the best checkpoint enters the model registry.

    Raises:
        ConfigError: an address that MLflow has no store for, or a model that cannot be registered.
        ServiceUnavailableError: the driver of the database cannot be imported.
    """

    def __init__(
        self,
        uri: str | None,
        artifacts: str | None,
        experiment: str,
        log_models: bool,
        wait: NonNegative,
        register: RegistrationOptions | None = None,
        *,
        folder: Path,
        project: Path,
    ) -> None:
        self.address = resolve(uri, artifacts, project)
        check_driver(self.address.uri)
        self.experiment, self.log_models, self.wait, self.project = experiment, log_models, wait, project
        self.register = register if register and register["name"] is not None else None
        if self.register:
            check_options(self.register)
            if not log_models:
                raise ConfigError(f"tracking.register.name={self.register['name']}: needs tracking.log_models=true")
        self.folder = folder.absolute()
        self.uid = read_uid(self.folder / FILE) or uuid.uuid4().hex
        self._writer: RecordWriter | None = None
        self._warned = self._queued = False
        self._data = ""  # fingerprint of the last data set

    def start(
        self, params: Mapping[str, object], tags: dict[str, str], *, resumed: bool = False, name: str | None = None
    ) -> None:
        if not resumed:
            self._rename_earlier()
        elif (self.folder / FILE).exists():
            read_start(self.folder / FILE)  # raises if the file is not a journal
        self._writer = RecordWriter(self.folder / FILE)
        if self._writer.torn:
            _print(f"removed {self._writer.torn} bytes of a line that was being written when the run died")
        parent = os.environ.get(PARENT, "")
        start: RunStart = {
            "uid": self.uid,
            "name": name or utf8(self.folder.name),
            "experiment": self.experiment,
            "params": _texts(dict(_leaves("", params))),
            "tags": _texts(provenance.gather() | ({"sweep": parent} if is_uid(parent) else {}) | tags),
            "parent": parent if is_uid(parent) else None,
            "store": self.address.shown,
            "artifacts": self.address.shown_artifacts,
            "resumed": resumed,
        }
        self._write(start=start)
        try:
            queue.register(self.address.queue, self.uid, self.folder)
            queue.start_syncer(self.address)
            self._queued = True
        except OSError as error:
            _print(f"the run is not uploaded ({error}); {self._remedy()}")
        self._last_check = time.monotonic()

    def log_metrics(self, step: int, metrics: dict[str, float]) -> None:
        self._write(s=int(step), m={utf8(key): _number(value) for key, value in metrics.items()})
        if time.monotonic() - self._last_check > CHECK_SECONDS:
            self._ensure_syncer()

    def metrics_at(self, step: int) -> dict[str, float]:
        metrics: dict[str, float] = {}
        with suppress(DataError):  # damaged: the upload reports it
            for record, _ in read_records(self.folder / FILE, max_bytes=sys.maxsize):
                if record is not None and record.get("s") == step:
                    metrics |= {key: float(value) for key, value in record["m"].items()}
        return metrics

    def set_tags(self, tags: dict[str, str]) -> None:
        self._write(tags=_texts(tags))

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        self._data = utf8(digest)
        self._write(dataset=_texts({"name": name, "digest": digest, "source": source}))

    def log_artifact(self, path: Path, to: str = "") -> None:
        if (relative := self._relative(path)) is not None:
            self._write(artifact={"path": relative, "to": to})

    def log_model(self, checkpoint: Path, step: int, files: dict[str, Path], signature: dict[str, str] | None) -> None:
        if not self.log_models:
            return
        paths = {name: self._relative(path) for name, path in {"checkpoint": checkpoint, **files}.items()}
        if None in paths.values():
            return
        self._write(model={"step": step, "files": paths, "signature": signature})
        if self.register:
            values = {key: value for key, value in self.metrics_at(step).items() if key.startswith((VALID, TEST))}
            metrics = {utf8(key): _number(value) for key, value in values.items()}
            self._write(register={**self.register, "step": step, "data": self._data, "metrics": metrics})

    def truncate_after(self, step: int) -> None:
        self._lines.truncate_after(step)

    def end(self, status: Status) -> None:
        """Waits up to `wait` seconds for the store, 3 after a failure; prints the model's URI and what is missing."""
        if self._writer is None:
            return
        self._write(end=status)
        self._ensure_syncer()
        if self._writer.waiting:
            _print(f"the last {len(self._writer.waiting)} bytes of {self._writer.path} could not be written")
        missing = self._wait(self.wait if status == "FINISHED" else min(self.wait, 3.0)) if self._queued else ""
        self._writer.close()
        self._writer = None
        uploaded = read_state(self.folder / STATE, self.uid)
        if uploaded and "model" in uploaded:
            _print(f"model best: {uploaded['model']}")
        if self.register and uploaded and "registered" in uploaded:
            _print(uploaded["registered"])
        if missing:
            _print(f"{missing}; {self._remedy()}")

    def describe(self) -> list[str]:
        return [f"tracking: {self.address.shown}, experiment {self.experiment}, run {self.uid[:12]}"]

    @property
    def _lines(self) -> RecordWriter:
        assert self._writer is not None, "Journal.start comes first"
        return self._writer

    def _write(self, **record: object) -> None:
        error = self._lines.write({"t": time.time_ns() // 1_000_000, **record})
        if error and not self._warned:
            _print(f"{self._lines.path} cannot be written ({error}); its lines wait in memory")
        self._warned = bool(error)

    def _relative(self, path: Path) -> str | None:
        """The path in the run folder; None, with a message, if it cannot be recorded."""
        path = Path(os.path.abspath(path))
        if path.is_relative_to(self.folder) and utf8(relative := str(path.relative_to(self.folder))) == relative:
            return relative
        _print(f"{utf8(path)}: outside the run folder, or its name is not UTF-8; it is not recorded")
        return None

    def _rename_earlier(self) -> None:
        """Renames the journal of an earlier run. It stays in the folder: its upload may not be complete."""
        if not (self.folder / FILE).exists():
            return
        if has_writer(self.folder / FILE):
            raise CannotCreateError(f"another process is writing {self.folder / FILE}")
        old = read_uid(self.folder / FILE) or uuid.uuid4().hex
        for file in (FILE, STATE):
            with suppress(FileNotFoundError):
                (self.folder / file).rename(self.folder / file.replace("journal", f"journal-{old}", 1))
        self.uid = uuid.uuid4().hex

    def _ensure_syncer(self) -> None:
        self._last_check = time.monotonic()
        if self._queued:
            with suppress(OSError):  # the next run or `runs sync` starts it
                queue.start_syncer(self.address)

    def _wait(self, seconds: float) -> str:
        """Waits for the upload, less if the store is known to be unavailable; returns what is missing, or ""."""
        size, start, until = (self.folder / FILE).stat().st_size, time.time(), time.monotonic() + seconds
        while True:
            uploaded, status = read_state(self.folder / STATE, self.uid), queue.read_status(self.address.queue)
            if uploaded and uploaded["offset"] >= size:
                return ""
            fault = (uploaded and uploaded.get("fault")) or (status and status["fault"])
            if fault and status and status["t"] >= int(1000 * start):
                return f"{self.address.shown}: {fault}"
            if time.monotonic() >= until:
                return f"{self.address.shown} is not complete yet ({fault or 'the upload is running'})"
            time.sleep(0.02)

    def _remedy(self) -> str:
        args = [command("runs sync"), shlex.quote(utf8(self.folder))]
        if replace(resolve(None, None, self.project), queue=self.address.queue) != self.address:
            args.append(f"uri={shlex.quote(self.address.shown)}")
            artifacts = self.address.shown_artifacts
            if artifacts and artifacts != resolve(self.address.uri, None, self.project).shown_artifacts:
                args.append(f"artifacts={shlex.quote(artifacts)}")
        return f"nothing is lost, complete it with: {' '.join(args)}"


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    """The leaves of nested dicts and lists as `a.b.0` -> value; an empty one is a leaf."""
    items = value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, list | tuple) else {}
    for key, item in items.items():
        yield from _leaves(f"{path}.{key}" if path else str(key), item)
    if not items and path:
        yield path, value


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    return {utf8(key): utf8(str(value)) for key, value in fields.items()}


def _number(value: float) -> float | str:
    return float(value) if math.isfinite(value) else _NOT_FINITE[str(float(value))]


def _print(line: str) -> None:
    print(f"tracking: {line}", file=sys.stderr, flush=True)
