"""The folder in which journals wait for a store's only writer, the syncer.

<uid>.run     path of a run folder that is not (known to be) complete in the store
lock          held (`flock`) by the syncer while it lives
status.json   what the syncer last found: the store's fault, or none
handover      expected: a syncer in the foreground asks the one in the background to go
sync.log      what the syncers said
"""

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlxlab.tracking.mlflow.address import Address


def register(spool: Path, uid: str, folder: Path) -> None:
    """Tells the syncer, now or later, that this run has lines to carry."""
    spool.mkdir(parents=True, exist_ok=True)
    replace(spool / f"{uid}.run", str(folder.absolute()))


def registered(spool: Path) -> dict[str, Path]:
    """uid -> run folder, oldest first."""
    found: list[tuple[float, str, Path]] = []
    for entry in _scan(spool):
        try:
            found.append((entry.stat().st_mtime, entry.stem, Path(entry.read_text())))
        except OSError:
            continue  # taken away meanwhile
    return {uid: folder for _, uid, folder in sorted(found)}


def unregister(spool: Path, uid: str) -> None:
    (spool / f"{uid}.run").unlink(missing_ok=True)


def start_syncer(address: Address) -> bool:
    """Starts the syncer of this store unless it lives. Detached: it outlives us, and no signal of ours reaches it."""
    spool = address.spool
    if spool is None or syncer_lives(spool):
        return False
    package = Path(__file__).resolve().parents[3]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "MLXLAB_STORE": address.dump(), "OMP_NUM_THREADS": "1"}
    log = (os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "mlxlab.tracking.mlflow.syncer"],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(spool / "sync.log"), *log),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        # A trainer blocks signals before MLX starts its threads, and its children would inherit that.
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE),
    )
    return True


def syncer_lives(spool: Path) -> bool:
    with _lock(spool / "lock") as held:
        return not held


@contextmanager
def handover(spool: Path) -> Iterator[None]:
    """While this is open, no syncer in the background keeps or takes the lock."""
    with _lock(spool / "handover"):
        yield


def handover_wanted(spool: Path) -> bool:
    with _lock(spool / "handover") as held:
        return not held


@contextmanager
def sole_writer(spool: Path, patience: float = 0.0) -> Iterator[bool]:
    """Yields whether this process is now the only writer of the store; waits up to `patience` seconds for it."""
    until = time.monotonic() + patience
    while True:
        with _lock(spool / "lock") as held:
            if held or time.monotonic() >= until:
                if held:
                    (spool / "lock").write_text(str(os.getpid()))
                yield held
                return
        time.sleep(0.05)


def status(spool: Path) -> dict[str, Any]:
    """What the syncer last wrote: `t` (ms), `pid`, `fault` (a line, or null)."""
    return read_json(spool / "status.json")


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; `{}` if there is none."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def replace(path: Path, text: str) -> None:
    """Writes the file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def _scan(spool: Path) -> list[Path]:
    return [entry for entry in spool.glob("*.run") if not entry.name.startswith(".")]


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = True
    except OSError:
        held = False
    try:
        yield held
    finally:
        os.close(file)
