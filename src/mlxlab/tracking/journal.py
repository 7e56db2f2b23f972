"""The tracker of MLflow and other services: a journal in the run folder, which other processes upload."""

import math
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mlxlab.constraints import NonNegative
from mlxlab.errors import CannotCreateError, ConfigError, DataError
from mlxlab.metric_names import TEST, VALID
from mlxlab.tracking import provenance
from mlxlab.tracking.destination import Destination, TrackingService
from mlxlab.tracking.mlflow.destination import MlflowDestination
from mlxlab.tracking.record_writer import RecordWriter, has_writer
from mlxlab.tracking.records import (
    FILE,
    STATE,
    RunStart,
    is_uid,
    new_uid,
    read_records,
    read_start,
    read_uid,
    utf8,
)
from mlxlab.tracking.registration import RegistrationOptions, check_options
from mlxlab.tracking.tracker import Status

PARENT = "MLXLAB_PARENT_RUN"  # environment: uid of the sweep that this process is a job of
MAX_WAIT = {"FAILED": 3.0, "KILLED": 1.0}  # seconds for the uploads
CHECK_SECONDS = 60.0  # between checks that the uploading processes are alive
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class Journal:
    """Records a run in its folder, from where other processes upload it to MLflow and other services.

    Args:
        uri: the store as MLflow writes it; null takes MLFLOW_TRACKING_URI, else mlruns/mlflow.db in the project.
        artifacts: folder or URI of the artifacts; null takes MLFLOW_ARTIFACT_ROOT, else `artifacts` by the database.
        experiment: name of the MLflow experiment; created if it does not exist. Null records nothing in MLflow.
        log_models: whether the best checkpoint is logged as a model that `mlflow.pyfunc.load_model` loads.
        wait: seconds to wait for the uploads at the end, at most 3 after a failure and 1 after a signal; what is
            missing then follows by itself.
        register: how the best checkpoint enters the model registry.
        wandb: Weights & Biases.
        trackio: Trackio.

    Raises:
        ConfigError: an address that MLflow has no store for, or a model that cannot be registered.
        ServiceUnavailableError: a service cannot be used: no package, no driver of the database, no account.
    """

    def __init__(
        self,
        uri: str | None = None,
        artifacts: str | None = None,
        experiment: str | None = None,
        log_models: bool = True,
        wait: NonNegative = 20.0,
        register: RegistrationOptions | None = None,
        wandb: TrackingService | None = None,
        trackio: TrackingService | None = None,
        *,
        folder: Path,
        project: Path,
    ) -> None:
        self.register = register if register and register["name"] is not None else None
        self.mlflow = None
        if experiment is not None:
            registers = self.register is not None
            self.mlflow = MlflowDestination(
                uri, artifacts, experiment, project, registers=registers
            )
        services = [service.destination(project) for service in (wandb, trackio) if service]
        self.destinations: list[Destination] = [*([self.mlflow] if self.mlflow else []), *services]
        if not self.destinations:
            raise ConfigError(
                "tracking.experiment: null, and no other service; expected tracking=none"
            )
        self.log_models, self.wait = log_models, wait
        if self.register:
            check_options(self.register)
            for key, is_set in (("log_models=true", log_models), ("experiment", self.mlflow)):
                if not is_set:
                    raise ConfigError(
                        f"tracking.register.name={self.register['name']}: needs tracking.{key}"
                    )
        self.folder = folder.absolute()
        self.uid = read_uid(self.folder / FILE) or new_uid(self.folder)
        self._writer: RecordWriter | None = None
        self._warned = False
        self._started: list[Destination] = []
        self._data = ""  # fingerprint of the last data set

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
            read_start(self.folder / FILE)  # raises if the file is not a journal
        self._writer = RecordWriter(self.folder / FILE)
        if self._writer.torn:
            _print(
                f"removed {self._writer.torn} bytes of a line that was being written when the run died"
            )
        parent = os.environ.get(PARENT, "")
        start: RunStart = {
            "uid": self.uid,
            "name": name or utf8(self.folder.name),
            "experiment": self.mlflow.experiment if self.mlflow else "",
            "params": _texts(flatten(params)),
            "tags": _texts(
                provenance.gather() | ({"sweep": parent} if is_uid(parent) else {}) | tags
            ),
            "parent": parent if is_uid(parent) else None,
            "store": self.mlflow.address.shown if self.mlflow else None,
            "artifacts": self.mlflow.address.shown_artifacts if self.mlflow else None,
            "resumed": resumed,
        }
        self._write(start=start)
        for destination in self.destinations:
            try:
                destination.start(self.folder, self.uid)
                self._started.append(destination)
            except OSError as error:
                _print(
                    f"the run is not uploaded ({error}); {_advice(destination, self.folder, is_done=True)}"
                )
        self._last_check = time.monotonic()

    def log_metrics(self, step: int, metrics: dict[str, float]) -> None:
        self._write(s=int(step), m={utf8(key): _number(value) for key, value in metrics.items()})
        if time.monotonic() - self._last_check > CHECK_SECONDS:
            self._ensure_uploads()

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

    def log_model(
        self, checkpoint: Path, step: int, files: dict[str, Path], signature: dict[str, str] | None
    ) -> None:
        if not self.log_models:
            return
        paths = {
            name: self._relative(path) for name, path in {"checkpoint": checkpoint, **files}.items()
        }
        if None in paths.values():
            return
        self._write(model={"step": step, "files": paths, "signature": signature})
        if self.register:
            values = {
                key: value
                for key, value in self.metrics_at(step).items()
                if key.startswith((VALID, TEST))
            }
            metrics = {utf8(key): _number(value) for key, value in values.items()}
            self._write(
                register={**self.register, "step": step, "data": self._data, "metrics": metrics}
            )

    def truncate_after(self, step: int) -> None:
        self._lines.truncate_after(step)

    def end(self, status: Status) -> None:
        """Waits for the uploads, less after a failure or a signal; prints the model's URI and what is missing."""
        if self._writer is None:
            return
        self._write(end=status)
        self._ensure_uploads()
        if self._writer.waiting:
            _print(
                f"the last {len(self._writer.waiting)} bytes of {self._writer.path} could not be written"
            )
        until = time.monotonic() + min(self.wait, MAX_WAIT.get(status, self.wait))
        missing = []
        for destination in self._started:
            seconds = max(0.0, until - time.monotonic())
            if line := destination.wait(self.folder, self.uid, seconds):
                missing.append(
                    f"{line}; {_advice(destination, self.folder, is_done=status == 'FINISHED')}"
                )
        self._writer.close()
        self._writer = None
        self._print_results()
        for line in missing:
            _print(line)

    def describe(self) -> list[str]:
        return [f"tracking: {each.describe()}, run {self.uid[:8]}" for each in self.destinations]

    def _print_results(self) -> None:
        uploaded = self.mlflow and self.mlflow.uploaded(self.folder, self.uid)
        if uploaded and "model" in uploaded:
            _print(f"model best: {uploaded['model']}")
        if self.register and uploaded and "registered" in uploaded:
            _print(uploaded["registered"])

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
        if (
            path.is_relative_to(self.folder)
            and utf8(relative := str(path.relative_to(self.folder))) == relative
        ):
            return relative
        _print(
            f"{utf8(path)}: outside the run folder, or its name is not UTF-8; it is not recorded"
        )
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
                (self.folder / file).rename(
                    self.folder / file.replace("journal", f"journal-{old}", 1)
                )
        self.uid = uuid.uuid4().hex

    def _ensure_uploads(self) -> None:
        self._last_check = time.monotonic()
        for destination in self._started:
            destination.ensure_running(self.folder, self.uid)


def _advice(destination: Destination, folder: Path, *, is_done: bool = False) -> str:
    first = "" if is_done else "continue the run, or "  # which uploads what is missing too
    return f"nothing is lost, {first}complete it with: {destination.remedy(folder)}"


def flatten(params: Mapping[str, object]) -> dict[str, object]:
    """The leaves of nested dicts and lists: `a.b.0` -> value; an empty one is a leaf."""
    return dict(_leaves("", params))


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    items = (
        value
        if isinstance(value, Mapping)
        else dict(enumerate(value))
        if isinstance(value, list | tuple)
        else {}
    )
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
