"""Keeps the record of a run, `run.json`, while its processes work.

A run that is killed with -9 stays running in its record: `record.attempts.read_now` finds that its process is gone.
"""

import copy
import logging
import threading
from pathlib import Path
from types import TracebackType

from mlxlab.errors import WriteError
from mlxlab.record import provenance
from mlxlab.record.attempts import (
    end_attempt,
    ended_attempts,
    is_of_this_process,
    new_attempt,
    seconds_of,
    status_to_keep,
)
from mlxlab.record.run_file import new_record, read_or_begin, write_run
from mlxlab.record.run_record import Evaluation, RunRecord, Status, Training
from mlxlab.terminal.redact import redact
from mlxlab.terminal.wording import one_line

MAX_WARNINGS = 50

logger = logging.getLogger(__name__)


class RunWriter:
    """Maintains the record for the duration of a `with` block: interrupted by a signal, failed by any other error.

    It raises WriteError where the record cannot be written at all; a disk that is full later ends no run.

    An attempt that fails before `begin` leaves the status of the one before, and one that finds a run that is
    finished is not recorded.

    Attributes:
        record: what is known of the run.
        earlier: the record as this attempt found it, if the run had begun.
    """

    record: RunRecord
    earlier: RunRecord | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._warned = False
        self._code = provenance.UNKNOWN_CODE
        self._warnings = WarningList()
        self._earlier_status: Status | None = None
        # It is set where the code is that of an attempt before, and once nothing more is written.
        self._knows_code = False
        self._thread = threading.Thread(target=self._add_commit, name="run record", daemon=True)

    def __enter__(self) -> "RunWriter":
        logging.getLogger("mlxlab").addHandler(self._warnings)
        self.record = read_or_begin(self.folder)
        self._attempt = new_attempt()
        attempts = self.record.attempts
        if attempts and is_of_this_process(attempts[-1]):
            self._attempt = attempts.pop()  # The task of a sweep has begun it.
        ended = ended_attempts(attempts, self.folder, self._attempt.process_start)
        self._earlier_status = status_to_keep(self.record, ended)
        if self.record.has_begun:
            self.earlier = copy.deepcopy(self.record)
            if self.earlier.status == "running":
                self.earlier.status = self._earlier_status or "killed"
                self.earlier.attempts = ended
        self.record.attempts = [*ended, self._attempt]
        self.record.status = "running"
        write_run(self.folder, self.record, durable=False)  # The thread writes again.
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.end(error)
        with self._lock:
            self._knows_code = True
        logging.getLogger("mlxlab").removeHandler(self._warnings)
        self.write()

    def forget_earlier(self) -> None:
        """Another run begins in the folder: its record has nothing of the earlier one."""
        with self._lock:
            record = new_record(self.folder)
            record.attempts = self.record.attempts[-1:]
            self.earlier = None
            self._replace(record)

    def begin(self, record: RunRecord, *, trains: bool = True) -> None:
        """Training begins: from now on this attempt decides the status, and all that was recorded is replaced.

        Args:
            record: what is known before the first step; without an id or a name it keeps those that it has.
            trains: false if nothing is left to train, and the run is only evaluated again.
        """
        with self._lock:
            record.id = record.id or self.record.id
            record.name = record.name or self.record.name
            record.attempts = self.record.attempts
            record.attempts[-1].trained = trains
            record.has_begun = True
            self._replace(record)

    def trained(self, training: Training, parameters: int) -> None:
        """Records what training came to, and the number of parameters, which growth changes."""
        with self._lock:
            self.record.training = training
            self.record.model.parameters = parameters
            self._write()

    def evaluated(self, evaluation: Evaluation) -> None:
        """Records the final evaluation; raises WriteError where it cannot be written, for it would be lost."""
        with self._lock:
            self.record.evaluation = evaluation
            self.record.is_evaluated = True
            write_run(self.folder, self.record)

    def end(self, error: BaseException | None) -> RunRecord:
        """The record of a run that ends with this error, or none; nothing is written yet."""
        self._thread.join(3.0)
        with self._lock:
            record = self.record
            last = self._attempt
            last.warnings = self._warnings.lines
            end_attempt(last, error)
            status = last.status
            kept = self._earlier_status
            record.status = kept or status
            if kept is not None and self.earlier:
                record.code = self.earlier.code  # It is that of the code that trained.
                self._knows_code = True
            if kept == status == "finished" and record.job is None:  # Nothing was left to train.
                record.attempts = [each for each in record.attempts if each is not last]
            elif kept is None or status == "finished":
                record.training.seconds = seconds_of(record.attempts)
                record.status = status
            return record

    def code(self, wait: float = 0.0) -> provenance.Code:
        """Commit and changes of the code, as far as git has answered; waits at most `wait` seconds for it."""
        self._thread.join(wait)
        return self._code

    def write(self) -> None:
        """Replaces the file of the record."""
        with self._lock:
            self._write()

    def _add_commit(self) -> None:
        """Asks git in a thread of its own, because it takes time."""
        tags = provenance.git()
        with self._lock:
            if self._knows_code:
                return
            self.record.code.commit = tags.get("mlflow.source.git.commit", "")
            self.record.code.dirty = {"true": True, "false": False}.get(
                tags["mlflow.source.git.dirty"]
            )
            self._write()
        self._code = provenance.code(tags)

    def _replace(self, record: RunRecord) -> None:
        """Writes another record of the same process, whose job and commit it takes over."""
        record.job = self.record.job
        record.code.commit = self.record.code.commit
        record.code.dirty = self.record.code.dirty
        self.record = record
        self._earlier_status = None
        self._write()

    def _write(self) -> None:
        """Replaces the files; a full disk does not end the run."""
        try:
            write_run(self.folder, self.record)
        except WriteError as error:
            if not self._warned:
                logger.warning(str(error))
            self._warned = True


class WarningList(logging.Handler):
    """Collects warnings, each once, up to a limit."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = redact(one_line(record.getMessage(), 500))
        if line not in self.lines and len(self.lines) < MAX_WARNINGS:
            self.lines.append(line)
