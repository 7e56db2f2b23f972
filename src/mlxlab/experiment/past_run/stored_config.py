"""The config that a run folder stores: that of its run, or the one that its rounds have in common."""

from pathlib import Path
from typing import Any

from mlxlab.checkpoint.names import ROUNDS
from mlxlab.config.check import check_stored_config, read_stored_config
from mlxlab.files.untrusted import read_json

_MAX_BYTES = 4 * 2**20


def read_run_config(folder: Path) -> dict[str, Any]:
    """Reads a run folder, which anyone may have written.

    Raises:
        InputNotFoundError: the run ended before its config was stored, or it is no run folder.
        DataError, NotAllowedError: the file is damaged, or its config is not valid.
    """
    rounds = folder / ROUNDS
    if not rounds.is_file():
        return read_stored_config(folder / "inference" / "config.yaml")
    stored = read_json(rounds, dict[str, object], max_bytes=_MAX_BYTES)
    return check_stored_config(stored.get("config"), str(rounds))
