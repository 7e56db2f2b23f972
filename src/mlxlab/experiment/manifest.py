"""The manifest of a run folder, `manifest.json`: what the run is and how it ended. `STATUS.<status>` is for shells.

Times are seconds since 1970. A run killed with -9 stays RUNNING; `effective_status` detects that it is DEAD, which the
next attempt writes down if it is refused.
"""

import copy
import logging
import os
import platform
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, NotRequired, TypedDict, get_args

import psutil

from mlxlab.checkpoint.continuation import Continuation
from mlxlab.constraints import MinLen
from mlxlab.errors import DataError, InputNotFoundError, RunInterrupted, UserError
from mlxlab.experiment.facts.attempts import (
    Attempt,
    Status,
    ended_attempts,
    is_dead,
    seconds_of,
    status_to_keep,
)
from mlxlab.experiment.sweep_start import of_sweep
from mlxlab.experiment.warning_list import WarningList
from mlxlab.files.atomic import without_nonfinite, write_json
from mlxlab.files.untrusted import read_json
from mlxlab.nearest import no_such_folder
from mlxlab.record.run_record import Evaluation
from mlxlab.tracking import provenance

FILE = "manifest.json"
FORMAT: Literal[2] = 2
STATUSES: tuple[Status, ...] = get_args(Status)

logger = logging.getLogger(__name__)


class Parent(TypedDict):
    """The origin of a run: `kind` is checkpoint, pretrained, init_from, rerun, teacher, member, selection or sweep."""

    kind: str
    of: str


class RunFacts(TypedDict, total=False):
    """What the model is to do, and with what; `examples` by split."""

    task: str  # as `Task.kind`
    masked: bool
    label: str  # column
    columns: list[str]  # that the model reads
    classes: list[str]  # names of the first classes or labels
    num_classes: int
    positive_class: str  # of two
    examples: dict[str, int]
    text: dict[str, tuple[int, int]]  # documents and tokens of a text by split
    estimated: list[str]  # splits whose sizes are estimated
    tokenizer: str  # kind
    vocab_size: int
    parameters: int
    trainable_parameters: int
    batches_per_epoch: int
    epochs: int  # of trainer.epochs=auto


class Inputs(TypedDict, total=False):
    """What a run is made of. Seed and fold are equal for runs that may be compared pair by pair."""

    overrides: list[str]  # those of all attempts: the last one of each key
    first: list[str]  # those that the first attempt was started with, `hydra.run.dir` included
    continued: list[Continuation]  # what continued it, in order
    choices: dict[str, str]  # config group -> option
    parents: list[Parent]
    run_dir: str  # `hydra.run.dir` as typed
    seed: int
    fold: int | None
    folds: int | None
    versions: dict[str, str]
    config_hash: str
    data: str  # fingerprint
    tokenizer: str  # fingerprint
    teachers: dict[str, str]
    initial_weights: dict[str, str]
    kernels: str
    messages: list[str]  # on the data and the teachers
    rows: int  # examples whose length was measured
    row_limit: int  # tokens, `data.seq_len` or what the data chose
    truncated_rows: int  # those of them that are longer
    left_out_rows: int  # rows that cannot be used, see `data.on_error`; they are not among `rows`
    facts: RunFacts


class Outcome(TypedDict, total=False):
    """The results of a run; null is not finite. `final` are the metrics of the last evaluation."""

    objective: str
    best: float | None
    best_step: int
    parameters: float
    speed: float | None
    steps: int
    tokens: int
    rounds_done: int
    final: dict[str, float | None]
    final_state: str
    wall_seconds: float
    exit_code: int


class Manifest(TypedDict):
    """`manifest.json`. `inputs` are known once training begins."""

    format: Literal[2]
    id: str
    name: str
    status: Status
    attempts: Annotated[list[Attempt], MinLen(1)]
    git: NotRequired[dict[str, str | None]]  # commit, dirty
    inputs: NotRequired[Inputs]
    outcome: NotRequired[Outcome]


class RunManifest:
    """Maintains the manifest for the duration of a `with` block: PREEMPTED by a signal, FAILED by any other error.

    An attempt that fails before `begin` leaves the status of the one before, and one that finds a run that is done
    is not recorded. `earlier` is the manifest of the one before, if any, and `evaluation` what a run that ended has
    measured.
    """

    evaluation: Evaluation | None = None

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock, self._warned = folder, threading.Lock(), False
        self._code, self._warnings = provenance.UNKNOWN_CODE, WarningList()
        self._thread = threading.Thread(target=self._add_commit, name="manifest", daemon=True)

    def __enter__(self) -> "RunManifest":
        earlier: Manifest | None = None
        try:
            with suppress(InputNotFoundError):
                earlier = read_manifest(self.folder)
        except DataError as error:
            logger.warning(f"{error}; replaced by a new one")
        host, pid, start = platform.node(), os.getpid(), psutil.Process().create_time()
        now = time.time()
        attempt = Attempt(
            host=host, pid=pid, process_start=start, start=now, status="RUNNING", trained=False
        )
        new_id, name = uuid.uuid4().hex, self.folder.name
        self._fields = earlier or Manifest(
            format=FORMAT, id=new_id, name=name, status="RUNNING", attempts=[]
        )
        ended = ended_attempts(self._fields["attempts"], self.folder, start)
        self._earlier_status = status_to_keep(self._fields["status"], ended, self._fields.keys())
        self.earlier: Manifest | None = (
            copy.deepcopy(earlier) if earlier and "inputs" in earlier else None
        )
        if self.earlier and self.earlier["status"] == "RUNNING":
            self.earlier |= {"status": "DEAD", "attempts": ended}
        self._fields["attempts"] = [*ended, attempt]
        logging.getLogger("mlxlab").addHandler(self._warnings)
        self._write("RUNNING", durable=False)  # that of the thread is
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.end(error)
        logging.getLogger("mlxlab").removeHandler(self._warnings)
        with self._lock:
            self._write(self._fields["status"])

    def end(self, error: BaseException | None) -> Manifest:
        """The manifest of a run that ends with this error, or none; nothing is written yet."""
        interrupted = isinstance(error, KeyboardInterrupt | RunInterrupted)
        status: Status = "DONE" if error is None else "PREEMPTED" if interrupted else "FAILED"
        exit_code = (
            error.exit_code
            if isinstance(error, UserError)
            else {"DONE": 0, "PREEMPTED": 130}.get(status, 1)
        )
        self._thread.join(3.0)
        with self._lock:
            last = self._fields["attempts"][-1]
            last |= {"warnings": self._warnings.lines} if self._warnings.lines else {}
            last |= {"status": status, "end": last.get("end", time.time()), "exit_code": exit_code}
            if error is not None:
                last["error"] = (str(error) or type(error).__name__)[:2000]
            self._fields["status"] = self._earlier_status or status
            if self._earlier_status is not None and self.earlier and "git" in self.earlier:
                self._fields["git"] = self.earlier["git"]  # the code that trained
            if self._earlier_status == status == "DONE":  # nothing was left to train
                self._fields["attempts"] = self._fields["attempts"][:-1]
            elif self._earlier_status is None or status == "DONE":
                wall = seconds_of(self._fields["attempts"])
                self._fields.setdefault("outcome", {}).update(
                    {"wall_seconds": wall, "exit_code": exit_code}
                )
                self._fields["status"] = status
            return copy.deepcopy(self._fields)

    @property
    def id(self) -> str:
        """That of the run: the same after a resume."""
        return self._fields["id"]

    def forget_earlier(self) -> None:
        """Another run begins in the folder: its manifest has nothing of the earlier one."""
        with self._lock:
            attempts, code, name = (
                self._fields["attempts"][-1:],
                self._fields.get("git"),
                self.folder.name,
            )
            self._fields = Manifest(
                format=FORMAT, id=uuid.uuid4().hex, name=name, status="RUNNING", attempts=attempts
            )
            self._fields |= {"git": code} if code else {}
            self.earlier = self._earlier_status = None
            self._write("RUNNING")

    def begin(self, inputs: Inputs, uid: str = "", name: str = "", *, trains: bool = True) -> None:
        """Training begins: from now on this attempt decides the status. The outcome of the one before is removed.

        With `trains=False` nothing is left to train, and the run is only evaluated again.
        """
        with self._lock:
            self._earlier_status, self._fields["attempts"][-1]["trained"] = None, trains
            self._fields |= {
                "inputs": inputs,
                "id": uid or self._fields["id"],
                "name": name or self._fields["name"],
            }
            self._fields.pop("outcome", None)
            self._write("RUNNING")

    def record(self, outcome: Outcome) -> None:
        with self._lock:
            self._fields["outcome"] = outcome
            self._write("RUNNING")

    def code(self, wait: float = 0.0) -> provenance.Code:
        """Commit and changes of the code, as far as git has answered; waits at most `wait` seconds for it."""
        self._thread.join(wait)
        return self._code

    def _add_commit(self) -> None:
        """In a thread of its own: git takes time."""
        tags = provenance.git()
        with self._lock:
            self._fields["git"] = {
                "commit": tags.get("mlflow.source.git.commit"),
                "dirty": tags["git.dirty"],
            }
            self._write(self._fields["status"])
        self._code = provenance.code(tags)

    def _write(self, status: Status, durable: bool = True) -> None:
        """Replaces both files; at every instant there is a status. A full disk does not end the run."""
        self._fields["status"] = status
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / FILE, without_nonfinite(self._fields), durable=durable)
            (self.folder / f"STATUS.{status}").touch()
            for other in {*STATUSES} - {status}:
                (self.folder / f"STATUS.{other}").unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                logger.warning(f"{self.folder / FILE}: not written: {error.strerror or error}")
            self._warned = True


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder; raises InputNotFoundError if there is none, DataError if it is damaged."""
    path = folder / FILE
    if not os.path.isdir(folder):
        raise InputNotFoundError(no_such_folder(folder, "a run folder"))
    try:
        if (number := read_json(path, dict[str, object]).get("format", 1)) != FORMAT:
            raise DataError(f"{path}: run folder of format {number}, expected format {FORMAT}")
        return read_json(path, Manifest)
    except InputNotFoundError:
        raise InputNotFoundError(
            f"{path}: not found; expected a run folder{of_sweep(folder)}"
        ) from None


def effective_status(folder: Path) -> Status:
    """The status in a run folder; DEAD for one that is RUNNING on this machine without its process."""
    manifest = read_manifest(folder)
    return (
        "DEAD"
        if manifest["status"] == "RUNNING" and is_dead(manifest["attempts"][-1])
        else manifest["status"]
    )


def with_ended_attempts(manifest: Manifest, folder: Path) -> Manifest:
    """The same, where an attempt without its process has ended."""
    last, ended = manifest["attempts"][-1], ended_attempts(manifest["attempts"], folder)
    return {**manifest, "attempts": ended if is_dead(last) else [*ended[:-1], last]}
