"""The frozen weights of a run with adapters: `<run folder>/base/<digest>.safetensors`.

Its checkpoints hold the other weights, and the digest of these: XXH3, 128 bits, of their paths, types, shapes and bytes.
"""

import re
from contextlib import suppress
from pathlib import Path

import mlx.core as mx
import xxhash

from mlxlab.checkpoint.arrays import Arrays, digest, parse_arrays
from mlxlab.errors import CheckpointUnavailableError, DataError, InputNotFoundError
from mlxlab.files.atomic import fsync, fsync_folder, remove_leftovers, temporary_name
from mlxlab.files.untrusted import read_bytes

FOLDER = "base"
DIGEST = re.compile(r"[0-9a-f]{32}")
REFERENCE = re.compile(rb'"base": "([0-9a-f]{32})"')  # A state.json names the folder it needs.
MAX_BYTES = 2**40


class FrozenWeights:
    """Writes the frozen weights of the run in `run_dir`, in one process once."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / FOLDER
        self._written: set[str] = set()  # digests

    def write(self, arrays: Arrays) -> str:
        """The digest of the weights, "" if there are none; their file is on the disk then.

        Raises:
            OSError: it could not be written; nothing is left behind.
        """
        if not arrays:
            return ""
        name = digest(arrays, xxhash.xxh3_128)
        if name not in self._written:
            self._store(arrays, name)
            self._written.add(name)
        return name

    def remove_unused(self, newest: str) -> None:
        """Removes what a killed save left, and files that no checkpoint of the run refers to, also none set aside.

        Args:
            newest: the digest that the newest checkpoint refers to.
        """
        remove_leftovers(self.folder)
        files = [path for path in self.folder.glob("*.safetensors") if path.stem != newest]
        if not files:
            return
        used: set[str] = set()
        for state in self.folder.parent.glob("checkpoints*/*/state.json"):
            used.update(name.decode() for name in REFERENCE.findall(state.read_bytes()))
        for path in files:
            if path.stem not in used:
                path.unlink()
                self._written.discard(path.stem)

    def _store(self, arrays: Arrays, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(self.folder / "new.safetensors")
        try:
            mx.save_safetensors(str(temporary), arrays, {"format": "mlx"})
            with temporary.open("rb") as file:
                fsync(file.fileno())
            temporary.replace(self.folder / f"{name}.safetensors")
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(self.folder)
        fsync_folder(self.folder.parent)


def read_base(checkpoint: Path, name: str) -> Arrays:
    """The frozen weights that the checkpoint at a path refers to, in its run folder or next to it.

    Args:
        name: their digest, "" if there are none.

    Raises:
        CheckpointUnavailableError: they are missing, or not those with which the checkpoint was saved.
    """
    if not name:
        return {}
    if not DIGEST.fullmatch(name):
        raise CheckpointUnavailableError(
            f"{checkpoint}: state.json: base: expected 32 hexadecimal digits"
        )
    checkpoint = checkpoint.absolute()
    folders = (checkpoint.parent.parent, checkpoint.parent)
    paths = [folder / FOLDER / f"{name}.safetensors" for folder in folders]
    path = next(filter(Path.is_file, paths), paths[0])
    reason = f"{path}: damaged"
    try:
        with suppress(RuntimeError, ValueError):  # These are no arrays.
            arrays = parse_arrays(read_bytes(path, max_bytes=MAX_BYTES))
            if digest(arrays, xxhash.xxh3_128) == name:
                return arrays
    except (InputNotFoundError, DataError) as error:
        reason = str(error)
    raise CheckpointUnavailableError(f"{reason}; it holds the frozen weights of {checkpoint}")
