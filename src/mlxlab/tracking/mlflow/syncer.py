"""The syncer: the only process that writes a store. `python -m mlxlab.tracking.mlflow.syncer`, started by a journal.

It follows the journals in the queue, and ends after a while without work. While the store is unavailable it retries,
less and less often; once no run is alive and the store is still unavailable, the rest remains for the next run or to
`mlxlab runs sync`.
"""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from mlxlab.errors import UserError
from mlxlab.redact import redact
from mlxlab.tracking.jsonl import has_writer
from mlxlab.tracking.mlflow import address, spool
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import MlflowStore
from mlxlab.tracking.mlflow.errors import (
    JournalRejectedError,
    StoreLockedError,
    StoreReplacedError,
    StoreUnavailableError,
    classify_error,
    one_line,
)
from mlxlab.tracking.mlflow.uploader import JournalUploader, locate
from mlxlab.tracking.records import utf8

POLL_SECONDS = 0.25
IDLE_SECONDS = 15.0  # without work before the syncer ends: the next job of a sweep finds it warm
MAX_PAUSE = 30.0  # seconds between attempts while the store is unavailable
LOCKED_PAUSE = 1.0  # ... while it is locked: each attempt waits for the lock itself
GIVE_UP_SECONDS = 60.0  # without progress after the last run has ended
LOCKED_GIVE_UP_SECONDS = 1800.0  # ... while the store is locked
NICENESS = 15


@dataclass
class PollResult:
    """The outcome of one pass over all journals."""

    records: int = 0  # uploaded
    complete: list[Path] = field(default_factory=list)
    running: list[Path] = field(default_factory=list)
    rejected: dict[Path, str] = field(default_factory=dict)  # run folder -> reason
    notes: list[str] = field(default_factory=list)


class Syncer:
    """Uploads the journals of one queue. The caller holds the queue's lock."""

    def __init__(self, store_address: Address) -> None:
        assert store_address.spool is not None
        self.address, self.spool = store_address, store_address.spool
        self._store: MlflowStore | None = None
        self._uploaders: dict[str, JournalUploader] = {}
        self._rejected: dict[str, tuple[float, str]] = {}  # uid -> time of the next attempt, reason
        self._suspect = ""  # uid of the journal that last made the store unavailable

    def poll(self) -> PollResult:
        """Uploads new records of every journal once.

        Raises:
            StoreUnavailableError: the next call opens the store again, and tries the journal that failed last.
        """
        result = PollResult()
        runs = spool.registered(self.spool)
        try:
            for uid in sorted(runs, key=self._suspect.__eq__):
                self._poll_journal(uid, runs[uid], result)
        except StoreReplacedError as error:
            self._close()
            result.notes.append(f"{error}; opening it again")
        except StoreUnavailableError:
            self._suspect = uid
            self._close()
            raise
        return result

    def is_any_run_alive(self) -> bool:
        """Whether the process of any queued run is alive. Does not access the store."""
        return any(_has_writer(folder, uid) for uid, folder in spool.registered(self.spool).items())

    def _poll_journal(self, uid: str, folder: Path, result: PollResult) -> None:
        if not locate(folder, uid)[0].exists():
            spool.unregister(self.spool, uid)
            self._uploaders.pop(uid, None)
            result.notes.append(f"{utf8(folder)}: its journal was deleted")
            return
        retry_at, reason = self._rejected.get(uid, (0.0, ""))
        if time.monotonic() < retry_at:
            result.rejected[folder] = reason
            return
        try:
            self._upload(uid, folder, result)
        except JournalRejectedError as error:
            self._rejected[uid] = time.monotonic() + MAX_PAUSE, str(error)
            result.rejected[folder] = str(error)
            if str(error) != reason:
                result.notes.append(f"{utf8(folder)}: {error}")

    def _upload(self, uid: str, folder: Path, result: PollResult) -> None:
        uploader = self._uploaders.get(uid)
        if uploader is None:
            uploader = self._uploaders[uid] = JournalUploader(self._open(), folder, uid)
        self._open().check()
        before, num_notes = uploader.records, len(uploader.notes)
        try:
            complete = uploader.upload_pending()
        finally:
            result.records += uploader.records - before
            result.notes += [f"{utf8(folder)}: {note}" for note in uploader.notes[num_notes:]]
        if complete and uploader.release(self.spool):
            del self._uploaders[uid]
            result.complete.append(folder)
        else:
            result.running.append(folder)

    def _open(self) -> MlflowStore:
        if self._store is None:
            try:
                self._store = MlflowStore(self.address)
            except Exception as error:  # MLflow, a database or HTTP: it has no common base
                reason = classify_error(error)
                if isinstance(reason, StoreUnavailableError):
                    raise reason from error
                raise StoreUnavailableError(one_line(error)) from error
        return self._store

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None
        self._uploaders.clear()


def serve(syncer: Syncer) -> set[str]:
    """Uploads until the queue has been idle for a while; returns the journals that are still in it."""
    spool.write_status(syncer.spool, None)
    last_work = time.monotonic()
    pause: float = POLL_SECONDS
    fault: str | None = None
    give_up = GIVE_UP_SECONDS
    while time.monotonic() - last_work < (give_up if fault or spool.registered(syncer.spool) else IDLE_SECONDS):
        try:
            result = syncer.poll()
            last_fault, fault, pause, give_up = fault, None, POLL_SECONDS, GIVE_UP_SECONDS
            if last_fault:
                _print(f"{syncer.address.shown} is available again")
            for note in result.notes:
                _print(note)
        except StoreUnavailableError as error:
            result = PollResult()
            if str(error) != fault:
                _print(f"{syncer.address.shown}: {error}; retrying")
            locked = isinstance(error, StoreLockedError)
            give_up, longest = (LOCKED_GIVE_UP_SECONDS, LOCKED_PAUSE) if locked else (GIVE_UP_SECONDS, MAX_PAUSE)
            fault, pause = str(error), min(longest, max(1.0, pause * 2))
        if result.records or result.complete or syncer.is_any_run_alive():
            last_work = time.monotonic()
        if not _wait(syncer, pause, fault):
            break
    return set(spool.registered(syncer.spool))


def _wait(syncer: Syncer, seconds: float, fault: str | None) -> bool:
    """Sleeps, keeping the status fresh; False if another syncer asks to take over."""
    until = time.monotonic() + seconds
    while True:
        spool.write_status(syncer.spool, fault)
        if spool.handover_requested(syncer.spool):
            return False
        seconds_left = until - time.monotonic()
        if seconds_left <= 0:
            return True
        time.sleep(min(seconds_left, 0.5))


def _has_writer(folder: Path, uid: str) -> bool:
    try:
        return has_writer(locate(folder, uid)[0])
    except UserError:  # deleted meanwhile, or not a regular file
        return False


def _print(line: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), os.getpid(), redact(line), flush=True)


def main() -> None:
    store_address = address.load(os.environ.pop("MLXLAB_STORE"))
    assert store_address.spool is not None
    os.nice(NICENESS)
    os.chdir(store_address.spool)
    while True:
        with spool.sole_writer(store_address.spool) as is_writer:
            if not is_writer:
                return
            remaining = serve(Syncer(store_address))
        # A journal that registered just before the lock was released has started no syncer.
        queue = spool.registered(store_address.spool)
        if spool.handover_requested(store_address.spool) or not queue.keys() - remaining:
            return


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        _print(f"syncer ends: {type(error).__name__}: {one_line(error)}")
        sys.exit(1)
