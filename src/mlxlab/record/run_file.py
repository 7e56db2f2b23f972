"""Writes `run.json`, and reads that of anyone's folder: bounded, of the right types, finite.

`STATUS.<status>` is for shells.
"""

import errno
import logging
import os
import uuid
from dataclasses import asdict
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError, WriteError
from mlxlab.files.atomic import without_nonfinite, write_json
from mlxlab.files.untrusted import ShapeError, read_json, validate
from mlxlab.record.run_record import FORMAT, STATUSES, RunRecord
from mlxlab.terminal.nearest import no_such_folder

FILE = "run.json"
DAMAGED = "run.damaged.json"
SWEEP = "sweep.json"
# When another run begins in the folder of a run, this one moves to a folder inside with this prefix.
EARLIER = "earlier-"

logger = logging.getLogger(__name__)


def new_record(folder: Path) -> RunRecord:
    """The record of a run of which nothing is known."""
    return RunRecord(uuid.uuid4().hex, folder.name, "running", [])


def write_run(folder: Path, record: RunRecord, *, durable: bool = True) -> Path:
    """Replaces the record of a run folder and the file of its status; at every instant there is one.

    Raises:
        WriteError: they cannot be written.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, without_nonfinite(asdict(record)), durable=durable)
        (folder / f"STATUS.{record.status}").touch()
        for other in {*STATUSES} - {record.status}:
            (folder / f"STATUS.{other}").unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"{path}: not written: {error.strerror or error}") from None
    return path


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder.

    Raises:
        InputNotFoundError: there is none.
        DataError: it is damaged, or of another format.
    """
    path = folder / FILE
    if not folder.is_dir():
        raise InputNotFoundError(no_such_folder(folder, "a run folder"))
    try:
        values = read_json(path, dict[str, object])
        number = values.get("format")
        if number != FORMAT:
            raise DataError(f"{path}: run of format {number!r:.20}, expected format {FORMAT}")
        return validate(values, RunRecord)
    except ShapeError as error:
        raise DataError(f"{path}: {error}") from None
    except InputNotFoundError:
        raise InputNotFoundError(
            f"{path}: not found; expected a run folder{of_sweep(folder)}"
        ) from None


def read_or_begin(folder: Path) -> RunRecord:
    """The record of a run folder for the next attempt: a new one if there is none; a damaged one is kept aside.

    Raises:
        WriteError: a folder is in its place.
    """
    try:
        return read_run(folder)
    except InputNotFoundError:
        return new_record(folder)
    except DataError as error:
        if (folder / FILE).is_dir():
            raise WriteError(f"{folder / FILE}: {os.strerror(errno.EISDIR)}") from None
        os.replace(folder / FILE, folder / DAMAGED)
        logger.warning(f"{error}; kept as {DAMAGED}; a new record begins")
        return new_record(folder)


def of_sweep(folder: Path) -> str:
    """What a message on a folder that holds no run ends with, if it is that of a sweep."""
    if not (folder / SWEEP).is_file():
        return ""
    return (
        f"; this is the folder of a sweep: sweep.resume={folder} continues it,"
        f" and its jobs are in {folder}/0, ..."
    )
