"""Uploads checkpoints in the background while training continues, and what is missing when it ends."""

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from mlxlab.errors import DataError, WriteError
from mlxlab.extensions.cloud.commits import Commits
from mlxlab.extensions.cloud.object_store import StorageError
from mlxlab.extensions.cloud.snapshot import FileEntry, Snapshots, release

POLL_SECONDS = 0.5
MAX_DELAY = 60.0  # seconds between attempts
NICENESS = 10  # of the thread: training goes first

logger = logging.getLogger(__name__)


class Source(Protocol):
    """What is uploaded: sets of files in a folder, each complete or absent, which come and go."""

    folder: Path

    def names(self) -> list[str]:
        """Of the sets that there are, the newest first."""

    def mark(self, name: str) -> str:
        """The path of a file that differs in every set of that name, relative to the folder."""

    def files(self, name: str) -> tuple[list[str], list[str]]:
        """Paths of its files that may be removed or replaced at any time, and of others; OSError if it is gone."""

    def retained(self, names: Sequence[str], keep: int | None) -> list[str]:
        """Those of some names that stay when `keep` of the newest do."""

    def superseded(self, names: Sequence[str]) -> list[str]:
        """Those of some names that do not lead to the newest set of the folder."""


class Uploads:
    """A thread that commits every new set of `source`, the newest first, and retries for as long as it runs.

    The folder is the queue, so nothing is lost when the process dies: another one uploads what is missing. A failure
    is reported once, and is fatal only if `required`.
    """

    def __init__(
        self, commits: Commits, source: Source, *, keep: int | None, wait: float, required: bool
    ) -> None:
        self.commits, self.source = commits, source
        self.keep, self.wait, self.required = keep, wait, required
        self.sent, self.uploaded = 0, 0  # bytes; sets
        self.fault = ""  # why the last attempt failed
        self._snapshots = Snapshots(self._progressed)
        self._committed: dict[str, str] | None = None  # name -> digest of its mark
        self._closing = threading.Event()
        self._stopped = self._untidy = False
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)

    def __enter__(self) -> "Uploads":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Waits for what is missing, then names it. Raises WriteError if it is required."""
        pending = self.close()
        message = f"{self.commits.address}: {', '.join(pending)} not uploaded ({self.fault or 'still running'})"
        if not pending:
            count = "1 checkpoint" if self.uploaded == 1 else f"{self.uploaded} checkpoints"
            logger.info(f"cloud: {count} ({self.sent / 1e6:.1f} MB) sent to {self.commits.address}")
        elif self.required and error is None:
            raise WriteError(message)
        else:
            logger.warning(
                f"cloud: {message}; nothing is lost: the next run in this folder uploads it"
            )

    def close(self) -> list[str]:
        """Waits while uploads make progress; returns the names of the sets that are missing."""
        self._progressed()
        self._closing.set()
        while self._thread.is_alive() and time.monotonic() - self._progress < self.wait:
            self._thread.join(0.05)
        self._stopped = True
        return self.pending()

    def pending(self) -> list[str]:
        """Names of the sets that are not committed, the newest first."""
        committed, names = dict(self._committed or {}), self.source.names()
        retained = self.source.retained([*{*names, *committed}], self.keep)
        return [
            name for name in names if name in retained and committed.get(name) != self._digest(name)
        ]

    def _run(self) -> None:
        _lower_priority()
        delay = 1.0
        while not self._stopped:
            closing = self._closing.is_set()  # before looking: what is there now is the last
            try:
                uploaded = self._upload_next()
            except (StorageError, DataError, OSError) as error:
                self._report(error)
                limit = 2.0 if self._closing.is_set() else MAX_DELAY
                self._pause(min(delay, limit))
                delay = min(2 * delay, MAX_DELAY)
                continue
            delay, self.fault = 1.0, ""
            if not uploaded and closing:
                return
            if not uploaded:
                self._pause(POLL_SECONDS)

    def _upload_next(self) -> bool:
        """Commits the newest set that is missing, if there is one."""
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
            for group, held in zip(self.source.files(name), (True, False), strict=True):
                for path in group:
                    files[path] = self._snapshots.take(self.source.folder / path, held=held)
            self.sent += self.commits.commit(name, files, self._progressed)
        except FileNotFoundError:
            if name in self.source.names():
                raise
            return True  # removed meanwhile: there is a newer one
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
            if not self._untidy:
                logger.warning(f"cloud: old checkpoints not removed: {error}")
            self._untidy = True

    def _read_committed(self) -> dict[str, str]:
        """What the store has of this run. What does not lead to the present state is set aside first."""
        names = self.commits.names()
        superseded = self.source.superseded(names)
        self.commits.supersede(superseded)
        committed = {}
        for name in set(names) - set(superseded):
            with suppress(DataError):  # damaged: it is committed again
                committed[name] = self.commits.read(name)["files"].get(
                    self.source.mark(name), {"sha256": ""}
                )["sha256"]
        return committed

    def _digest(self, name: str) -> str:
        try:
            return self._snapshots.take(
                self.source.folder / self.source.mark(name), held=False
            ).sha256
        except OSError:
            return ""

    def _progressed(self) -> None:
        self._progress = time.monotonic()

    def _pause(self, seconds: float) -> None:
        if self._closing.is_set():
            time.sleep(min(seconds, 0.2))
        else:
            self._closing.wait(seconds)

    def _report(self, error: Exception) -> None:
        reason = str(error)
        if not self.fault:
            logger.warning(f"cloud: not uploaded yet: {reason}; trying again, training continues")
        self.fault = reason


def _lower_priority() -> None:
    """Of this thread, and of those that it starts, where the system has priorities of threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
