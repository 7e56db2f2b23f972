"""The teacher cache: soft targets on disk, in one SQLite file for each set of teachers, data and options.

Rows are keyed by content, so the teachers are queried once for a text, in whatever batch, epoch or run it occurs.
"""

import logging
import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import mlx.core as mx
import numpy as np
import xxhash

from mlxlab.backend.ops.cross_entropy import log_softmax
from mlxlab.data.batch import Batch
from mlxlab.errors import CannotCreateError
from mlxlab.schema.constraints import Size

FILE = "targets.sqlite"
BUFFER_BYTES = 16 << 20  # records are written in transactions of about this size
# The tail, all classes outside the top k, has at least the resolution of a float32 sum.
MIN_PROBABILITY = 1e-7
VALUES = "teacher"  # name in `Batch.aux`
CLASSES = "teacher_classes"  # name in `Batch.aux`
_WAIT_SECONDS = 30  # Other processes may be writing.
_TABLE = "records (key BLOB PRIMARY KEY, record BLOB, checksum BLOB)"
log = logging.getLogger(__name__)


class TeacherCache:
    """Log-probabilities of the k most likely classes and of their tail, all other classes together, for each target.

    Where `top_k` is all classes, their logits are stored; of labels and numbers all outputs are. `folder` is for these
    teachers, data and options only.
    """

    def __init__(
        self, top_k: Size, dtype: Literal["float16", "float32"], *, folder: Path, num_classes: int
    ) -> None:
        self.num_classes = num_classes
        self.top_k = 0  # all classes
        self.width = num_classes
        if top_k < num_classes:
            self.top_k = top_k
            self.width = top_k + 1
        self.record_type = np.dtype(  # one record for each target
            [
                ("values", dtype, (self.width,)),
                ("classes", np.uint16 if num_classes <= 1 << 16 else np.int32, (self.top_k,)),
            ]
        )
        self.records = RecordFile(folder / FILE)
        self.hits = 0  # rows
        self.misses = 0
        self.targets = 0
        self.tail = 0.0  # the probability of all other classes, summed over the targets

    def soft_targets(self, batch: Batch, compute: Callable[[], mx.array]) -> dict[str, np.ndarray]:
        """Soft targets of a batch, as arrays for `Batch.aux`; `compute` gives the logits (B, ..., C) on a miss.

        A row has the classes of one target or, in a language model, of every token; or all outputs of the row.

        What was stored first is what is used: a resumed run trains on the same values, bit for bit.
        """
        is_by_class = batch.targets.dtype.kind == "i"
        leading = batch.targets.shape if is_by_class else batch.targets.shape[:1]
        rows = len(batch.targets)
        targets = np.zeros((rows, math.prod(leading[1:])), self.record_type)
        keys = list(map(row_key, batch.tokens, batch.segment_ids))
        counts = [1] * rows
        if len(leading) > 1:  # Padding is not stored.
            counts = list(map(_length, batch.segment_ids))
        missing: list[int] = []
        for row, (key, count) in enumerate(zip(keys, counts, strict=True)):
            stored = self._load(key, count)
            if stored is None:
                missing.append(row)
            else:
                targets[row, :count] = stored
        self.hits += rows - len(missing)
        self.misses += len(missing)
        if missing:
            computed = self._compress(compute()).reshape(targets.shape)
            for row in missing:
                new = computed[row, : counts[row]]
                targets[row, : counts[row]] = new
                self.records.put(keys[row], new.tobytes())
        aux = {VALUES: targets["values"].reshape(*leading, self.width)}
        if self.top_k:
            is_target = np.arange(targets.shape[1]) < np.array(counts)[:, None]
            self.targets += sum(counts)
            self.tail += float(np.exp(targets["values"][is_target, -1].astype(np.float64)).sum())
            aux[CLASSES] = targets["classes"].astype(np.int32).reshape(*leading, self.top_k)
        return aux

    def flush(self) -> None:
        self.records.flush()

    def describe(self) -> str:
        """The number of hits, and what storing k classes leaves out of the full distribution."""
        tail = 100 * self.tail / max(self.targets, 1)
        return (
            f"teacher cache: top {self.top_k or self.num_classes} of {self.num_classes};"
            f" {self.hits:,} rows found, {self.misses:,} computed;"
            f" {tail:.2g} % of the probability is in classes that are not stored"
        )

    def _load(self, key: bytes, count: int) -> np.ndarray | None:
        """The `count` targets of a row; None if none are stored, or they cannot be right."""
        record = self.records.get(key)
        if record is None:
            return None
        if len(record) == count * self.record_type.itemsize:
            targets = np.frombuffer(record, self.record_type)
            classes = targets["classes"]
            is_class = (classes >= 0) & (classes < self.num_classes)  # MLX has no bounds checks.
            if is_class.all() and not np.isnan(targets["values"]).any():
                return targets
        self.records.discard(key)
        return None

    def _compress(self, logits: mx.array) -> np.ndarray:
        """Logits (..., C) as stored: targets (...)."""
        targets = np.zeros(logits.shape[:-1], self.record_type)
        if self.top_k:
            unlikeliness = -log_softmax(logits)
            order = mx.argpartition(unlikeliness, kth=self.top_k - 1, axis=-1)
            classes = order[..., : self.top_k]
            targets["classes"] = np.array(classes)
            logits = top_k_log_probs(logits, classes)
        targets["values"] = np.array(logits)
        return targets


def top_k_log_probs(
    logits: mx.array, classes: mx.array, log_sum_exp: mx.array | None = None
) -> mx.array:
    """Log-probabilities of `classes` (..., k), then that of all other classes together: (..., k + 1)."""
    if log_sum_exp is None:
        log_sum_exp = mx.logsumexp(logits, axis=-1)
    log_p = mx.take_along_axis(logits, classes, axis=-1) - log_sum_exp[..., None]
    tail = 1 - mx.exp(log_p).sum(axis=-1, keepdims=True)
    return mx.concatenate([log_p, mx.log(mx.maximum(tail, MIN_PROBABILITY))], axis=-1)


class RecordFile:
    """Records by key, each verified by a checksum. Several processes may share a file; the first record of a key stays.

    New records stay in memory until `BUFFER_BYTES` of them are gathered or `flush` is called. A corrupt record or file
    is deleted with one warning; a file that cannot be read or written costs a warning, never the run. One that cannot
    be created is a CannotCreateError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: dict[bytes, tuple[object, ...]] = {}  # rows of the table
        self._pending_bytes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._open()
        except (OSError, sqlite3.OperationalError) as error:
            raise CannotCreateError(
                f"{path}: the teacher cache cannot be created ({error})"
            ) from None

    def get(self, key: bytes) -> bytes | None:
        """A record; None if it is not stored, or corrupt."""
        row = self._pending.get(key) or self._read(key)
        if row is None:
            return None
        _, record, checksum = row
        if isinstance(record, bytes) and checksum == xxhash.xxh3_64_digest(record):
            return record
        self.discard(key)
        return None

    def put(self, key: bytes, record: bytes) -> None:
        self._pending[key] = (key, record, xxhash.xxh3_64_digest(record))
        self._pending_bytes += len(record)
        if self._pending_bytes >= BUFFER_BYTES:
            self.flush()

    def discard(self, key: bytes) -> None:
        """Deletes a record that cannot be used."""
        log.warning("%s: a record is corrupt; it is computed again", self.path)
        self._pending.pop(key, None)
        self._write("DELETE FROM records WHERE key = ?", [(key,)])

    def flush(self) -> None:
        """Writes every record to disk, durably. One that cannot be written is computed again another time."""
        rows = list(self._pending.values())
        self._pending = {}
        self._pending_bytes = 0
        if rows:
            self._write("INSERT OR IGNORE INTO records VALUES (?, ?, ?)", rows)

    def _read(self, key: bytes) -> tuple | None:
        with self._faults_tolerated("read"):
            matches = self._database.execute("SELECT * FROM records WHERE key = ?", (key,))
            return matches.fetchone()
        return None

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._faults_tolerated("written"), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(statement, rows)

    @contextmanager
    def _faults_tolerated(self, action: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            log.warning(
                "%s: cannot be %s (%s); the run continues without", self.path, action, error
            )
        except sqlite3.DatabaseError as error:
            self._database.close()
            self._database = self._recreate(error)

    def _open(self) -> sqlite3.Connection:
        """Opens the file, or replaces one that is not what this class writes."""
        # A checkpoint may be saved, and so the records flushed, from the thread that watches for lost workers.
        database = sqlite3.connect(
            self.path, _WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE}")
            schema = database.execute(
                "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"
            ).fetchall()
            if schema != [(f"CREATE TABLE {_TABLE}",)]:
                raise sqlite3.DatabaseError("unknown tables")
            return database
        except sqlite3.DatabaseError as error:
            database.close()
            if isinstance(error, sqlite3.OperationalError):
                raise
            return self._recreate(error)

    def _recreate(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        log.warning("%s: the teacher cache is corrupt (%s); it is created again", self.path, error)
        for path in (self.path, self.path.with_name(f"{FILE}-journal")):
            path.unlink(missing_ok=True)
        return self._open()


def row_key(tokens: np.ndarray, segment_ids: np.ndarray) -> bytes:
    """128-bit hash of the tokens and document numbers of a row, without its padding; or of its cells."""
    if tokens.dtype.kind == "f":
        return xxhash.xxh3_128_digest(tokens.tobytes())
    row = np.stack([tokens, segment_ids])[:, : _length(segment_ids)]
    return xxhash.xxh3_128_digest(row.astype(np.int32).tobytes())


def _length(segment_ids: np.ndarray) -> int:
    """Tokens up to the last one that is not padding."""
    real = np.flatnonzero(segment_ids)
    return int(real[-1]) + 1 if len(real) else 0
