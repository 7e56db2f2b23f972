"""Uploads checkpoints in the background while training continues, and the rest when it ends."""

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType

from mlxlab.errors import DataError, WriteError
from mlxlab.extensions.cloud.commits import Commits
from mlxlab.extensions.cloud.object_store import StorageError
from mlxlab.extensions.cloud.run_files import FileEntry, RunFiles, Snapshots, release
from mlxlab.terminal.wording import counted

POLL_SECONDS = 0.5
MAX_DELAY = 60.0  # seconds between attempts
CLOSING_DELAY = 0.2
NICENESS = 10  # Training goes before the thread.

logger = logging.getLogger(__name__)


class Uploads:
    """A thread that commits every new checkpoint of `source`, the newest first.

    It retries for as long as it runs. The folder is the queue, so nothing is lost when the process
    dies: another one uploads what is missing. A failure is reported once, and is fatal only if
    `required`.
    """

    def __init__(
        self,
        commits: Commits,
        source: RunFiles,
        *,
        keep: int | None,
        wait: float,
        required: bool,
    ) -> None:
        self.commits = commits
        self.source = source
        self.keep = keep
        self.wait = wait
        self.required = required
        self.sent = 0  # bytes
        self.uploaded = 0  # checkpoints
        self.fault = ""  # why the last attempt failed
        self._snapshots = Snapshots(self._note_progress)
        self._committed: dict[str, str] | None = None  # name -> digest of its mark
        self._closing = threading.Event()
        self._is_stopped = False
        self._is_untidy = False
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)

    def __enter__(self) -> "Uploads":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Waits for what is missing, then names it. Raises WriteError if it is required."""
        address = self.commits.address
        pending = self.close()
        if not pending:
            sent = f"{counted(self.uploaded, 'checkpoint')} ({self.sent / 1e6:.1f} MB)"
            logger.info(f"cloud: {sent} sent to {address}")
            return
        reason = self.fault or "still running"
        message = f"{address}: {', '.join(pending)} not uploaded ({reason})"
        if self.required and error is None:
            raise WriteError(message)
        logger.warning(f"cloud: {message}; the next run in this folder uploads it")

    def close(self) -> list[str]:
        """Waits while uploads make progress; returns the names of the missing checkpoints."""
        self._note_progress()
        self._closing.set()
        while self._thread.is_alive() and time.monotonic() - self._progress < self.wait:
            self._thread.join(0.05)
        self._is_stopped = True
        return self.pending()

    def pending(self) -> list[str]:
        """Names of the checkpoints that are not committed, the newest first."""
        committed = dict(self._committed or {})
        names = self.source.names()
        retained = self.source.retained([*{*names, *committed}], self.keep)
        missing = [name for name in names if committed.get(name) != self._digest(name)]
        return [name for name in missing if name in retained]

    def _run(self) -> None:
        _lower_priority()
        delay = 1.0
        while not self._is_stopped:
            is_last = self._closing.is_set()  # Read before looking: nothing follows then.
            try:
                has_uploaded = self._upload_next()
            except (StorageError, DataError, OSError) as error:
                self._report(error)
                self._pause(delay)
                delay = min(2 * delay, MAX_DELAY)
                continue
            delay = 1.0
            self.fault = ""
            if not has_uploaded:
                if is_last:
                    return
                self._pause(POLL_SECONDS)

    def _upload_next(self) -> bool:
        """Commits the newest checkpoint that is missing, if there is one."""
        if self._committed is None:
            if not self.source.names():
                return False
            self._committed = self._read_committed()
        pending = self.pending()
        if not pending:
            return False
        name = pending[0]
        files: dict[str, FileEntry] = {}
        try:
            for paths, held in zip(self.source.files(name), (True, False), strict=True):
                for path in paths:
                    files[path] = self._snapshots.take(self.source.folder / path, held=held)
            self.sent += self.commits.commit(name, files, self._note_progress)
        except FileNotFoundError:
            if name in self.source.names():
                raise
            return True  # It was removed meanwhile: there is a newer one.
        finally:
            release(files)
        self._committed[name] = files[self.source.mark(name)].sha256
        self.uploaded += 1
        self._retain(self._committed)
        return True

    def _retain(self, committed: dict[str, str]) -> None:
        """Removes old commits. What cannot be removed stays, and costs room only."""
        retained = self.source.retained([*committed], self.keep)
        try:
            self.commits.retain(retained)
            self._committed = {name: committed[name] for name in retained}
        except (StorageError, DataError) as error:
            if not self._is_untidy:
                logger.warning(f"cloud: old checkpoints not removed: {error}")
            self._is_untidy = True

    def _read_committed(self) -> dict[str, str]:
        """What the store has of this run; what does not lead to its present state is set aside."""
        names = self.commits.names()
        superseded = self.source.superseded(names)
        self.commits.supersede(superseded)
        committed = {}
        for name in set(names) - set(superseded):
            with suppress(DataError):  # A damaged one is committed again.
                mark = self.commits.read(name)["files"].get(self.source.mark(name))
                committed[name] = "" if mark is None else mark["sha256"]
        return committed

    def _digest(self, name: str) -> str:
        path = self.source.folder / self.source.mark(name)
        try:
            return self._snapshots.take(path, held=False).sha256
        except OSError:
            return ""

    def _note_progress(self) -> None:
        self._progress = time.monotonic()

    def _pause(self, seconds: float) -> None:
        if self._closing.is_set():
            time.sleep(CLOSING_DELAY)
        else:
            self._closing.wait(seconds)

    def _report(self, error: Exception) -> None:
        if not self.fault:
            logger.warning(f"cloud: not uploaded yet: {error}; trying again, training continues")
        self.fault = str(error)


def _lower_priority() -> None:
    """Lowers the priority of this thread, where the system has priorities of threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
