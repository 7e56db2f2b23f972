"""The manifest of a checkpoint: size and checksum (XXH3, 128 bits) of every file, and a checksum of itself.

A flipped bit in safetensors loads without an error, even in the header: only a checksum detects it. Checksums protect
from damage, not from forgery: whatever a manifest says is checked like any other input.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypedDict

import xxhash

from mlxlab.errors import CheckpointUnavailableError, DataError, InputNotFoundError
from mlxlab.files.atomic import fsync
from mlxlab.files.untrusted import parse_json, read_bytes
from mlxlab.schema.constraints import Ge

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
FORMAT = 2
FILE_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)  # Files lie directly in the checkpoint folder.


class CorruptCheckpointError(Exception):
    """A checkpoint cannot be used; the message says why, without the path of the checkpoint."""


class FileEntry(TypedDict):
    """Size and digest that a file must have."""

    size: Annotated[int, Ge(0)]
    xxh3_128: str


class CheckpointManifest(TypedDict):
    """`best_step` is the step of the best evaluation so far, 0 if there is none; `checksum` is of all other fields."""

    format: int
    step: Annotated[int, Ge(0)]
    best_step: Annotated[int, Ge(0)]
    files: dict[str, FileEntry]
    checksum: str


def write_manifest(folder: Path, *, step: int, best_step: int) -> None:
    """Flushes every file of the folder to the disk, then writes the manifest and flushes it too."""
    files: dict[str, FileEntry] = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            fsync(file.fileno())
            digest = hashlib.file_digest(file, xxhash.xxh3_128)
            files[path.name] = {"size": file.tell(), "xxh3_128": digest.hexdigest()}
    fields = {"format": FORMAT, "step": step, "best_step": best_step, "files": files}
    with (folder / MANIFEST).open("xb") as file:
        file.write(json.dumps(fields | {"checksum": _own_checksum(fields)}, indent=1).encode())
        file.flush()
        fsync(file.fileno())


def read_verified(folder: Path) -> tuple[CheckpointManifest, dict[str, bytes]]:
    """The manifest, and the bytes of every file it names, verified.

    Raises:
        CorruptCheckpointError: a file is missing, is no regular file, or is not what was saved.
        CheckpointUnavailableError: the checkpoint was written in another format.
    """
    manifest = read_manifest(folder)
    return manifest, {name: read_file(folder, manifest, name) for name in manifest["files"]}


def read_file(folder: Path, manifest: CheckpointManifest, name: str) -> bytes:
    """The bytes of one file, verified; raises CorruptCheckpointError as `read_verified`, also if it is unknown."""
    if name not in manifest["files"]:
        raise CorruptCheckpointError(f"{name} is not in the manifest")
    expected = manifest["files"][name]
    data = _read(folder, name, expected["size"])
    if len(data) != expected["size"]:
        raise CorruptCheckpointError(f"{name} has {len(data)} bytes, expected {expected['size']}")
    if xxhash.xxh3_128_hexdigest(data) != expected["xxh3_128"]:
        raise CorruptCheckpointError(f"{name} has another checksum than when it was saved")
    return data


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest, verified against its own checksum; raises as `read_verified` does."""
    text = _read(folder, MANIFEST, 2**20).decode("utf-8", errors="replace")
    try:
        fields = parse_json(text, dict[str, object], MANIFEST)
        if fields.get("checksum") != _own_checksum(fields):
            raise CorruptCheckpointError(f"{MANIFEST} has another checksum than when it was saved")
        if type(number := fields.get("format")) is int and number != FORMAT:
            raise CheckpointUnavailableError(
                f"{folder}: checkpoint of format {number}, expected format {FORMAT}"
            )
        manifest = parse_json(text, CheckpointManifest, MANIFEST)
    except DataError as error:
        raise CorruptCheckpointError(str(error)) from None
    for name in manifest["files"]:
        if not FILE_NAME.fullmatch(name):
            raise CorruptCheckpointError(
                f"{MANIFEST}: expected the name of a file in the folder, got {name[:60]!r}"
            )
    return manifest


def _own_checksum(fields: Mapping[str, object]) -> str:
    text = json.dumps(
        {key: value for key, value in fields.items() if key != "checksum"}, sort_keys=True
    )
    return xxhash.xxh3_128_hexdigest(text.encode())


def _read(folder: Path, name: str, max_bytes: int) -> bytes:
    try:
        return read_bytes(folder / name, max_bytes=max_bytes)
    except (InputNotFoundError, DataError) as error:
        raise CorruptCheckpointError(str(error).removeprefix(f"{folder}/")) from None
