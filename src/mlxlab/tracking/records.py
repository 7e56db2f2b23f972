"""The files of a tracked run: the records of `journal.jsonl`, and how far they have been uploaded.

A journal holds one JSON object per line, in the order of events. Paths are relative to the run folder; a line of `{}`
and spaces is a record that was taken back. Numbers that JSON does not know are texts: "NaN", "Infinity", "-Infinity".
"""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

from annotated_types import Ge, Le, Predicate

from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.files.untrusted import open_regular, parse_json, read_json
from mlxlab.tracking.registration import Alias, ModelName
from mlxlab.tracking.tracker import Status

FILE = "journal.jsonl"
JOURNALS = FILE.replace(".", "*.")  # also those that another run in the folder renamed
STATE = "journal.sync.json"
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

    `store` and `artifacts` are those of MLflow that it was to be uploaded to then; None if it was for other services.
    """

    uid: Uid
    name: str
    experiment: str
    params: dict[str, str]
    tags: dict[str, str]
    parent: Uid | None
    store: str | None
    artifacts: str | None
    resumed: bool


class Dataset(TypedDict):
    name: str
    digest: str
    source: str


class Artifact(TypedDict):
    path: str
    to: str  # folder in the run's artifacts; "" for their root


class Model(TypedDict):
    step: Step
    files: dict[str, str]  # name -> path
    signature: dict[str, str] | None


class Registration(TypedDict):
    """Registers the model last logged; `metrics` are those of its step."""

    name: ModelName
    alias: Alias | None
    metric: str | None
    min_improvement: Annotated[float, Ge(0)]
    step: Step
    data: str  # fingerprint of the training data
    metrics: dict[str, Number]


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
    register: NotRequired[Registration]
    truncate_after: NotRequired[
        Annotated[int, Ge(-1), Le(2**53)]
    ]  # metrics of later steps are taken back; -1: of all
    end: NotRequired[Status]


class SyncState(TypedDict):
    """`journal.sync.json`: how far a journal has been uploaded, and to which run of which store."""

    uid: Uid
    store: str
    offset: Annotated[int, Ge(0)]  # bytes of the journal
    seen: dict[str, Step]  # metric -> last step that a server without deletion already has
    run_id: NotRequired[str]  # of MLflow
    experiment_id: NotRequired[str]
    status: NotRequired[Literal["RUNNING"] | Status]
    t: NotRequired[Time]  # of the last record
    fault: NotRequired[str]  # why the store refuses the next record
    model: NotRequired[str]  # URI of the last one in the store
    registered: NotRequired[str]  # what became of the last registration
    num_missing: NotRequired[
        Annotated[int, Ge(0)]
    ]  # artifacts and models that could not be uploaded
    missing: NotRequired[str]  # why: the tag `mlxlab.missing`


def read_records(
    journal: Path, offset: int = 0, max_bytes: int = 4 * 2**20
) -> Iterator[tuple[Record | None, int]]:
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
                    raise DataError(
                        f"{journal}: byte {offset}: a line of more than {MAX_LINE} bytes"
                    )
                return
            record = _parse(line, f"{journal}: byte {offset}")
            offset += len(line)
            yield record, offset


def read_start(journal: Path) -> RunStart | None:
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


def locate(folder: Path, uid: str) -> tuple[Path, Path]:
    """Journal and state of a run. Its journal may have been renamed by another run in the folder."""
    renamed = folder / FILE.replace("journal", f"journal-{uid}", 1)
    if renamed.exists():
        return renamed, folder / STATE.replace("journal", f"journal-{uid}", 1)
    return folder / FILE, folder / STATE


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
    if line.strip() == b"{}":
        return None
    try:
        record = parse_json(line.decode("utf-8"), Record, where)
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8") from None
    if len(record.keys() - {"t", "s"}) != 1 or ("s" in record) != ("m" in record):
        raise DataError(f"{where}: expected one kind of record, got {', '.join(record)[:60]}")
    return record


def new_uid(folder: Path) -> str:
    """A new id of 32 hex digits, which begins with those at the end of a run folder: `18-15-58-5679a5`."""
    shown = re.search(r"-([0-9a-f]{6})$", folder.name)
    return (shown[1] if shown else "") + uuid.uuid4().hex[len(shown[1]) if shown else 0 :]
