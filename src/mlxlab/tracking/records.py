"""`journal.jsonl`: everything that happened in a run, one JSON object a line, in the order of events.

A journal is only appended to, so the position of a record (its byte) never changes. Paths are relative to the run
folder. Numbers that JSON does not know are texts: "NaN", "Infinity", "-Infinity".
"""

import fcntl
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

from annotated_types import Ge, Le, Predicate

from mlxlab.errors import DataError, UserError
from mlxlab.files.untrusted import open_regular, parse_json
from mlxlab.tracking.tracker import Context, Status

FILE = "journal.jsonl"
JOURNALS = FILE.replace(".", "*.")  # This matches those that another run in the folder renamed.
MAX_LINE = 16 * 2**20  # bytes

_uid = re.compile(r"[0-9a-f]{32}")


def is_uid(text: str) -> bool:
    """32 hexadecimal digits"""
    return _uid.fullmatch(text) is not None


Uid: TypeAlias = Annotated[str, Predicate(is_uid)]
Time: TypeAlias = Annotated[
    int, Ge(0), Le(253_402_300_799_999)
]  # ms since 1970, up to the year 9999
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
    truncate_after: NotRequired[
        Annotated[int, Ge(-1), Le(2**53)]
    ]  # the run continues after this step; -1: from the beginning
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
    return renamed if renamed.exists() else folder / FILE


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
    match = re.search(r"-([0-9a-f]{6})$", folder.name)
    start = match[1] if match else ""
    return start + uuid.uuid4().hex[len(start) :]


def _parse(line: bytes, where: str) -> Record:
    try:
        record = parse_json(line.decode("utf-8"), Record, where)
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8") from None
    if len(record.keys() - {"t", "s"}) != 1 or ("s" in record) != ("m" in record):
        raise DataError(f"{where}: expected one kind of record, got {', '.join(record)[:60]}")
    return record
