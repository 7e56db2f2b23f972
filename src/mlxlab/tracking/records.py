"""The file formats of a tracked run: the records of `journal.jsonl`, and how far they have been uploaded.

A journal holds one JSON object per line, in the order of events. The other key than `t` (milliseconds since 1970) gives
its kind. Paths are relative to the run folder; a line of `{}` and spaces is a record that was taken back. JSON
knows no NaN: such values are the texts "NaN", "Infinity" and "-Infinity".
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypedDict, cast, final

from annotated_types import Ge, Le, Predicate

from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.files.shape import ShapeError, validate
from mlxlab.files.untrusted import open_regular, parse_json, read_json
from mlxlab.tracking.tracker import Status

FILE = "journal.jsonl"
STATE = "journal.sync.json"
MAX_LINE = 16 * 2**20  # bytes

_uid = re.compile(r"[0-9a-f]{32}")


def is_uid(text: str) -> bool:
    return _uid.fullmatch(text) is not None


Uid: TypeAlias = Annotated[str, Predicate(is_uid)]
Time: TypeAlias = Annotated[int, Ge(0), Le(253_402_300_799_999)]  # ms, up to the year 9999
Step: TypeAlias = Annotated[int, Ge(0), Le(2**53)]
Number: TypeAlias = float | Literal["NaN", "Infinity", "-Infinity"]


class Start(TypedDict):
    """Opens the run, or continues it after a resume. `store` and `artifacts` are where it was to be uploaded then."""

    uid: Uid
    name: str
    experiment: str
    params: dict[str, str]
    tags: dict[str, str]
    parent: Uid | None
    store: str
    artifacts: str | None
    resumed: bool


class Dataset(TypedDict):
    name: str
    digest: str
    source: str
    context: str


class Artifact(TypedDict):
    path: str
    to: str  # folder in the run's artifacts; "" for their root


class Model(TypedDict):
    name: str
    step: Step | None
    files: dict[str, str]  # name -> path
    signature: dict[str, str] | None


@final
class StartRecord(TypedDict):
    t: Time
    start: Start


@final
class MetricsRecord(TypedDict):
    t: Time
    s: Step
    m: dict[str, Number]


@final
class TagsRecord(TypedDict):
    t: Time
    tags: dict[str, str]


@final
class DatasetRecord(TypedDict):
    t: Time
    dataset: Dataset


@final
class ArtifactRecord(TypedDict):
    t: Time
    artifact: Artifact


@final
class ModelRecord(TypedDict):
    t: Time
    model: Model


@final
class TruncateRecord(TypedDict):
    """Metrics of later steps are taken back; -1 takes back all."""

    t: Time
    truncate_after: Annotated[int, Ge(-1), Le(2**53)]


@final
class EndRecord(TypedDict):
    t: Time
    end: Status


Record: TypeAlias = (
    StartRecord | MetricsRecord | TagsRecord | DatasetRecord | ArtifactRecord | ModelRecord | TruncateRecord | EndRecord
)
_SHAPES: dict[str, Any] = {
    "m": MetricsRecord,
    "start": StartRecord,
    "tags": TagsRecord,
    "dataset": DatasetRecord,
    "artifact": ArtifactRecord,
    "model": ModelRecord,
    "truncate_after": TruncateRecord,
    "end": EndRecord,
}


class SyncState(TypedDict):
    """`journal.sync.json`: how far a journal has been uploaded, and to which run of which store."""

    uid: Uid
    store: str
    offset: Annotated[int, Ge(0)]  # bytes of the journal
    run_id: str | None  # of MLflow
    experiment_id: str | None
    status: Literal["RUNNING", "FINISHED", "FAILED", "KILLED"] | None
    t: Time | None  # of the last record
    fault: str | None  # why the store refuses the next record
    seen: dict[str, Step]  # metric -> last step that a server without deletion already has
    models: dict[str, str]  # name -> URI in the store


def read_records(journal: Path, offset: int = 0, max_bytes: int = 4 * 2**20) -> Iterator[tuple[Record | None, int]]:
    """Complete records from byte `offset` on, about `max_bytes` of them, each with the offset after it.

    None stands for a record that was taken back. A line without an end is still being written: reading stops there.

    Raises:
        InputNotFoundError: the journal does not exist.
        DataError: it is no regular file, or a line is not a record.
    """
    end = offset + max_bytes
    with open_regular(journal) as file:
        file.seek(offset)
        while offset < end:
            line = file.readline(MAX_LINE)
            if not line.endswith(b"\n"):
                if len(line) == MAX_LINE:
                    raise DataError(f"{journal}: byte {offset}: a line of more than {MAX_LINE} bytes")
                return
            record = _parse(line, f"{journal}: byte {offset}")
            offset += len(line)
            yield record, offset


def read_start(journal: Path) -> Start | None:
    """The first record; None if the journal is empty. Raises as `read_records`, and DataError if it opens no run."""
    first = next(read_records(journal, max_bytes=1), None)
    if first is None:
        return None
    if first[0] is None or "start" not in first[0]:
        raise DataError(f"{journal}: the first line does not start a run")
    return first[0]["start"]


def read_uid(journal: Path) -> str | None:
    """The uid of the run in a journal; None if it is missing or damaged."""
    try:
        start = read_start(journal)
    except UserError:
        return None
    return start["uid"] if start else None


def read_state(path: Path, uid: str) -> SyncState | None:
    """The state of the upload of journal `uid`; None if it is missing, damaged or of another run."""
    try:
        state = read_json(path, SyncState)
    except (InputNotFoundError, DataError):
        return None
    return state if state["uid"] == uid else None


def utf8(path: Path | str) -> str:
    """A path as text that can be stored and printed: names that are not UTF-8 have their bytes escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _parse(line: bytes, where: str) -> Record | None:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8") from None
    record = parse_json(text, dict[str, Any], where)
    if not record:
        return None
    kind = next((key for key in _SHAPES if key in record), None)
    if kind is None:
        raise DataError(f"{where}: expected one of {', '.join(_SHAPES)}, got {', '.join(record)[:60]}")
    try:
        return cast(Record, validate(record, _SHAPES[kind]))
    except ShapeError as error:
        raise DataError(f"{where}: {error}") from None
