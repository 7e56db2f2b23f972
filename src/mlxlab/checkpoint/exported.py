"""Whether a folder holds an exported model: its checkpoint has no optimizer state. Imports no MLX."""

from contextlib import suppress
from pathlib import Path

from mlxlab.checkpoint.manifest import OPTIMIZER, CorruptCheckpointError, read_manifest
from mlxlab.checkpoint.names import FOLDER, committed_paths
from mlxlab.errors import CheckpointUnavailableError, ConfigError


def is_exported(folder: Path) -> bool:
    """Whether the newest checkpoint in a folder has no optimizer state; False if there is none, or it is damaged."""
    for path in committed_paths(folder / FOLDER)[:1]:
        with suppress(CorruptCheckpointError, CheckpointUnavailableError):
            return OPTIMIZER not in read_manifest(path)["files"]
    return False


def refuse_exported(folder: Path, *, resumes: bool) -> None:
    """Raises ConfigError for the folder of an exported model, in which a run would begin or which it `resumes`."""
    if is_exported(folder):
        refused = "which no run resumes" if resumes else "in which no run begins"
        raise ConfigError(
            f"{folder}: an exported model, {refused}; model.init_from={folder} uses its weights"
        )
