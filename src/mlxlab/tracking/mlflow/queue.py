"""The queue of a store: the folder that holds what its only writer, the syncer, still has to upload.

<uid>.run      path of a run folder that is not (known to be) complete in the store
<uid>.foreign  the folder was added by `runs sync` or `doctor`, not by its run: a stranger may have written it
lock           held (`flock`) by the syncer while it runs; its process id
status.json    the error of the syncer's last attempt, or none
handover       held by a syncer in the foreground that asks the one in the background to end
sync.log       output of the syncers
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypedDict

from mlxlab.detached import start_detached
from mlxlab.errors import DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.files.untrusted import read_bytes, read_json
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.records import Time, is_uid

MAX_PATH = 2**16  # bytes
HANDOVER_SECONDS = 30.0  # that the syncer in the background may take to end
# Suffixes of empty files.
FOREIGN = ".foreign"
UNREGISTERED = ".unregistered"

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SyncerStatus(TypedDict):
    t: Time
    pid: int
    fault: str | None  # why the store cannot be used


def register(
    queue: Path, uid: str, folder: Path, *, foreign: bool = False, registers: bool = True
) -> None:
    """Queues a run for upload, now or when a syncer runs next.

    Args:
        foreign: the run folder may be a stranger's.
        registers: whether its journal may register models.
    """
    queue.mkdir(parents=True, exist_ok=True)
    for name, is_set in ((FOREIGN, foreign), (UNREGISTERED, foreign or not registers)):
        if is_set:
            write_atomic(queue / f"{uid}{name}", b"")
        else:
            (queue / f"{uid}{name}").unlink(missing_ok=True)
    write_atomic(queue / f"{uid}.run", os.fsencode(folder.absolute()))


def registered(queue: Path) -> dict[str, Path]:
    """uid -> run folder, oldest first."""
    runs: list[tuple[float, str, Path]] = []
    for entry in queue.glob("*.run"):
        try:
            path = os.fsdecode(read_bytes(entry, max_bytes=MAX_PATH))
            runs.append((entry.stat().st_mtime, entry.stem, Path(path)))
        except (InputNotFoundError, DataError, OSError):
            continue  # removed meanwhile, or not written by us
    return {uid: folder for _, uid, folder in sorted(runs) if is_uid(uid)}


def unregister(queue: Path, uid: str) -> None:
    (queue / f"{uid}.run").unlink(missing_ok=True)
    for name in (FOREIGN, UNREGISTERED):
        (queue / f"{uid}{name}").unlink(missing_ok=True)


def has_flag(queue: Path, uid: str, name: str) -> bool:
    """Whether a run was queued as FOREIGN or UNREGISTERED."""
    return os.path.lexists(queue / f"{uid}{name}")


def start_syncer(address: Address) -> bool:
    """Starts the syncer unless it runs. Detached: it outlives this process and gets none of its signals."""
    if syncer_lives(address.queue):
        return False
    variables = {"MLXLAB_STORE": address.dump()}
    start_detached("mlxlab.tracking.mlflow.syncer", variables, address.queue / "sync.log")
    return True


def syncer_lives(queue: Path) -> bool:
    with lock(queue / "lock") as held:
        return not held


def handover_requested(queue: Path) -> bool:
    with lock(queue / "handover") as held:
        return not held


def read_status(queue: Path) -> SyncerStatus | None:
    """The last report of the syncer."""
    try:
        return read_json(queue / "status.json", SyncerStatus)
    except (InputNotFoundError, DataError):
        return None


def write_status(queue: Path, fault: str | None) -> None:
    write_json(
        queue / "status.json", {"t": int(time.time() * 1000), "pid": os.getpid(), "fault": fault}
    )


@contextmanager
def only_writer(address: Address) -> Iterator[None]:
    """Ends the syncer in the background and keeps others from starting, until the block is over.

    Raises ServiceUnavailableError if another process writes the store for too long.
    """
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(
                    lock(address.queue / "handover")
                )  # the syncer in the background ends, none starts
                is_writer = stack.enter_context(lock(address.queue / "lock", HANDOVER_SECONDS))
            except OSError as error:
                reason = f"{error.filename}: cannot be locked ({error.strerror})"
                raise ServiceUnavailableError(f"{address.shown}: {reason}") from None
            if not is_writer:
                raise ServiceUnavailableError(
                    f"{address.shown}: another process has been writing it for too long"
                )
            yield
    finally:
        if registered(address.queue):
            with suppress(OSError):
                start_syncer(address)  # for runs that are not over, and a store that is unavailable


@contextmanager
def lock(path: Path, wait_seconds: float = 0.0) -> Iterator[bool]:
    """Locks a file, which is created unless it exists; yields False if another process holds it all that time.

    Raises OSError, at once, if it is a symbolic link, a pipe or a device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held, until = False, time.monotonic() + wait_seconds
    with open(os.open(path, _LOCK_FLAGS, 0o644), "ab") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "expected a regular file", str(path))
        while True:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            if held or time.monotonic() >= until:
                break
            time.sleep(0.05)
        yield held
