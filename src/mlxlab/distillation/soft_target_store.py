"""A key-value store of soft targets: one SQLite file per set of teachers and data."""

import logging
import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import xxhash

from mlxlab.errors import CannotCreateError

FILE = "soft_targets.sqlite"
BUFFER_BYTES = 16 << 20  # records are written in transactions of about this size
_WAIT_SECONDS = 30  # for other processes that are writing
_SCHEMA = (
    "CREATE TABLE records (key BLOB PRIMARY KEY, record BLOB NOT NULL, checksum BLOB NOT NULL)",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value REAL NOT NULL)",
)
_ADD_COUNTER = "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
log = logging.getLogger(__name__)


class SoftTargetStore:
    """Records by key, each verified by a checksum. Several processes may share a file; the first record of a key stays.

    New records stay in memory until `BUFFER_BYTES` of them are gathered or `flush` is called. A corrupt record or file
    is deleted with one warning.

    Args:
        folder: created if it does not exist.

    Attributes:
        counters: sums over all records, also those of earlier runs.

    Raises:
        CannotCreateError: the folder or the file cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.counters: dict[str, float] = {}
        self._pending: dict[bytes, bytes] = {}
        self._pending_counters: dict[str, float] = {}
        self._pending_bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = self._open()
        except (OSError, sqlite3.OperationalError) as error:
            raise CannotCreateError(f"{self.path}: the teacher cache cannot be created ({error})") from None

    def get(self, key: bytes) -> bytes | None:
        """A record; None if it is not stored, or corrupt."""
        if (record := self._pending.get(key)) is not None:
            return record
        try:
            row = self._database.execute("SELECT record, checksum FROM records WHERE key = ?", (key,)).fetchone()
        except sqlite3.OperationalError as error:
            log.warning("%s: cannot be read (%s); the teachers are queried", self.path, error)
            return None
        except sqlite3.DatabaseError as error:
            self._recreate(str(error))
            return None
        if row is None:
            return None
        record, checksum = row
        if isinstance(record, bytes) and checksum == xxhash.xxh3_64_digest(record):
            return record
        self.discard(key, "wrong checksum")
        return None

    def put(self, key: bytes, record: bytes) -> None:
        self._pending[key] = record
        self._pending_bytes += len(record)
        if self._pending_bytes >= BUFFER_BYTES:
            self.flush()

    def discard(self, key: bytes, reason: str) -> None:
        """Deletes a record that cannot be used."""
        log.warning("%s: record %s is corrupt (%s); it is computed again", self.path, key.hex(), reason)
        self._pending.pop(key, None)
        self._write([("DELETE FROM records WHERE key = ?", [(key,)])])

    def add_counters(self, **values: float) -> None:
        """Adds to the counters that are stored with the records."""
        for name, value in values.items():
            self.counters[name] = self.counters.get(name, 0.0) + value
            self._pending_counters[name] = self._pending_counters.get(name, 0.0) + value

    def flush(self) -> None:
        """Writes every record to disk, durably."""
        if not self._pending:
            return
        rows = [(key, record, xxhash.xxh3_64_digest(record)) for key, record in self._pending.items()]
        counters = list(self._pending_counters.items())
        self._pending, self._pending_counters, self._pending_bytes = {}, {}, 0
        self._write([("INSERT OR IGNORE INTO records VALUES (?, ?, ?)", rows), (_ADD_COUNTER, counters)])

    def _write(self, statements: Sequence[tuple[str, Sequence[tuple[object, ...]]]]) -> None:
        """One transaction. What cannot be written is computed again another time."""
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                for statement, rows in statements:
                    self._database.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            log.warning("%s: cannot be written (%s); the run continues without", self.path, error)
        except sqlite3.DatabaseError as error:
            self._recreate(str(error))

    def _open(self) -> sqlite3.Connection:
        """Opens the file, or replaces one that is not what this class writes."""
        # A checkpoint may be saved, and so the store flushed, from the thread that watches for lost workers.
        database = sqlite3.connect(self.path, _WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            schema = _read_schema(database)
            if not schema:
                with database:
                    database.execute("BEGIN IMMEDIATE")
                    for statement in () if _read_schema(database) else _SCHEMA:  # another process may have been first
                        database.execute(statement)
            elif schema != set(_SCHEMA):
                raise sqlite3.DatabaseError("unknown tables")
            self.counters = _read_counters(database)
            return database
        except sqlite3.OperationalError:
            database.close()
            raise
        except sqlite3.DatabaseError as error:
            database.close()
            self._remove(str(error))
            return self._open()

    def _recreate(self, reason: str) -> None:
        self._database.close()
        self._remove(reason)
        self._database = self._open()

    def _remove(self, reason: str) -> None:
        log.warning("%s: the teacher cache is corrupt (%s); it is created again", self.path, reason)
        for path in (self.path, self.path.with_name(f"{FILE}-journal")):
            path.unlink(missing_ok=True)


def _read_schema(database: sqlite3.Connection) -> set[str]:
    return {str(sql) for (sql,) in database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}


def _read_counters(database: sqlite3.Connection) -> dict[str, float]:
    counters = dict(database.execute("SELECT name, value FROM counters"))
    if not all(isinstance(value, float) and math.isfinite(value) for value in counters.values()):
        raise sqlite3.DatabaseError("counters are not numbers")
    return counters
