"""The syncer: the only process that writes a store. `python -m mlxlab.tracking.mlflow.syncer`, started by a journal.

It tails the journals that wait in the spool, and ends when there has been nothing to do for a while. While the store
does not serve it tries again, ever more seldom; once no run lives and the store is still down, the rest is left to
the next run or to `runs.py sync`.
"""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from mlxlab.tracking.jsonl import has_writer
from mlxlab.tracking.mlflow import address, spool
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import MlflowStore
from mlxlab.tracking.mlflow.errors import JournalRejectedError, StoreReplacedError, StoreUnavailableError, one_line
from mlxlab.tracking.mlflow.uploader import JournalUploader, locate

POLL = 0.25  # seconds between looks at the journals
IDLE = 15.0  # seconds without work before the syncer ends: the next job of a sweep finds it warm
MAX_PAUSE = 30.0  # seconds between tries while the store is down
GIVE_UP = 60.0  # seconds of a fault after the last run has ended
NICENESS = 15


@dataclass
class PollResult:
    """What one look at all journals brought."""

    lines: int = 0
    complete: list[Path] = field(default_factory=list)
    running: list[Path] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)  # run folder -> reason
    notes: list[str] = field(default_factory=list)


class Syncer:
    """Carries the journals of one spool. The caller holds the spool's lock."""

    def __init__(self, where: Address) -> None:
        assert where.spool is not None
        self.address, self.spool = where, where.spool
        self._store: MlflowStore | None = None
        self._carries: dict[str, JournalUploader] = {}
        self._refused: dict[str, tuple[float, str]] = {}  # uid -> when it may be tried again, why it was refused

    def round(self) -> PollResult:
        """One look at every journal.

        Raises:
            StoreUnavailableError: the store does not serve; it is opened anew in the next round.
        """
        result = PollResult()
        try:
            for uid, folder in spool.registered(self.spool).items():
                self._carry(uid, folder, result)
        except StoreReplacedError as fault:
            self._close()
            result.notes.append(f"{fault}; opening it anew")
        except StoreUnavailableError:
            self._close()
            raise
        return result

    def anyone_alive(self) -> bool:
        """Whether the process of any waiting run lives. Asks no store."""
        found = (locate(folder, uid)[0] for uid, folder in spool.registered(self.spool).items())
        return any(path.exists() and has_writer(path) for path in found)

    def report(self, fault: str | None) -> None:
        state = {"t": int(time.time() * 1000), "pid": os.getpid(), "fault": fault}
        spool.replace(self.spool / "status.json", json.dumps(state))

    def _carry(self, uid: str, folder: Path, result: PollResult) -> None:
        if not locate(folder, uid)[0].exists():
            spool.unregister(self.spool, uid)
            self._carries.pop(uid, None)
            result.notes.append(f"{folder}: its journal is gone")
            return
        again, reason = self._refused.get(uid, (0.0, ""))
        if time.monotonic() < again:
            result.refused[folder] = reason
            return
        try:
            carry = self._carries.get(uid)
            if carry is None:
                carry = self._carries[uid] = JournalUploader(self._open(), folder, uid)
            self._open().check()
            before, noted = carry.carried, len(carry.notes)
            complete = carry.advance()
        except JournalRejectedError as fault:
            self._refused[uid] = time.monotonic() + MAX_PAUSE, str(fault)
            result.refused[folder] = str(fault)
            if str(fault) != reason:
                result.notes.append(f"{folder}: {fault}")
            return
        result.lines += carry.carried - before
        result.notes += [f"{folder}: {note}" for note in carry.notes[noted:]]
        if complete and carry.retire(self.spool):
            del self._carries[uid]
            result.complete.append(folder)
        else:
            result.running.append(folder)

    def _open(self) -> MlflowStore:
        if self._store is None:
            try:
                self._store = MlflowStore(self.address)
            except Exception as error:  # whatever it is: no store, no work
                raise StoreUnavailableError(one_line(error)) from error
        return self._store

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None
        self._carries.clear()


def serve(syncer: Syncer) -> set[str]:
    """Works until there is nothing to do; returns the journals left behind."""
    syncer.report(None)
    worked = time.monotonic()
    pause: float = POLL
    fault: str | None = None
    while time.monotonic() - worked < (GIVE_UP if fault or spool.registered(syncer.spool) else IDLE):
        try:
            result = syncer.round()
            said, fault, pause = fault, None, POLL
            if said:
                _say(f"{syncer.address.shown} serves again")
            for note in result.notes:
                _say(note)
        except StoreUnavailableError as error:
            result = PollResult()
            if str(error) != fault:
                _say(f"{syncer.address.shown}: {error}; tried again until it serves")
            fault, pause = str(error), min(MAX_PAUSE, max(1.0, pause * 2))
        if result.lines or result.complete or syncer.anyone_alive():
            worked = time.monotonic()
        if not _wait(syncer, pause, fault):
            break
    return set(spool.registered(syncer.spool))


def _wait(syncer: Syncer, seconds: float, fault: str | None) -> bool:
    """Sleeps, keeping the status fresh; False if another syncer wants to take over."""
    until = time.monotonic() + seconds
    while True:
        syncer.report(fault)
        if spool.handover_wanted(syncer.spool):
            return False
        left = until - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, 0.5))


def _say(line: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), os.getpid(), address.redact(line), flush=True)


def main() -> None:
    where = address.load(os.environ.pop("MLXLAB_STORE"))
    assert where.spool is not None
    os.nice(NICENESS)
    os.chdir(where.spool)
    while True:
        with spool.sole_writer(where.spool) as mine:
            if not mine:
                return
            left = serve(Syncer(where))
        # A journal that registered while we were leaving saw our lock, and started nobody.
        if spool.handover_wanted(where.spool) or not spool.registered(where.spool).keys() - left:
            return


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        _say(f"syncer ends: {type(error).__name__}: {one_line(error)}")
        sys.exit(1)
