"""Records a run in `journal.jsonl` of its folder; another process uploads it. The format is that of `records`."""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from mlxlab.errors import CannotCreateError, WriteError
from mlxlab.tracking import jsonl, provenance
from mlxlab.tracking.records import FILE, STATE, is_uid, read_start, read_state, read_uid, utf8
from mlxlab.tracking.tracker import Status

PARENT = "MLXLAB_PARENT_RUN"  # environment: uid of the sweep that this process is a job of
_NOT_FINITE = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}
CHECK_SECONDS = 60.0  # between checks that the uploading process is alive


class Uploader(Protocol):
    """Uploads journals to a store, in another process. Only `wait` may block."""

    @property
    def store(self) -> str:
        """Address of the store, without a password."""

    @property
    def artifacts(self) -> str | None:
        """Folder or URI of the artifacts; None where the store decides."""

    def enqueue(self, uid: str, folder: Path) -> None:
        """Queues the journal in the run folder, and starts the process. Raises OSError if there is no queue."""

    def ensure_running(self) -> None:
        """Starts the process again if it has ended."""

    def wait(self, journal: Path, state: Path, uid: str, seconds: float) -> str:
        """Waits up to `seconds` for the upload; returns a message on what is missing, or ""."""

    def sync_command(self, folder: Path) -> str:
        """The command with which a user completes the upload."""


class Journal:
    """A tracker that writes to the run folder.

    Args:
        uploader: uploads the journal.
        experiment: name of the experiment in the store.
        log_models: whether models are recorded.
        wait: seconds to wait for the store at the end; what is missing then follows by itself.
        folder: the run folder.
    """

    def __init__(self, uploader: Uploader, experiment: str, log_models: bool, wait: float, *, folder: Path) -> None:
        self.uploader, self.experiment, self.log_models, self.wait = uploader, experiment, log_models, wait
        self.folder = folder.absolute()
        self.uid = read_uid(self.folder / FILE) or uuid.uuid4().hex
        self._lines: jsonl.JsonlAppender | None = None
        self._keys: dict[str, str] = {}
        self._warned = False
        self._queued = False
        self._last_check = 0.0

    def start(
        self, params: Mapping[str, object], tags: dict[str, str], *, resumed: bool = False, name: str | None = None
    ) -> None:
        if not resumed:
            self._set_aside()
        elif (self.folder / FILE).exists():
            read_start(self.folder / FILE)  # raises if the file is not a journal
        self._lines = jsonl.JsonlAppender(self.folder / FILE)
        if self._lines.torn:
            _print(f"tracking: removed {self._lines.torn} bytes of a line that was being written when the run died")
        parent = os.environ.get(PARENT, "")
        tags = provenance.gather() | ({"sweep": parent} if is_uid(parent) else {}) | tags
        self._write(
            start={
                "uid": self.uid,
                "name": name or utf8(self.folder.name),
                "experiment": self.experiment,
                "params": {utf8(key): utf8(str(value)) for key, value in _leaves("", params)},
                "tags": _texts(tags),
                "parent": parent if is_uid(parent) else None,
                "store": self.uploader.store,
                "artifacts": self.uploader.artifacts,
                "resumed": resumed,
            }
        )
        self._enqueue()

    def log_metrics(self, step: int, metrics: dict[str, float]) -> None:
        assert self._lines is not None, "Journal.start comes first"
        pairs = [(self._keys.get(key) or self._key(key)) + _number(value) for key, value in metrics.items()]
        # By hand: a general encoder takes longer than everything else here.
        line = f'{{"t":{time.time_ns() // 1_000_000},"s":{int(step)},"m":{{{",".join(pairs)}}}}}\n'
        self._report(self._lines.append(line.encode()))
        if time.monotonic() - self._last_check > CHECK_SECONDS:
            self._ensure_upload()

    def set_tags(self, tags: dict[str, str]) -> None:
        self._write(tags=_texts(tags))

    def log_dataset(self, name: str, digest: str, source: str, context: str = "training") -> None:
        self._write(dataset=_texts({"name": name, "digest": digest, "source": source, "context": context}))

    def log_artifact(self, path: Path, to: str = "") -> None:
        try:
            self._write(artifact={"path": self._relative(path), "to": to})
        except ValueError as error:
            _print(f"tracking: {error}; it is not recorded")

    def log_model(
        self,
        checkpoint: Path,
        *,
        name: str = "best",
        step: int | None = None,
        files: dict[str, Path] | None = None,
        signature: dict[str, str] | None = None,
    ) -> None:
        if not self.log_models:
            return
        try:
            paths = {key: self._relative(path) for key, path in {"checkpoint": checkpoint, **(files or {})}.items()}
        except ValueError as error:
            _print(f"tracking: model {name}: {error}; it is not recorded")
            return
        model = {"name": name, "step": step, "files": paths, "signature": signature}
        self._write(model=model)

    def truncate_after(self, step: int) -> None:
        assert self._lines is not None, "Journal.start comes first"
        note = {"t": time.time_ns() // 1_000_000, "truncate_after": int(step)}
        try:
            self._lines.blank(lambda record: record.get("s", step) > step, note)
        except OSError as error:
            raise WriteError(f"{self._lines.path}: cannot be written ({error.strerror or error})") from None

    def end(self, status: Status) -> None:
        """Waits up to `wait` seconds for the store, 3 after a failure; prints the models' URIs and what is missing."""
        if self._lines is None:
            return
        self._write(end=status)
        self._ensure_upload()
        if self._lines.waiting:
            _print(f"tracking: the last {len(self._lines.waiting)} bytes of {self._lines.path} could not be written")
        seconds = self.wait if status == "FINISHED" else min(self.wait, 3.0)
        missing = ""
        if self._queued:
            missing = self.uploader.wait(self._lines.path, self.folder / STATE, self.uid, seconds)
        self._lines.close()
        self._lines = None
        uploaded = read_state(self.folder / STATE, self.uid)
        for name, uri in uploaded["models"].items() if uploaded else ():
            _print(f"tracking: model {name}: {uri}")
        if missing:
            _print(f"tracking: {missing}; {self._remedy()}")

    def describe(self) -> list[str]:
        return [f"tracking: {self.uploader.store}, experiment {self.experiment}, run {self.uid[:12]}"]

    def _write(self, **record: object) -> None:
        assert self._lines is not None, "Journal.start comes first"
        self._report(self._lines.write({"t": time.time_ns() // 1_000_000, **record}))

    def _report(self, error: str | None) -> None:
        if error and self._lines and not self._warned:
            _print(f"tracking: {self._lines.path} cannot be written ({error}); its lines wait in memory")
        self._warned = bool(error)

    def _key(self, key: str) -> str:
        self._keys[key] = f"{json.dumps(utf8(key))}:"
        return self._keys[key]

    def _relative(self, path: Path) -> str:
        path = Path(os.path.abspath(path))
        if not path.is_relative_to(self.folder):
            raise ValueError(f"{path}: outside the run folder")
        relative = str(path.relative_to(self.folder))
        relative.encode()  # raises if the name is not UTF-8
        return relative

    def _set_aside(self) -> None:
        """Renames the journal of an earlier run. It stays in the folder: its upload may not be complete."""
        if not (self.folder / FILE).exists():
            return
        if jsonl.has_writer(self.folder / FILE):
            raise CannotCreateError(f"another process is writing {self.folder / FILE}")
        old = read_uid(self.folder / FILE) or uuid.uuid4().hex
        for file in (FILE, STATE):
            path = self.folder / file
            if path.exists():
                path.rename(path.with_name(file.replace("journal", f"journal-{old}", 1)))
        self.uid = uuid.uuid4().hex

    def _enqueue(self) -> None:
        self._last_check = time.monotonic()
        try:
            self.uploader.enqueue(self.uid, self.folder)
            self._queued = True
        except OSError as error:
            _print(f"tracking: the run is not uploaded ({error}); {self._remedy()}")

    def _ensure_upload(self) -> None:
        self._last_check = time.monotonic()
        if self._queued:
            self.uploader.ensure_running()

    def _remedy(self) -> str:
        return f"nothing is lost, complete it with: {self.uploader.sync_command(self.folder)}"


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    """The leaves of nested dicts and lists as `a.b.0` -> value; an empty one is a leaf."""
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        yield from _leaves(f"{path}.{key}" if path else str(key), item)
    if not items and path:
        yield path, value


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    return {utf8(key): utf8(str(value)) for key, value in fields.items()}


def _number(value: float) -> str:
    text = repr(float(value))
    return _NOT_FINITE.get(text, text)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
