"""Arrays cached on disk, keyed by everything they depend on: a changed input is another key, never a stale hit."""

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlxlab.errors import InputNotFoundError
from mlxlab.files.atomic import write_atomic
from mlxlab.files.untrusted import read_bytes

Arrays = dict[str, np.ndarray]
MAX_BYTES = 2**32
log = logging.getLogger(__name__)


def content_key(**content: Any) -> str:
    """32 hex digits of the parts, each a JSON value."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cached(
    folder: Path, name: str, key: str, build: Callable[[], Arrays], check: Callable[[Arrays], None] = lambda _: None
) -> tuple[Arrays, str]:
    """The arrays of `key`, read from the cache or built and cached; and a line for the log.

    Concurrent processes may do this: each writes a file of its own and renames it. A damaged file is built again with
    a warning; a folder that cannot be written costs a warning, never the run.

    Args:
        check: raises ValueError unless the arrays have the names, types, shapes and ranges that `build` gives. A file
            whose digest is right may still come from anyone.
    """
    path = folder / f"{name}-{key}.npz"
    try:
        arrays = _read(path, key)
        check(arrays)
    except InputNotFoundError:
        outcome = f"miss {path.name}"
    except Exception as error:  # whatever a damaged zip, header or length can raise
        log.warning("the cache %s is corrupt (%s); it is built again", path, type(error).__name__)
        outcome = f"corrupt, built again {path.name}"
    else:
        return arrays, f"hit {path.name}"
    arrays = build()
    try:
        _write(path, key, arrays)
    except OSError as error:
        log.warning("the cache %s could not be written (%s)", path, error)
        outcome += ", not cached"
    return arrays, outcome


def _read(path: Path, key: str) -> Arrays:
    data = io.BytesIO(read_bytes(path, max_bytes=MAX_BYTES))
    with zipfile.ZipFile(data) as members:
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
            raise ValueError("a compressed member: it could unpack to any size")
    with np.load(data, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    digest = arrays.pop("digest")
    if digest.tobytes() != _digest(key, arrays):
        raise ValueError("the digest differs")
    return arrays


def _write(path: Path, key: str, arrays: Arrays) -> None:
    digest = np.frombuffer(_digest(key, arrays), np.uint8)
    file = io.BytesIO()
    np.savez(file, digest=digest, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, file.getvalue())


def _digest(key: str, arrays: Arrays) -> bytes:
    digest = hashlib.sha256(key.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.digest()
