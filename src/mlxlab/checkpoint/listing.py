"""What the checkpoints of a run are, without their arrays: only manifests and `state.json` are read.

Imports no MLX.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlxlab.checkpoint.manifest import OPTIMIZER, CorruptCheckpointError, read_file, read_manifest
from mlxlab.checkpoint.names import EMERGENCY, FOLDER, committed_paths, step_of
from mlxlab.checkpoint.state import STATE, SavedState, parse_state
from mlxlab.errors import CheckpointUnavailableError, ConfigError, DataError


@dataclass(frozen=True)
class CheckpointEntry:
    """A committed checkpoint, or why it cannot be used.

    Attributes:
        nbytes: on the disk, of the files that its manifest names.
        best_step: of the best evaluation when it was saved, 0 if there was none.
        fault: "" if all files have the size they should have; their contents are not compared.
    """

    path: Path
    step: int
    is_emergency: bool
    nbytes: int
    best_step: int
    fault: str


def list_checkpoints(folder: Path) -> list[CheckpointEntry]:
    """The checkpoints in a folder, newest first."""
    return [_entry(path) for path in committed_paths(folder)]


def newest_state(checkpoints: list[CheckpointEntry], max_bytes: int) -> SavedState | None:
    """The state in the newest checkpoint whose `state.json` is intact, and no larger; None if there is none."""
    for each in checkpoints:
        try:
            manifest = read_manifest(each.path)
            if manifest["files"][STATE]["size"] <= max_bytes:
                return parse_state(read_file(each.path, manifest, STATE))
        except (
            CorruptCheckpointError,
            CheckpointUnavailableError,
            DataError,
            UnicodeDecodeError,
            KeyError,
        ):
            continue
    return None


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


def _entry(path: Path) -> CheckpointEntry:
    step = step_of(path)
    is_emergency = EMERGENCY in path.name
    try:
        manifest = read_manifest(path)
    except (CorruptCheckpointError, CheckpointUnavailableError) as error:
        return CheckpointEntry(path, step, is_emergency, 0, 0, str(error).removeprefix(f"{path}: "))
    expected = {name: entry["size"] for name, entry in manifest["files"].items()}
    sizes = {name: _size(path / name) for name in expected}
    wrong = [name for name in expected if sizes[name] != expected[name]]
    fault = ""
    if wrong:
        fault = f"{wrong[0]} has {sizes[wrong[0]]} bytes, expected {expected[wrong[0]]}"
    return CheckpointEntry(
        path, step, is_emergency, sum(sizes.values()), manifest["best_step"], fault
    )


def _size(path: Path) -> int:
    """Bytes of a regular file, 0 if it is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
