"""Whether a folder holds an exported model: its checkpoint has no optimizer state. Imports no MLX."""

from contextlib import suppress
from pathlib import Path

from mlxlab.checkpoint.names import FOLDER, committed_paths
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.files.untrusted import open_regular, parse_json

_MAX_HEADER_BYTES = 200  # of a safetensors file without arrays


def is_exported(folder: Path) -> bool:
    """Whether the newest checkpoint in a folder has no optimizer state; False if there is none, or it is damaged."""
    return any(
        _has_no_arrays(path / "optimizer.safetensors")
        for path in committed_paths(folder / FOLDER)[:1]
    )


def refuse_exported(folder: Path, *, resumes: bool) -> None:
    """Raises ConfigError for the folder of an exported model, in which a run would begin or which it `resumes`."""
    if is_exported(folder):
        refused = "which no run resumes" if resumes else "in which no run begins"
        raise ConfigError(
            f"{folder}: an exported model, {refused}; model.init_from={folder} uses its weights"
        )


def _has_no_arrays(path: Path) -> bool:
    with suppress(OSError, DataError, InputNotFoundError), open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length <= _MAX_HEADER_BYTES:
            text = file.read(length).decode(errors="replace")
            return parse_json(text, dict[str, object], str(path)).keys() <= {"__metadata__"}
    return False
