"""`journal.jsonl`: everything that happened in a run, one JSON object a line, in the order of events.

A journal is only appended to, so the position of a record (its byte) never changes. Paths are relative to the run
folder. Numbers that JSON does not know are texts: "NaN", "Infinity", "-Infinity".
"""

import fcntl
import json
import mmap
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

from annotated_types import Ge, Le, Predicate

from mlxlab.errors import CannotCreateError, DataError, UserError
from mlxlab.files.untrusted import open_regular, parse_json
from mlxlab.tracking.tracker import Context, Status

FILE = "journal.jsonl"
JOURNALS = FILE.replace(".", "*.")  # This matches those that another run in the folder renamed.
MAX_LINE = 16 * 2**20  # bytes
MAX_WAITING = 64 * 2**20  # bytes of lines in memory while the disk refuses them
LOCK_ATTEMPTS = 50  # `has_writer` holds the lock for an instant

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode

_uid = re.compile(r"[0-9a-f]{32}")


def is_uid(text: str) -> bool:
    """32 hexadecimal digits"""
    return _uid.fullmatch(text) is not None


Uid: TypeAlias = Annotated[str, Predicate(is_uid)]
# ms since 1970, up to the year 9999.
Time: TypeAlias = Annotated[int, Ge(0), Le(253_402_300_799_999)]
Step: TypeAlias = Annotated[int, Ge(0), Le(2**53)]
Number: TypeAlias = float | Literal["NaN", "Infinity", "-Infinity"]


class RunStart(TypedDict):
    """Opens the run, or continues it after a resume.

    `store` is that of MLflow that it was to be uploaded to then; None if it was for other services.
    """

    uid: Uid
    name: str
    experiment: str
    params: dict[str, str]
    tags: dict[str, str]
    parent: Uid | None
    store: str | None
    resumed: bool


class Dataset(TypedDict):
    """The data of a split."""

    name: str
    digest: str
    source: str
    context: Context
    schema: NotRequired[str]  # JSON: the columns, as MLflow has them
    profile: NotRequired[str]  # JSON: sizes by name


class Artifact(TypedDict):
    path: str
    to: str  # folder in the run's artifacts; "" for their root


class Model(TypedDict):
    step: Step
    files: dict[str, str]  # name -> path
    signature: dict[str, str] | None


class Record(TypedDict):
    """One line: its time, and one of the other keys. Those of every line of metrics are short, to save space."""

    t: Time
    s: NotRequired[Step]  # only with `m`
    m: NotRequired[dict[str, Number]]  # metrics of step `s`
    start: NotRequired[RunStart]
    tags: NotRequired[dict[str, str]]
    dataset: NotRequired[Dataset]
    artifact: NotRequired[Artifact]
    model: NotRequired[Model]
    # The run continues after this step; -1: from the beginning.
    truncate_after: NotRequired[Annotated[int, Ge(-1), Le(2**53)]]
    end: NotRequired[Status]


def read_records(journal: Path, position: int = 0) -> Iterator[tuple[Record, int]]:
    """The complete records from byte `position` on, each with the position after it.

    A line without an end is still being written: reading stops there.

    Raises:
        InputNotFoundError: the journal does not exist.
        DataError: it is no regular file, or a line is not a record.
    """
    with open_regular(journal) as file:
        file.seek(position)
        while True:
            line = file.readline(MAX_LINE)
            where = f"{journal}: byte {position}"
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                raise DataError(f"{where}: a line of more than {MAX_LINE} bytes")
            if not line.endswith(b"\n"):
                return
            position += len(line)
            yield _parse(line, where), position


def read_first(journal: Path) -> tuple[RunStart, int]:
    """The record that opens the run, and its time; raises as `read_records`, and DataError if it is missing."""
    for record, _ in read_records(journal):
        if "start" in record:
            return record["start"], record["t"]
        break
    raise DataError(f"{journal}: the first line does not start a run")


def read_uid(journal: Path) -> str | None:
    """The uid of the run in a journal; None if it is missing or damaged."""
    try:
        return read_first(journal)[0]["uid"]
    except UserError:
        return None


def locate(folder: Path, uid: str) -> Path:
    """The journal of a run. It may have been renamed by another run in the folder."""
    renamed = folder / f"journal-{uid}.jsonl"
    if renamed.exists():
        return renamed
    return folder / FILE


def has_writer(journal: Path) -> bool:
    """True if a living process holds the journal open for appending."""
    with open_regular(journal) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def utf8(path: Path | str) -> str:
    """A path as text that can be stored and printed: names that are not UTF-8 have their bytes escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def new_uid(folder: Path) -> str:
    """A new id of 32 hex digits, which begins with those at the end of a run folder: `18-15-58-5679a5`."""
    start = re.search(r"-([0-9a-f]{6})$", folder.name)
    if start is None:
        return uuid.uuid4().hex
    return start[1] + uuid.uuid4().hex[6:]


def _parse(line: bytes, where: str) -> Record:
    try:
        record = parse_json(line.decode("utf-8"), Record, where)
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8") from None
    if len(record.keys() - {"t", "s"}) != 1 or ("s" in record) != ("m" in record):
        raise DataError(f"{where}: expected one kind of record, got {', '.join(record)[:60]}")
    return record


class RecordWriter:
    """Appends to the journal `path`. What was written survives `kill -9`, a full disk and a torn last line.

    One `os.write` per line on an O_APPEND descriptor: once it has returned, the line outlives the process. The file is
    locked (`flock`) while it is open, so that a reader can tell whether its writer is alive.

    Raises:
        CannotCreateError: the file cannot be opened, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = b""  # refused by the disk so far; goes out before anything newer
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, _FLAGS, 0o644)
            self._lock()
            self._remove_torn_line()
        except OSError as error:
            raise CannotCreateError(f"cannot write {path}: {error.strerror}") from None

    def write(self, **record: object) -> str | None:
        """Appends a record with its time; returns the reason if it has to wait in memory, else None."""
        line = _encode({"t": time.time_ns() // 1_000_000, **record})
        data = self.waiting + f"{line}\n".encode()
        try:
            written = os.write(self._file, data)
        except OSError as error:
            if len(data) <= MAX_WAITING:
                self.waiting = data
            return error.strerror
        self.waiting = data[written:]  # the rest of a line that fitted only in part
        return "no space left" if self.waiting else None

    def close(self) -> None:
        os.close(self._file)

    def _lock(self) -> None:
        is_regular = stat.S_ISREG(os.fstat(self._file).st_mode)
        for _ in range(LOCK_ATTEMPTS if is_regular else 0):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.01)
        os.close(self._file)
        fault = "another process is writing it" if is_regular else "expected a regular file"
        raise CannotCreateError(f"{self.path}: {fault}")

    def _remove_torn_line(self) -> None:
        """Removes what follows the last newline."""
        size = os.fstat(self._file).st_size
        if not size:
            return
        with mmap.mmap(self._file, size, access=mmap.ACCESS_READ) as data:
            end = data.rfind(b"\n") + 1
        os.ftruncate(self._file, end)
