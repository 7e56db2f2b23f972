"""Uploads journals, each record exactly once: `python -m mlxlab.tracking.upload`, and `mlxlab runs sync`.

The store says how far it has a journal; nothing else does. One process at a time uploads a queue, and ends after a while
without work. While the store is unavailable it tries again; what is left waits for the next run or `runs sync`.
"""

import os
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.tracking.destination import Entry, Store, Upload
from mlxlab.tracking.one_line import one_line, printable
from mlxlab.tracking.queue import HANDOVER, LOCK, VARIABLE, Queue, load, lock, start_uploading
from mlxlab.tracking.records import (
    FILE,
    JOURNALS,
    has_writer,
    locate,
    read_first,
    read_records,
    read_uid,
    utf8,
)

POLL_SECONDS = 0.25
IDLE_SECONDS = 15.0  # without work before the process ends: the next job of a sweep finds it warm
MAX_PAUSE = 10.0  # seconds between attempts while the store is unavailable
RETRY_SECONDS = 10.0  # until a journal that was rejected is tried again
GIVE_UP_SECONDS = 600.0  # without progress after the last run has ended
WAIT_SECONDS = 120.0  # `runs sync` waits so long for a process that is uploading.
NICENESS = 5  # An upload starved at 15, next to two busy processes.


class Uploader:
    """Uploads the journals of a queue. The caller holds the queue's lock.

    Attributes:
        entries: those of the last pass.
        is_any_run_alive: whether the process of one of them is alive, as far as they were looked at.
        faults: uid -> why a journal cannot be uploaded; "" -> why the store cannot be used.
        completed: a line for each run that is complete.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.entries: list[Entry] = []
        self.is_any_run_alive = False
        self.faults: dict[str, str] = {}
        self.completed: list[str] = []
        self._store: Store | None = None
        self._uploads: dict[str, Upload] = {}
        self._retry_at: dict[str, float] = {}

    def upload(self) -> bool:
        """Uploads what is new in each journal; returns whether anything was."""
        progress = False
        self.is_any_run_alive = False
        self.faults.pop("", None)
        self.entries = self.queue.entries()
        for entry in self.entries:
            if time.monotonic() < self._retry_at.get(entry.uid, 0.0):
                continue
            was_open = entry.uid in self._uploads
            try:
                progress |= self._upload_entry(entry)
                self.faults.pop(entry.uid, None)
            except Exception as error:  # Errors of clients have no common base.
                self._uploads.pop(entry.uid, None)
                progress |= was_open  # The run may be gone from the store: it is opened again.
                if was_open:
                    continue
                if not self._is_fault_of_journal(error):
                    self.faults[""] = one_line(error)
                    self._store = None
                    self._uploads.clear()
                    break
                self.faults[entry.uid] = one_line(error)
                self._retry_at[entry.uid] = time.monotonic() + RETRY_SECONDS
        self.queue.set_faults(self.faults)
        return progress

    def serve(self) -> None:
        """Uploads until there has been nothing to do for a while, or another process asks for the queue."""
        pause = POLL_SECONDS
        last_work = next_pass = time.monotonic()
        limit = IDLE_SECONDS
        while time.monotonic() - last_work < limit and not self.queue.is_locked(HANDOVER):
            if time.monotonic() < next_pass:
                time.sleep(POLL_SECONDS)
                continue
            if self.upload() or self.is_any_run_alive:
                last_work = time.monotonic()
            if "" in self.faults:
                pause = min(MAX_PAUSE, max(1.0, 2 * pause))
                limit = GIVE_UP_SECONDS
            else:
                pause = POLL_SECONDS
                limit = IDLE_SECONDS
            next_pass = time.monotonic() + pause

    def _is_fault_of_journal(self, error: Exception) -> bool:
        if isinstance(error, DataError | InputNotFoundError):
            return True
        return self._store is not None and self._store.is_fault_of_journal(error)

    def _upload_entry(self, entry: Entry) -> bool:
        try:
            journal = locate(entry.folder, entry.uid)
            if not journal.exists():
                self.queue.remove(entry.uid)
                return True
            # Before reading: without a writer nothing can follow what is read.
            size = journal.stat().st_size
            is_written = has_writer(journal)
            self.is_any_run_alive |= is_written
        except OSError as error:
            raise DataError(one_line(error)) from error
        upload = self._open(entry, journal)
        begin = position = upload.position
        for record, position in read_records(journal, begin):
            upload.add(record, position)
        upload.flush()
        if is_written or position > begin:
            return position > begin
        if not upload.has_ended:
            modified = int(1000 * journal.stat().st_mtime)
            upload.add({"t": modified, "end": "KILLED"}, position)
        self._complete(entry, journal, size)
        return True

    def _open(self, entry: Entry, journal: Path) -> Upload:
        start, t = read_first(journal)
        if start["uid"] != entry.uid:
            raise DataError(f"{journal}: expected run {entry.uid}, got {start['uid']}")
        if self._store is None:
            self._store = self.queue.destination.connect()
        if entry.uid not in self._uploads:
            self._uploads[entry.uid] = self._store.open_run(entry, start, t)
        return self._uploads[entry.uid]

    def _complete(self, entry: Entry, journal: Path, size: int) -> None:
        """Removes a run from the queue, unless it was resumed since the journal had this size."""
        self.queue.remove(entry.uid)
        if has_writer(journal) or journal.stat().st_size > size:
            self.queue.add(entry)
            return
        upload = self._uploads.pop(entry.uid)
        line = f"{utf8(entry.folder)}: complete"
        for note in upload.notes:
            line += f"; {printable(note)}"
        self.completed.append(line)


def sync(queue: Queue, folders: Sequence[Path]) -> Iterator[str]:
    """Adds run folders to the queue, and uploads all records that are in its journals now; yields lines for the user.

    Raises:
        InputNotFoundError: no run was tracked in one of the folders.
        DataError: a journal of one of the folders was rejected; all others were uploaded.
        ServiceUnavailableError: the store cannot be used, or another process is writing it for too long.
    """
    name = queue.destination.describe()
    journals = list(chain.from_iterable(map(_journals, folders)))
    rejected: dict[Path, str] = {}
    try:
        for journal in journals:
            try:
                _add(queue, journal)
            except DataError as error:
                rejected[journal] = str(error)
        uploader = _upload(queue)
    except OSError as error:
        raise ServiceUnavailableError(f"{name}: {error.strerror}: {error.filename}") from None
    yield from uploader.completed
    waiting = queue.entries()
    for entry in waiting:
        name_of_run = utf8(entry.folder)
        fault = uploader.faults.get(entry.uid)
        if fault is None:
            yield f"{name_of_run}: up to date, its run is not over"
        elif entry.folder in folders:
            rejected[locate(entry.folder, entry.uid)] = f"{name_of_run}: rejected: {fault}"
        else:
            yield f"{name_of_run}: rejected: {fault}"
    if "" in uploader.faults:
        raise ServiceUnavailableError(f"{name}: {uploader.faults['']}; nothing is lost")
    if rejected:
        raise DataError("\n".join(rejected.values()))
    if not uploader.completed and not waiting:
        yield f"{name}: nothing is waiting"


def _journals(folder: Path) -> list[Path]:
    journals = sorted(folder.glob(JOURNALS))
    if not folder.is_dir():
        raise InputNotFoundError(f"{folder}: no such folder")
    if not journals:
        raise InputNotFoundError(f"{folder}: has no {FILE}: no run was tracked there")
    return journals


def _add(queue: Queue, journal: Path) -> None:
    """Queues a run whose folder the user names; raises DataError if it is waiting in another one."""
    uid = read_first(journal)[0]["uid"]
    folder = journal.parent
    waiting = queue.find(uid) or Entry(uid, folder)
    is_there = read_uid(locate(waiting.folder, uid)) == uid
    if is_there and not waiting.folder.samefile(folder):
        raise DataError(
            f"{utf8(folder)}: a copy of {utf8(waiting.folder)}, which waits to be uploaded"
        )
    queue.add(waiting._replace(folder=folder))


def _upload(queue: Queue) -> Uploader:
    """Uploads a queue in this process; the one in the background ends, and starts again afterwards."""
    uploader = Uploader(queue)
    until = time.monotonic() + WAIT_SECONDS
    is_done = False
    while not is_done and time.monotonic() < until:
        with lock(queue.folder / HANDOVER) as is_asked:
            if is_asked:
                with lock(queue.folder / LOCK) as is_free:
                    while is_free and uploader.upload():
                        pass
                    is_done = is_free
            if not is_done:
                time.sleep(POLL_SECONDS)
    if not is_done:
        raise ServiceUnavailableError(
            f"{queue.destination.describe()}: another process has been writing it for too long"
        )
    if queue.entries():
        start_uploading(queue)  # Runs may not be over, or the store unavailable.
    return uploader


def main() -> None:
    queue = load(os.environ.pop(VARIABLE))
    os.nice(NICENESS)
    os.chdir(queue.project)
    while True:
        with lock(queue.folder / LOCK) as is_free:
            if not is_free:
                return
            uploader = Uploader(queue)
            uploader.serve()
        # A run that was added just before the lock was released has found it held.
        is_known = set(uploader.entries).issuperset(queue.entries())
        if is_known or queue.is_locked(HANDOVER):
            return


if __name__ == "__main__":
    main()
