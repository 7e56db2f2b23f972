"""The frozen weights of a run with adapters: `<run folder>/base/<digest>.safetensors`, written once.

Its checkpoints hold the other weights, and the digest of this file (SHA-256), in whose name the first digits stand.
"""

import hashlib
import re
from pathlib import Path

import mlx.core as mx
import xxhash

from mlxlab.checkpoint.arrays import Arrays, update_hash
from mlxlab.checkpoint.safetensors import parse_arrays
from mlxlab.errors import CheckpointUnavailableError, DataError, InputNotFoundError
from mlxlab.files.atomic import fsync, fsync_folder, remove_leftovers, temporary_name
from mlxlab.files.untrusted import read_bytes

FOLDER = "base"
DIGITS = 16  # of the digest, in the name of a file
DIGEST = re.compile(r"[0-9a-f]{64}")
REFERENCE = re.compile(rb'"base": "([0-9a-f]{64})"')  # in a state.json
MAX_BYTES = 2**40


class FrozenWeights:
    """Writes the frozen weights of the run in `run_dir`; weights that are there already are not written again."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / FOLDER
        self._written: dict[str, str] = {}  # fingerprint of weights -> digest of their file

    def write(self, arrays: Arrays) -> str:
        """The digest of the file that has the weights, "" if there are none; it is on the disk then.

        Raises:
            OSError: it could not be written; nothing is left behind.
        """
        if not arrays:
            return ""
        fingerprint = _fingerprint(arrays)
        if fingerprint not in self._written:
            self._written[fingerprint] = self._store(arrays)
        return self._written[fingerprint]

    def scan(self) -> None:
        """Reads the intact files of the folder, of a run that is resumed. Not in a thread: MLX computes here."""
        remove_leftovers(self.folder)
        for path in sorted(self.folder.glob("*.safetensors")):
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            if path.name == _file_name(digest):
                self._written[_fingerprint(parse_arrays(data))] = digest

    def remove_unused(self, newest: str) -> None:
        """Removes what a killed save left, and files that no checkpoint of the run refers to, also none set aside.

        Args:
            newest: the digest that the newest checkpoint refers to.
        """
        remove_leftovers(self.folder)
        files = [
            path for path in self.folder.glob("*.safetensors") if path.name != _file_name(newest)
        ]
        if not files:
            return
        states = [
            path.read_bytes() for path in self.folder.parent.glob("checkpoints*/*/state.json")
        ]
        used = {
            _file_name(digest.decode()) for state in states for digest in REFERENCE.findall(state)
        }
        for path in files:
            if path.name not in used:
                path.unlink()
                self._written = {
                    key: value
                    for key, value in self._written.items()
                    if _file_name(value) != path.name
                }

    def _store(self, arrays: Arrays) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(self.folder / "new.safetensors")
        try:
            mx.save_safetensors(str(temporary), arrays, {"format": "mlx"})
            with temporary.open("rb") as file:
                fsync(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            temporary.replace(self.folder / _file_name(digest))
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(self.folder)
        fsync_folder(self.folder.parent)
        return digest


def read_base(checkpoint: Path, digest: str) -> Arrays:
    """The frozen weights that the checkpoint at a path refers to, in its run folder or next to it.

    Raises:
        CheckpointUnavailableError: they are missing, or not those with which the checkpoint was saved.
    """
    if not DIGEST.fullmatch(digest):
        raise CheckpointUnavailableError(
            f"{checkpoint}: state.json: base: expected 64 hexadecimal digits"
        )
    checkpoint = checkpoint.absolute()
    paths = [
        folder / FOLDER / _file_name(digest)
        for folder in (checkpoint.parent.parent, checkpoint.parent)
    ]
    path = next(filter(Path.is_file, paths), paths[0])
    try:
        data = read_bytes(path, max_bytes=MAX_BYTES)
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataError(f"{path}: damaged")
        return parse_arrays(data)
    except (InputNotFoundError, DataError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointUnavailableError(
            f"{reason}; it holds the frozen weights of {checkpoint}"
        ) from None


def _file_name(digest: str) -> str:
    return f"{digest[:DIGITS]}.safetensors"


def _fingerprint(arrays: Arrays) -> str:
    """A quick hash, to see which weights are written."""
    result = xxhash.xxh3_128()
    update_hash(result, arrays)
    return result.hexdigest()
