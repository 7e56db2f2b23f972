"""Records a run in `journal.jsonl` of its folder; another process uploads it. The format is that of `records`."""

import os
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxlab.constraints import NonNegative
from mlxlab.errors import CannotCreateError
from mlxlab.tracking import jsonl, provenance
from mlxlab.tracking.mlflow import naming, spool, wait
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.records import FILE, STATE, is_uid, read_start, read_uid, utf8
from mlxlab.tracking.tracker import Status

PARENT = "MLXLAB_PARENT_RUN"  # environment: uid of the sweep that this process is a job of
_NOT_FINITE = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}
LOOK_AFTER = 60.0  # seconds between looks whether the syncer lives


class Journal:
    """Records a run in its folder; a process per store brings it to MLflow.

    Args:
        uri: the store as MLflow writes it; null takes MLFLOW_TRACKING_URI, else mlruns/mlflow.db in the project.
        artifacts: folder or URI of the artifacts; null takes MLFLOW_ARTIFACT_ROOT, else `artifacts` by the database.
        experiment: name of the MLflow experiment; made if it is not there.
        log_models: whether the best checkpoint is logged as a model that `mlflow.pyfunc.load_model` loads.
        wait: seconds to wait at the end for the store; what is missing then follows by itself.

    Raises:
        ConfigError: an address that MLflow has no store for.
    """

    def __init__(
        self,
        uri: str | None,
        artifacts: str | None,
        experiment: str,
        log_models: bool,
        wait: NonNegative,
        *,
        folder: Path,
        project: Path,
    ) -> None:
        self.address = resolve(uri, artifacts, project)
        self.experiment, self.log_models, self.wait = experiment, log_models, wait
        self.folder, self.project = folder.absolute(), project
        self.uid = read_uid(self.folder / FILE) or uuid.uuid4().hex
        self._lines: jsonl.JsonlAppender | None = None
        self._keys: dict[str, str] = {}
        self._warned = False
        self._looked = 0.0

    def start(
        self, params: Mapping[str, Any], tags: dict[str, str], *, resumed: bool = False, name: str | None = None
    ) -> None:
        """Opens the journal and starts the store's syncer if none lives.

        Args:
            params: nested; flattened to `a.b.0`.
            tags: added to those of `provenance`.
            resumed: go on with the run whose journal is in the folder. Otherwise that journal is put aside.
            name: shown in MLflow; None takes the folder's name.

        Raises:
            CannotCreateError: the journal cannot be written, or another process is writing it.
            DataError: the journal to resume is damaged.
        """
        if not resumed:
            self._put_aside()
        elif (self.folder / FILE).exists():
            read_start(self.folder / FILE)  # raises if the file is not a journal
        self._lines = jsonl.JsonlAppender(self.folder / FILE)
        if self._lines.torn:
            _say(f"tracking: cut {self._lines.torn} bytes of a line that was being written when the run died")
        parent = os.environ.get(PARENT, "")
        tags = provenance.gather(self.project) | ({"sweep": parent} if is_uid(parent) else {}) | tags
        self._write(
            start={
                "uid": self.uid,
                "name": name or utf8(self.folder.name),
                "experiment": self.experiment,
                "params": naming.flatten(params),
                "tags": {naming.clean(key): naming.truncate(value, naming.MAX_TAG) for key, value in tags.items()},
                "parent": parent if is_uid(parent) else None,
                "store": utf8(self.address.shown),
                "artifacts": self.address.artifacts,
                "resumed": resumed,
            }
        )
        self._register()

    def log_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Values at an optimizer step. NaN and infinities are kept."""
        assert self._lines is not None, "Journal.start comes first"
        pairs = [(self._keys.get(key) or self._key(key)) + _number(value) for key, value in metrics.items()]
        # By hand: a general encoder takes longer than everything else here.
        line = f'{{"t":{time.time_ns() // 1_000_000},"s":{int(step)},"m":{{{",".join(pairs)}}}}}\n'
        self._heed(self._lines.append(line.encode()))
        if time.monotonic() - self._looked > LOOK_AFTER:
            self._look_after_syncer()

    def set_tags(self, tags: dict[str, str]) -> None:
        self._write(tags={naming.clean(key): naming.truncate(value, naming.MAX_TAG) for key, value in tags.items()})

    def log_dataset(self, name: str, digest: str, source: str, context: str = "training") -> None:
        """The data a run used; `context` says for what."""
        self._write(dataset={"name": name, "digest": digest, "source": source, "context": context})

    def log_artifact(self, path: Path, to: str = "") -> None:
        """A file or folder in the run folder, to be copied into the folder `to` of the run's artifacts."""
        try:
            self._write(artifact={"path": self._relative(path), "to": naming.clean(to) if to else ""})
        except ValueError as error:
            _say(f"tracking: {error}; it is not recorded")

    def log_model(
        self,
        checkpoint: Path,
        *,
        name: str = "best",
        step: int | None = None,
        files: dict[str, Path] | None = None,
        signature: dict[str, str] | None = None,
        example: list[dict[str, Any]] | None = None,
    ) -> None:
        """The code of the model is `inference/pyfunc_model.py` of the package that uploads it."""
        if not self.log_models:
            return
        try:
            paths = {key: self._relative(path) for key, path in {"checkpoint": checkpoint, **(files or {})}.items()}
        except ValueError as error:
            _say(f"tracking: model {name}: {error}; it is not recorded")
            return
        model = {
            "name": naming.clean(name).replace("/", "_").replace(":", "_").replace(".", "_"),
            "step": step,
            "files": paths,
            "signature": signature,
            "example": example,
        }
        self._write(model=model)

    def truncate_after(self, step: int) -> None:
        """Forgets what was logged above `step`, here and in the store: a resumed run logs it again."""
        assert self._lines is not None
        note = {"t": time.time_ns() // 1_000_000, "truncate_after": int(step)}
        self._lines.blank(lambda record: record.get("s", step) > step, note)

    def end(self, status: Status) -> None:
        """Closes the run and waits up to `wait` seconds for the store; says in one line what is missing then."""
        if self._lines is None:
            return
        self._write(end=status)
        self._look_after_syncer()
        if self._lines.waiting:
            _say(f"tracking: the last {len(self._lines.waiting)} bytes of {self._lines.path} could not be written")
        seconds = self.wait if status == "FINISHED" else min(self.wait, 3.0)
        missing = wait.wait_for_upload(self.address, self._lines.path, self.folder / STATE, self.uid, seconds)
        self._lines.close()
        self._lines = None
        if missing and self.address.spool:
            _say(f"tracking: {missing}; nothing is lost, complete it with: runs.py sync {self.folder}")

    def describe(self) -> list[str]:
        return [f"tracking: {self.address.shown}, experiment {self.experiment}, run {self.uid[:12]}"]

    def _write(self, **record: Any) -> None:
        assert self._lines is not None, "Journal.start comes first"
        self._heed(self._lines.write({"t": time.time_ns() // 1_000_000, **record}))

    def _heed(self, reason: str | None) -> None:
        if reason and self._lines and not self._warned:
            _say(f"tracking: {self._lines.path} cannot be written ({reason}); its lines wait in memory")
        self._warned = bool(reason)

    def _key(self, key: str) -> str:
        self._keys[key] = f'"{naming.clean(key)}":'  # has no character that JSON escapes
        return self._keys[key]

    def _relative(self, path: Path) -> str:
        path = Path(os.path.abspath(path))
        if not path.is_relative_to(self.folder):
            raise ValueError(f"{path}: outside the run folder")
        relative = str(path.relative_to(self.folder))
        relative.encode()  # raises if the name is not UTF-8
        return relative

    def _put_aside(self) -> None:
        """Another run's journal makes room. It stays in the folder: the syncer may not be through with it."""
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

    def _register(self) -> None:
        where = self.address.spool
        try:
            if where is None:
                raise OSError("no folder for it can be written")
            spool.register(where, self.uid, self.folder)
            spool.start_syncer(self.address)
        except OSError as error:
            self.address = replace(self.address, spool=None)
            _say(f"tracking: no syncer ({error}); nothing is lost, complete it with: runs.py sync {self.folder}")
        self._looked = time.monotonic()

    def _look_after_syncer(self) -> None:
        self._looked = time.monotonic()
        try:
            spool.start_syncer(self.address)
        except OSError:
            return  # said at the start


def _number(value: float) -> str:
    text = repr(float(value))
    return _NOT_FINITE.get(text, text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
