"""What the journal of a run may change in a store: its own run, and of that not the tags by which runs are found.

A journal may come from a stranger, who copied the id of another run.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.tracking.mlflow.client import clean_tags
from mlxlab.tracking.mlflow.errors import JournalRejectedError
from mlxlab.tracking.records import locate, read_records, read_uid

if TYPE_CHECKING:
    from mlflow.entities import Run

FOLDER = "mlxlab.folder"  # tag: the run folder
_RESERVED = ("mlflow.", "mlxlab.")
_SETTABLE = (
    "mlflow.user",
    "mlflow.source.name",
    "mlflow.source.type",
    "mlflow.source.git.commit",
    "mlflow.note.content",
)


def check_owner(run: "Run", folder: Path, uid: str, *, is_foreign: bool) -> None:
    """Raises JournalRejectedError unless run `uid` of the store began with the journal in `folder`.

    Args:
        is_foreign: the folder was not written by a process of this user, as far as known: it may be a changed copy.
    """
    if not started_run(run, folder, uid):
        raise JournalRejectedError(f"another run in the store has the id {uid}")
    recorded = Path(run.data.tags.get(FOLDER, folder))
    if is_foreign and read_uid(locate(recorded, uid)[0]) == uid and not _is_same(recorded, folder):
        raise JournalRejectedError(
            f"the run {uid} of the store is that of {recorded}; this is a copy of it"
        )


def started_run(run: "Run", folder: Path, uid: str) -> bool:
    """Whether a line of the journal started the run, by its time: usually the first one."""
    lines = read_records(locate(folder, uid)[0], max_bytes=2**63)
    return any(
        record and "start" in record and record["t"] == run.info.start_time for record, _ in lines
    )


def allowed_tags(tags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Tags within MLflow's limits, and the names of those that a journal may not set."""
    cleaned = clean_tags(tags)
    refused = [key for key in cleaned if key.lower().startswith(_RESERVED) and key not in _SETTABLE]
    return {key: value for key, value in cleaned.items() if key not in refused}, refused


def _is_same(first: Path, second: Path) -> bool:
    with suppress(OSError):
        return os.path.samefile(first, second)
    return False
