"""How long a job has taken, by its run folder."""

from contextlib import suppress
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.manifest import read_manifest


def seconds_of_attempts(folder: Path) -> float:
    """Of all processes that worked on a run, also of those that were killed with the sweep; 0 without a manifest."""
    with suppress(InputNotFoundError, DataError):
        attempts = read_manifest(folder)["attempts"]
        return sum(max(each.get("end", each["start"]) - each["start"], 0.0) for each in attempts)
    return 0.0
