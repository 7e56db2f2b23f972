"""Writes `run.json`, and reads that of anyone's folder: bounded, of the right types, finite."""

from dataclasses import asdict
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError, WriteError
from mlxlab.files.atomic import without_nonfinite, write_json
from mlxlab.files.untrusted import read_json
from mlxlab.nearest import no_such_folder
from mlxlab.record.run_record import FORMAT, RunRecord

FILE = "run.json"
SWEEP = "sweep.json"


def write_run(folder: Path, record: RunRecord, *, durable: bool = True) -> Path:
    """Replaces the record of a run folder; raises WriteError where it cannot be written."""
    path = folder / FILE
    try:
        write_json(path, without_nonfinite(asdict(record)), durable=durable)
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
        number = read_json(path, dict[str, object]).get("format")
        if number != FORMAT:
            raise DataError(f"{path}: run of format {number!r:.20}, expected format {FORMAT}")
        return read_json(path, RunRecord)
    except InputNotFoundError:
        raise InputNotFoundError(
            f"{path}: not found; expected a run folder{of_sweep(folder)}"
        ) from None


def of_sweep(folder: Path) -> str:
    """What a message on a folder that holds no run ends with, if it is that of a sweep."""
    if not (folder / SWEEP).is_file():
        return ""
    continuing = f"sweep.resume={folder} continues it"
    return f"; this is the folder of a sweep: {continuing}, and its jobs are in {folder}/0, ..."
