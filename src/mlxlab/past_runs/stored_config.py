"""The config that a run folder stores: that of its run, or the one that its rounds have in common."""

from pathlib import Path
from typing import Any

from mlxlab.checkpoint.names import holds_rounds
from mlxlab.config.check import check_stored_config, read_stored_config
from mlxlab.record.run_file import FILE, read_run


def read_run_config(folder: Path) -> dict[str, Any]:
    """Reads a run folder, which anyone may have written.

    Raises:
        InputNotFoundError: the run ended before its config was stored, or it is no run folder.
        DataError, NotAllowedError: the file is damaged, or its config is not valid.
    """
    if holds_rounds(folder):
        return check_stored_config(read_run(folder).config, str(folder / FILE))
    return read_stored_config(folder / "inference" / "config.yaml")
