"""Writes `run.json`, and reads that of anyone's folder: bounded, of the right types, finite."""

from dataclasses import asdict
from pathlib import Path

from mlxlab.errors import DataError, WriteError
from mlxlab.files.atomic import without_nonfinite, write_json
from mlxlab.files.untrusted import read_json
from mlxlab.record.run_record import FORMAT, RunRecord

FILE = "run.json"


def write_run(folder: Path, record: RunRecord) -> Path:
    """Replaces the record of a run folder; raises WriteError where it cannot be written."""
    path = folder / FILE
    try:
        write_json(path, without_nonfinite(asdict(record)), durable=True)
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
    number = read_json(path, dict[str, object]).get("format")
    if number != FORMAT:
        raise DataError(f"{path}: run of format {number!r:.20}, expected format {FORMAT}")
    return read_json(path, RunRecord)
