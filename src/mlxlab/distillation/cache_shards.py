"""Records by key, in files of some megabytes: written by a thread, complete or absent, each record with a checksum."""

import json
import logging
import os
import queue
import secrets
import threading
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from mlxlab.errors import CannotCreateError

SIZE = 16 << 20  # bytes after which a shard is written
FORMAT = 1
log = logging.getLogger(__name__)


class SoftTargetStore:
    """The records of one folder. Several processes may add to it: each writes shards of its own.

    `sums` counts what was noted along with the records, by name, also in earlier runs.

    Raises:
        CannotCreateError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sums: dict[str, float] = {}
        self._places: dict[str, _RecordLocation] = {}
        self._lock = threading.Lock()  # of the places: the writing thread adds to them
        self._waiting: dict[str, bytes] = {}  # not on disk yet
        self._gathered: dict[str, bytes] = {}  # the shard to come
        self._noted: dict[str, float] = {}
        self._size = 0
        self._work: queue.Queue[tuple[dict[str, bytes], dict[str, float]]] = queue.Queue(4)
        self._thread: threading.Thread | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotCreateError(f"{folder}: the teacher cache cannot be made ({error.strerror})") from None
        for path in sorted(folder.glob("shard-*.bin")):
            self._open(path)

    def get(self, key: str) -> bytes | None:
        """A record, verified; None if there is none."""
        place = None
        if (waiting := self._waiting.get(key)) is not None or (place := self._places.get(key)) is None:
            return waiting
        try:
            with place.shard.open("rb") as file:
                record = os.pread(file.fileno(), place.size, place.offset)
            if xxhash.xxh3_64_hexdigest(record) == place.checksum:
                return record
            why = "another checksum than when it was written"
        except OSError as error:
            why = str(error.strerror)
        self._drop(place.shard, why)
        return None

    def put(self, key: str, record: bytes) -> None:
        self._waiting[key] = self._gathered[key] = record
        self._size += len(record)
        if self._size >= SIZE:
            self._send()

    def note(self, **sums: float) -> None:
        """Adds to the sums kept beside the records."""
        for totals in (self.sums, self._noted):
            _add(totals, sums)

    def flush(self) -> None:
        """Waits until every record is on disk."""
        if self._gathered:
            self._send()
        self._work.join()

    def _send(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="teacher-cache", daemon=True)
            self._thread.start()
        self._work.put((self._gathered, self._noted))
        self._gathered, self._noted, self._size = {}, {}, 0

    def _run(self) -> None:
        while True:
            records, sums = self._work.get()
            try:
                self._write(records, sums)
            except OSError as error:  # the run goes on: what is not kept is asked again another time
                log.warning("the teacher cache %s could not be written (%s)", self.folder, error)
            finally:
                self._work.task_done()

    def _write(self, records: dict[str, bytes], sums: dict[str, float]) -> None:
        rows, offset = [], 0
        for key, record in records.items():
            rows.append([key, offset, len(record), xxhash.xxh3_64_hexdigest(record)])
            offset += len(record)
        head: dict[str, Any] = {"format": FORMAT, "rows": rows, "sums": sums}
        line = json.dumps(head | {"checksum": _checksum(head)}).encode() + b"\n"
        name = f"{os.getpid()}-{secrets.token_hex(4)}.bin"
        temporary, path = self.folder / f".tmp-{name}", self.folder / f"shard-{name}"
        with temporary.open("xb") as file:
            file.write(line)
            file.writelines(records.values())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        self._place(path, len(line), rows)
        for key in records:  # found in its place from now on
            self._waiting.pop(key, None)

    def _open(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                head = json.loads(file.readline())
                start = file.tell()
            if head.pop("checksum") != _checksum(head) or head["format"] != FORMAT:
                raise ValueError("its head has another checksum than when it was written")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            self._drop(path, str(error) or type(error).__name__)
            return
        self._place(path, start, head["rows"])
        _add(self.sums, head["sums"])

    def _place(self, path: Path, start: int, rows: list[Any]) -> None:
        with self._lock:
            self._places |= {
                key: _RecordLocation(path, start + offset, size, check) for key, offset, size, check in rows
            }

    def _drop(self, path: Path, why: str) -> None:
        """A shard with a fault goes as a whole: one warning, and its rows are asked again when they come."""
        log.warning("the teacher cache %s is corrupt (%s); it is made anew", path, why[:100])
        path.unlink(missing_ok=True)
        with self._lock:
            self._places = {key: place for key, place in self._places.items() if place.shard != path}


class _RecordLocation(NamedTuple):
    shard: Path
    offset: int
    size: int
    checksum: str


def _add(totals: dict[str, float], more: dict[str, float]) -> None:
    for name, value in more.items():
        totals[name] = totals.get(name, 0.0) + value


def _checksum(head: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(head, sort_keys=True).encode())
