"""Damaged and hostile versions of a file: what a disk, a bug or an attacker could have left in a run folder."""

import json
import os
import random
from pathlib import Path
from typing import Any

import yaml

from mlxlab.checkpoint.manifest import MANIFEST, write_manifest


def flip_bits(rng: random.Random, data: bytes, canary: Path) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 8, 64])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, data: bytes, canary: Path) -> bytes:
    return data[: rng.choice([0, 1, rng.randrange(len(data) + 1)])]


def insert_bytes(rng: random.Random, data: bytes, canary: Path) -> bytes:
    at = rng.randrange(len(data) + 1)
    kinds = [b"\0" * 9, b"\xff\xfe", rng.randbytes(40), b"\n\n{}\n", data[:2000]]
    return data[:at] + rng.choice(kinds) + data[at:]


def replace_value(rng: random.Random, data: bytes, canary: Path) -> bytes:
    """Another type or an extreme value somewhere in the document, a key too many or too few."""
    lines = data.split(b"\n")
    try:
        return _dump(_changed(rng, _load(data), canary))
    except ValueError:  # JSON lines
        at = rng.randrange(len(lines))
    try:
        lines[at] = _dump(_changed(rng, _load(lines[at]), canary))
    except ValueError:
        return flip_bits(rng, data, canary)
    return b"\n".join(lines)


def nest(rng: random.Random, data: bytes, canary: Path) -> bytes:
    depth = rng.choice([100, 5000, 100_000])
    return rng.choice([b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth])


def change_header(rng: random.Random, data: bytes, canary: Path) -> bytes:
    """A safetensors file with another header: shapes, types, offsets, names, or its length."""
    size = int.from_bytes(data[:8], "little")
    if rng.random() < 0.2:
        return rng.choice([2**63, size + 1, 0, 2**32]).to_bytes(8, "little") + data[8:]
    header = _dump(_changed(rng, json.loads(data[8 : 8 + size]), canary))
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


TEXT = (flip_bits, truncate, insert_bytes, replace_value, replace_value, replace_value, nest)
BINARY = {".safetensors": (flip_bits, truncate, change_header, change_header)}


def mutate_file(rng: random.Random, path: Path, canary: Path) -> str:
    """Damages one file of a run folder; returns what was done. Checkpoints mostly get checksums that fit again."""
    if rng.random() < 0.15:
        return _replace_by_other_kind(rng, path, canary)
    mutate = rng.choice(BINARY.get(path.suffix, TEXT))
    path.write_bytes(mutate(rng, path.read_bytes(), canary))
    checkpoint = path.parent
    if checkpoint.name.startswith("step-") and path.name != MANIFEST and rng.random() < 0.8:
        (checkpoint / MANIFEST).unlink()
        write_manifest(checkpoint, step=int(checkpoint.name[5:]), best_step=0)
        return f"{mutate.__name__}, checksums updated"
    return mutate.__name__


def _replace_by_other_kind(rng: random.Random, path: Path, canary: Path) -> str:
    path.unlink()
    kind = rng.choice(["missing", "symlink", "pipe", "folder", "huge", "loop"])
    if kind == "symlink":
        path.symlink_to(canary)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(2**42)  # sparse; more than any disk has free
    return kind


def _load(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        pass
    try:
        value = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(value, dict):
        raise ValueError("no document")
    return value


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _changed(rng: random.Random, value: Any, canary: Path) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        action = rng.random()
        if action < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if action < 0.15:
            return value | {rng.choice(["extra", "../x", "", "_target_"]): _extreme(rng, canary)}
        return value | {key: _changed(rng, value[key], canary)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _changed(rng, value[at], canary), *value[at + 1 :]]
    return _extreme(rng, canary)


def _extreme(rng: random.Random, canary: Path) -> Any:
    values: list[Any] = [None, True, False, 0, -1, 1, 2, 2**31, 2**53, 2**63, 2**70, -(2**64)]
    values += [0.5, 1e308, -1e308, float("nan"), float("inf"), "", "x", "1", "\0", "\ud800"]
    values += ["x" * 10**6, [], {}, [[]], [{}], {"a": {}}, "../../x", "/etc/passwd", str(canary)]
    values += [f"../{canary.name}", "file:///etc/passwd", "${oc.env:HOME}", "~", "os.system"]
    values += ["mlxlab.cli.main.main", {"_target_": "os.system", "command": "id"}]
    values += ["http://127.0.0.1:9/x"]
    return rng.choice(values)
