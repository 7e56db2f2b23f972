"""Arrays on disk under a name made of everything they depend on: a changed input is another name, never a stale hit."""

import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Arrays = dict[str, np.ndarray]
log = logging.getLogger(__name__)


def content_key(**parts: Any) -> str:
    """32 hex digits of the parts, each a JSON value."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cached(folder: Path, name: str, key: str, build: Callable[[], Arrays]) -> tuple[Arrays, str]:
    """The arrays of `key`, read or built and kept; and what happened, in words.

    Two processes may do this at once: each writes a file of its own and renames it. A corrupt file is built anew with
    one warning; a folder that cannot be written costs a warning, never the run.
    """
    path = folder / f"{name}-{key}.npz"
    try:
        return _read(path, key), f"hit {path.name}"
    except FileNotFoundError:
        said = f"miss {path.name}"
    except Exception as error:  # whatever a damaged zip, header or length can raise
        log.warning("the cache %s is corrupt (%s); it is built anew", path, type(error).__name__)
        said = f"corrupt, built anew {path.name}"
    arrays = build()
    try:
        _write(path, key, arrays)
    except OSError as error:
        log.warning("the cache %s could not be written (%s)", path, error)
        said += ", not kept"
    return arrays, said


def _read(path: Path, key: str) -> Arrays:
    # From memory: np.load leaves a damaged file open.
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    digest = arrays.pop("digest")
    if digest.tobytes() != _digest(key, arrays):
        raise ValueError("another digest")
    return arrays


def _write(path: Path, key: str, arrays: Arrays) -> None:
    digest = np.frombuffer(_digest(key, arrays), np.uint8)
    write_whole(path, lambda file: np.savez(file, digest=digest, **arrays))  # type: ignore[arg-type]


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """A file that a reader finds complete or not at all, whoever else writes it at the same time.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _digest(key: str, arrays: Arrays) -> bytes:
    digest = hashlib.sha256(key.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.digest()
