"""The manifest of a checkpoint: size and checksum (XXH3, 128 bits) of every file, and a checksum of itself.

A flipped bit in safetensors loads silently, in the header too: only a checksum sees it.
"""

import json
import re
from pathlib import Path
from typing import Any

import xxhash

from mlxlab.checkpoint.fsync import flush_file, write_file

MANIFEST = "manifest.json"
FORMAT = 1
PLAIN_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)  # of a file in this very folder


class CorruptCheckpointError(Exception):
    """Why a checkpoint cannot be used."""


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Flushes every file of the folder, then writes what they must be."""
    files = {}
    for path in sorted(folder.iterdir()):
        flush_file(path)
        data = path.read_bytes()
        files[path.name] = {"size": len(data), "xxh3_128": checksum(data)}
    manifest = {"format": FORMAT, **facts, "files": files}
    manifest["checksum"] = _own_checksum(manifest)
    write_file(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def read_verified(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the bytes of every file it names, verified; raises CorruptCheckpointError."""
    manifest = read_manifest(folder)
    files = {}
    for name, expected in manifest["files"].items():
        files[name] = _read(folder, name)
        if len(files[name]) != expected["size"]:
            raise CorruptCheckpointError(f"{name} has {len(files[name])} bytes instead of {expected['size']}")
        if checksum(files[name]) != expected["xxh3_128"]:
            raise CorruptCheckpointError(f"{name} has another checksum than when it was saved")
    return manifest, files


def read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(_read(folder, MANIFEST))
        claimed = manifest.pop("checksum")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise CorruptCheckpointError(f"{MANIFEST} is not readable") from None
    if claimed != _own_checksum(manifest):
        raise CorruptCheckpointError(f"{MANIFEST} has another checksum than when it was saved")
    if not _has_its_form(manifest):
        raise CorruptCheckpointError(f"{MANIFEST} is not one that a save wrote")
    if manifest["format"] > FORMAT:
        raise CorruptCheckpointError(
            f"format {manifest['format']} is newer than {FORMAT}, the newest this version reads"
        )
    return manifest


def _has_its_form(manifest: dict[str, Any]) -> bool:
    """Checksums are no secret: anybody can write a manifest whose own is right."""
    files = manifest.get("files")
    return (
        all(type(manifest.get(name)) is int for name in ("format", "step"))
        and isinstance(files, dict)
        and all(PLAIN_NAME.fullmatch(name) for name in files)
        and all(isinstance(expected, dict) and {"size", "xxh3_128"} <= expected.keys() for expected in files.values())
    )


def checksum(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def _own_checksum(manifest: dict[str, Any]) -> str:
    return checksum(json.dumps(manifest, sort_keys=True).encode())


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise CorruptCheckpointError(f"{name} is missing or not a plain file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptCheckpointError(f"{name} cannot be read ({error.strerror})") from None
