"""The syncer, `python -m mlxlab.tracking.mlflow.syncer`, started by the run: one at a time writes to a store.

It follows the journals in the queue, and ends after a while without work. While the store is unavailable it retries at
growing intervals; if it still is once no run is alive, the queue waits for the next run or `mlxlab runs sync`.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from mlxlab.errors import UserError
from mlxlab.redact import redact
from mlxlab.tracking.mlflow import address, errors, queue
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import MlflowStore
from mlxlab.tracking.mlflow.uploader import JournalUploader
from mlxlab.tracking.record_writer import has_writer
from mlxlab.tracking.records import SyncState, locate, utf8

POLL_SECONDS = 0.25
IDLE_SECONDS = 15.0  # without work before the syncer ends: the next job of a sweep finds it warm
MAX_PAUSE = 30.0  # seconds between attempts while the store is unavailable
LOCKED_PAUSE = 1.0  # ... while it is locked: each attempt waits for the lock itself
GIVE_UP_SECONDS = 60.0  # without progress after the last run has ended
LOCKED_GIVE_UP_SECONDS = 1800.0  # ... while the store is locked
NICENESS = 5  # With 15 an upload starved beside two busy processes.


class Syncer:
    """Uploads the journals of one queue. The caller holds the queue's lock.

    Attributes:
        records: lines of journals uploaded so far.
        rejected: uid -> line for the user, of the journals that the last pass could not upload.
    """

    def __init__(self, store_address: Address) -> None:
        self.address, self.queue = store_address, store_address.queue
        self.records = 0
        self.rejected: dict[str, str] = {}
        self._retry_at: dict[str, float] = {}  # uid of a rejected journal -> next attempt
        self._store: MlflowStore | None = None
        self._uploaders: dict[str, JournalUploader] = {}
        self._suspect = ""  # uid of the journal that last made the store unavailable
        self._lines: list[str] = []  # for the user, not returned yet
        (self.queue / "lock").write_text(str(os.getpid()))

    def poll(self) -> list[str]:
        """Uploads new records of every journal once; returns lines for the user.

        Raises:
            StoreUnavailableError: the next call opens the store again, and tries the journal that failed last.
        """
        runs = queue.registered(self.queue)
        try:
            # The journal that failed last comes last.
            for uid in sorted(runs, key=lambda uid: uid == self._suspect):
                self._poll_journal(uid, runs[uid])
        except errors.StoreUnavailableError as error:
            if self._store is not None:
                self._store.close()
            self._store = None
            self._uploaders.clear()
            if not isinstance(error, errors.StoreReplacedError):
                self._suspect = uid
                raise
            self._lines.append(f"{error}; opening it again")
        lines, self._lines = self._lines, []
        return lines

    def is_any_run_alive(self) -> bool:
        """True if the process of a queued run is alive. Does not access the store."""
        for uid, folder in queue.registered(self.queue).items():
            with suppress(UserError, OSError):  # deleted meanwhile, or cannot be opened
                if has_writer(locate(folder, uid)[0]):
                    return True
        return False

    def _poll_journal(self, uid: str, folder: Path) -> None:
        if time.monotonic() < self._retry_at.get(uid, 0.0):
            return
        before = self.rejected.pop(uid, "")
        try:
            if locate(folder, uid)[0].exists():
                self._upload(uid, folder)
            else:
                queue.unregister(self.queue, uid)
                self._uploaders.pop(uid, None)
                self._lines.append(f"{utf8(folder)}: its journal was deleted")
        except (errors.JournalRejectedError, UserError, OSError) as error:
            # Of this run folder, not of the store.
            reason = errors.one_line(error) if isinstance(error, OSError) else str(error)
            line = f"{utf8(folder)}: rejected: {reason}"
            self._retry_at[uid] = time.monotonic() + MAX_PAUSE
            self.rejected[uid] = line
            if line != before:
                self._lines.append(line)

    def _upload(self, uid: str, folder: Path) -> None:
        store = self._open()
        if uid not in self._uploaders:
            self._uploaders[uid] = JournalUploader(store, folder, uid)
        store.check()
        uploader = self._uploaders[uid]
        before = uploader.records
        try:
            complete = uploader.upload_pending()
        finally:
            self.records += uploader.records - before
        if complete and uploader.release():
            del self._uploaders[uid]
            self._lines.append(f"{utf8(folder)}: complete{_describe_results(uploader.state)}")

    def _open(self) -> MlflowStore:
        if self._store is None:
            try:
                self._store = MlflowStore(self.address)
            except Exception as error:  # of MLflow, a database or HTTP: no common base class
                reason = errors.classify_error(error)
                if not isinstance(reason, errors.StoreUnavailableError):
                    reason = errors.StoreUnavailableError(errors.one_line(error))
                raise reason from error
        return self._store


def _describe_results(state: SyncState) -> str:
    """`, registered ..., but 2 missing, the first: <reason>`; "" if nothing was registered, and nothing is missing."""
    text = ""
    if "registered" in state:
        text += f", {errors.printable(state['registered'])}"
    if count := state.get("num_missing", 0):
        first, _, _ = state.get("missing", "").partition("; ")
        text += f", but {count} missing, the first: {errors.printable(first)}"
    return text


def serve(syncer: Syncer) -> set[str]:
    """Uploads until the queue has been idle for a while; returns the journals that are still in it."""
    queue.write_status(syncer.queue, None)
    last_work = time.monotonic()
    pause, fault = POLL_SECONDS, ""
    give_up = GIVE_UP_SECONDS
    while True:
        limit = give_up if fault or queue.registered(syncer.queue) else IDLE_SECONDS
        if time.monotonic() - last_work >= limit:
            break
        before = syncer.records
        lines: list[str] = []
        try:
            lines = syncer.poll()
            if fault:
                _print(f"{syncer.address.shown} is available again")
            pause, fault = POLL_SECONDS, ""
        except errors.StoreUnavailableError as error:
            if str(error) != fault:
                _print(f"{syncer.address.shown}: {error}; retrying")
            fault = str(error)
            is_locked = isinstance(error, errors.StoreLockedError)
            give_up = LOCKED_GIVE_UP_SECONDS if is_locked else GIVE_UP_SECONDS
            pause = min(LOCKED_PAUSE if is_locked else MAX_PAUSE, max(1.0, pause * 2))
        for line in lines:
            _print(line)
        if lines or syncer.records > before or syncer.is_any_run_alive():
            last_work = time.monotonic()
        if not _pause(syncer.queue, pause, fault):
            break
    return set(queue.registered(syncer.queue))


def _pause(folder: Path, seconds: float, fault: str) -> bool:
    """Waits until the next pass. Returns False at once if a handover is requested: nothing is uploaded after that."""
    until = time.monotonic() + seconds
    while True:
        queue.write_status(folder, fault or None)
        if queue.handover_requested(folder):
            return False
        if (seconds_left := until - time.monotonic()) <= 0:
            return True
        time.sleep(min(seconds_left, 0.5))


def _print(line: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), os.getpid(), redact(line), flush=True)


def main() -> None:
    store_address = address.load(os.environ.pop("MLXLAB_STORE"))
    os.nice(NICENESS)
    os.chdir(store_address.queue)
    while True:
        with queue.lock(store_address.queue / "lock") as is_writer:
            if not is_writer:
                return
            remaining = serve(Syncer(store_address))
        # A journal that registered just before the lock was released has started no syncer.
        registered = queue.registered(store_address.queue)
        if queue.handover_requested(store_address.queue) or not registered.keys() - remaining:
            return


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        _print(f"syncer ends: {type(error).__name__}: {errors.one_line(error)}")
        sys.exit(1)
