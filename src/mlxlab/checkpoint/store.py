"""Checkpoints: one folder per step, complete or absent.

A folder is written under a temporary name, its files and then itself flushed to the disk, and renamed once; the
manifest with the size and checksum of every file is the last thing in it. Nothing is read before it has been verified.
Order is by the step in the name, never by the clock. Only safetensors and JSON are read.
"""

import io
import json
import os
import re
import secrets
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxlab.checkpoint.fsync import flush_folder, remove, write_file
from mlxlab.checkpoint.manifest import MANIFEST, CorruptCheckpointError, read_verified, write_manifest
from mlxlab.errors import CannotCreateError, CheckpointUnavailableError

NAME = re.compile(r"step-(\d{8,})(-emergency)?$")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, in memory. `skipped` names the newer ones that were damaged, and why."""

    path: Path
    step: int
    weights: dict[str, mx.array]
    optimizer: dict[str, mx.array]
    state: dict[str, Any]
    skipped: tuple[str, ...] = ()


class CheckpointStore:
    """The checkpoints of one run: `<folder>/step-00000123/`.

    `keep` is how many of the newest regular ones stay; the best one stays as well.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(
        self,
        step: int,
        weights: dict[str, mx.array],
        optimizer: dict[str, mx.array],
        state: dict[str, Any],
        *,
        best_step: int = 0,
        emergency: bool = False,
    ) -> Path:
        """Commits a checkpoint, then removes what need not be kept. After an OSError all is as it was."""
        final = self.folder / f"step-{step:08d}{'-emergency' if emergency else ''}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotCreateError(f"{self.folder}: cannot create the checkpoint folder ({error.strerror})") from None
        self.clean()  # what a save left behind that could not even tidy up
        temporary = self.folder / f".tmp-{step:08d}-{os.getpid()}-{secrets.token_hex(4)}"
        temporary.mkdir(mode=0o700)
        try:
            for name, arrays in (("model", weights), ("optimizer", optimizer)):
                mx.save_safetensors(str(temporary / f"{name}.safetensors"), arrays, {"format": "mlx"})
            write_file(temporary / "state.json", json.dumps(state).encode())
            write_manifest(temporary, {"step": step, "emergency": emergency, "best_step": best_step})
            self._commit(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self.retain(best_step)
        return final

    def steps(self) -> list[Path]:
        """The committed checkpoints, newest first; at the same step a regular one before an emergency one."""
        if not self.folder.is_dir():
            return []
        found = [(m, path) for path in self.folder.iterdir() if path.is_dir() and (m := NAME.match(path.name))]
        return [path for m, path in sorted(found, key=lambda f: (int(f[0][1]), not f[0][2]), reverse=True)]

    def load(self, which: str = "last") -> Checkpoint:
        """The newest good checkpoint of a kind: last, best or emergency. Damaged ones are set aside, not deleted.

        Raises:
            CheckpointUnavailableError: there is none, or none is good; the message says what is wrong with each.
        """
        skipped: list[str] = []
        for path in self._candidates(which):
            try:
                return load_checkpoint(path, tuple(skipped))
            except CorruptCheckpointError as damage:
                skipped.append(f"{path.name}: {damage}")
                with suppress(OSError):  # a folder that is only to be read
                    path.rename(path.with_name(f"rejected-{path.name}-{secrets.token_hex(2)}"))
        found = "; ".join(skipped) or "there is none"
        raise CheckpointUnavailableError(f"{self.folder}: no usable checkpoint ({found})")

    def clean(self) -> list[Path]:
        """Removes what a killed save or removal left behind; for the one process that writes here."""
        left = [*self.folder.glob(".tmp-*"), *self.folder.glob(".del-*")] if self.folder.is_dir() else []
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return left

    def _candidates(self, which: str) -> list[Path]:
        steps = self.steps()
        if which == "emergency":
            return [path for path in steps if path.name.endswith("-emergency")]
        if which == "best":
            best = self._best_step(steps)
            return [path for path in steps if step_of(path) == best]
        return steps

    def _best_step(self, steps: list[Path]) -> int | None:
        for path in steps:
            try:
                return int(json.loads((path / MANIFEST).read_text())["best_step"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    def _commit(self, temporary: Path, final: Path) -> None:
        flush_folder(temporary)
        if final.exists():
            remove(final)
        temporary.rename(final)
        flush_folder(self.folder)

    def retain(self, best_step: int) -> None:
        """Keeps the newest, and the best; a regular checkpoint makes older emergency ones superfluous."""
        steps = self.steps()
        regular = [path for path in steps if not path.name.endswith("-emergency")]
        newest = step_of(regular[0]) if regular else -1
        stay = set(regular[: self.keep]) | {path for path in regular if step_of(path) == best_step}
        stay |= {path for path in steps if path not in regular and step_of(path) > newest}
        for path in steps:
            if path not in stay:
                remove(path)


def load_checkpoint(path: Path, skipped: tuple[str, ...] = ()) -> Checkpoint:
    """One checkpoint folder, verified; raises CorruptCheckpointError with the reason."""
    manifest, files = read_verified(path)
    if step_of(path) not in (-1, manifest["step"]):
        raise CorruptCheckpointError(f"holds the checkpoint of step {manifest['step']}")
    try:
        weights, optimizer = (_arrays(files[f"{name}.safetensors"]) for name in ("model", "optimizer"))
        state = json.loads(files["state.json"])
    except (KeyError, ValueError, RuntimeError, RecursionError) as error:
        raise CorruptCheckpointError(f"unreadable ({str(error).splitlines()[0]})") from None
    if not isinstance(state, dict):
        raise CorruptCheckpointError("state.json holds no state")
    return Checkpoint(path, manifest["step"], weights, optimizer, state, skipped)


def step_of(path: Path) -> int:
    match = NAME.match(path.name)
    return int(match[1]) if match else -1


def _arrays(data: bytes) -> dict[str, mx.array]:
    source = io.BytesIO(data)
    before = sys.getrefcount(source)
    arrays: Any = mx.load(source, format="safetensors")
    mx.eval(arrays)  # lazy otherwise
    # MLX's reading threads let go of the source a moment later, and abort a process that is ending just then.
    deadline = time.monotonic() + 5
    while sys.getrefcount(source) > before and time.monotonic() < deadline:
        time.sleep(0.0002)
    return arrays
