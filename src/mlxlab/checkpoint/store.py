"""Checkpoints: one folder per step, complete or absent; every command finds them by the same names.

A folder is written under a temporary name, its files and then itself are flushed to the disk, and it is renamed once;
the manifest with size and checksum of every file is written last. Nothing is used before it is verified. The order is
that of the steps in the names, never of the clock. Only safetensors and JSON are read.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx

from mlxlab.checkpoint.arrays import (
    Arrays,
    ArrayStream,
    nonfinite_paths,
    parse_arrays,
    write_safetensors,
)
from mlxlab.checkpoint.frozen_weights import FrozenWeights, read_base
from mlxlab.checkpoint.manifest import (
    OPTIMIZER,
    WEIGHTS,
    CorruptCheckpointError,
    read_manifest,
    read_verified,
    write_manifest,
)
from mlxlab.checkpoint.names import (
    EMERGENCY,
    FOLDER,
    KEYWORD,
    KEYWORDS,
    REPLACED,
    RESUME_KEYWORDS,
    STEP,
    committed_paths,
    folder_name,
    split_path,
    step_of,
)
from mlxlab.checkpoint.state import STATE, SavedState, parse_state
from mlxlab.errors import CheckpointUnavailableError, DataError
from mlxlab.files.atomic import fsync_folder


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, in memory. `skipped` names the newer ones that are damaged, and why."""

    path: Path
    step: int
    weights: Arrays
    optimizer: Arrays
    state: SavedState
    skipped: tuple[str, ...] = ()

    @property
    def run_dir(self) -> Path:
        """The run folder in which it lies, if it lies in one."""
        return self.path.absolute().parent.parent


@dataclass
class CheckpointStore:
    """The checkpoints of one run: `<folder>/step-00000123/`.

    Args:
        keep: number of the newest regular checkpoints that are kept; the best one is kept in addition.
    """

    folder: Path
    keep: int = 2

    def __post_init__(self) -> None:
        self.base = FrozenWeights(self.folder.parent)

    def save(
        self,
        step: int,
        weights: Arrays | ArrayStream,
        optimizer: Arrays | ArrayStream,
        state: SavedState,
        frozen: Arrays | None = None,
        *,
        best_step: int = 0,
        emergency: bool = False,
    ) -> Path:
        """Commits a checkpoint, then removes those that are no longer kept.

        One of the same name is replaced: it stays readable under a second name until the new one is committed.
        `frozen` are weights that checkpoints share; they are stored once.

        Raises:
            OSError: nothing was saved; all checkpoints can be read as before.
        """
        name = folder_name(step)
        if emergency:
            name += EMERGENCY
        final = self.folder / name
        replaced = self.folder / f"{name}{REPLACED}"
        temporary = self.folder / f".tmp-{step:08d}-{os.getpid()}-{secrets.token_hex(4)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clean()
        state = {**state, "base": self.base.write(frozen or {})}
        temporary.mkdir(mode=0o700)
        try:
            write_safetensors(temporary / WEIGHTS, weights)
            if optimizer:  # An exported model has none.
                write_safetensors(temporary / OPTIMIZER, optimizer)
            (temporary / STATE).write_text(json.dumps(state, default=asdict), encoding="utf-8")
            write_manifest(temporary, step=step, best_step=best_step)
            fsync_folder(temporary)
            if final.exists():
                final.rename(replaced)
            temporary.rename(final)
            fsync_folder(self.folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if replaced.exists():
            _remove(replaced)
        self.retain(best_step)
        self.base.remove_unused(state["base"])
        return final

    def take_over(self, checkpoint: Checkpoint) -> Path:
        """Commits a checkpoint of another run here too; raises as `save` and `read_base`."""
        state = checkpoint.state
        frozen = read_base(checkpoint.path, state["base"])
        weights = {path: array for path, array in checkpoint.weights.items() if path not in frozen}
        best_step = state["history"].best_step
        return self.save(
            checkpoint.step, weights, checkpoint.optimizer, state, frozen, best_step=best_step
        )

    def paths(self) -> list[Path]:
        """Folders of the committed checkpoints, newest first; of one step the regular, emergency and replaced one."""
        return committed_paths(self.folder)

    def load(self, which: str = "last", *, read_only: bool = False) -> Checkpoint:
        """The newest good checkpoint among those named: last, best, emergency or step-N.

        Until an evaluation has chosen a best one, `best` is the last. Damaged ones are set aside, not deleted, unless
        `read_only`.

        Raises:
            CheckpointUnavailableError: there is none; none is good, for the reasons named; or it has another format.
        """
        skipped: list[str] = []
        for path in self._candidates(which, skipped):
            try:
                return load_checkpoint(path, tuple(dict.fromkeys(skipped)))
            except CorruptCheckpointError as error:
                skipped.append(f"{path.name}: {error}")
                if not read_only:
                    with suppress(OSError):  # The folder may only be read.
                        path.rename(path.with_name(f"unusable-{path.name}-{secrets.token_hex(2)}"))
        reasons = "; ".join(dict.fromkeys(skipped)) or (
            f"no {which}" if self.paths() else "there is none"
        )
        raise CheckpointUnavailableError(f"{self.folder}: no usable checkpoint ({reasons})")

    def set_aside_newer(self, step: int) -> list[Path]:
        """Renames all checkpoints newer than `step`, before another branch is trained from it; returns their paths."""
        newer = [path for path in self.paths() if step_of(path) > step]
        for path in newer:
            path.rename(path.with_name(f"superseded-{path.name}-{secrets.token_hex(2)}"))
        return newer

    def set_aside_all(self) -> Path | None:
        """Renames the folder, before a new run uses its name; returns where the checkpoints are now, None if none."""
        if not self.paths():
            return None
        numbers = (
            self.folder.with_name(f"{self.folder.name}-{number}") for number in range(1, 10**6)
        )
        renamed = next(path for path in numbers if not path.exists())
        self.folder.rename(renamed)
        return renamed

    def clean(self) -> None:
        """Removes leftovers of a killed save or removal; only for the one process that writes here."""
        for path in (*self.folder.glob(".tmp-*"), *self.folder.glob(".del-*")):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(f"step-*{REPLACED}"):
            if path.with_name(path.name.removesuffix(REPLACED)).exists():
                _remove(path)

    def retain(self, best_step: int) -> None:
        """Removes all but the newest and the best."""
        for path in self.surplus(best_step):
            _remove(path)

    def surplus(self, best_step: int) -> list[Path]:
        """All but the newest and the best; a regular checkpoint makes older emergency ones superfluous."""
        paths = self.paths()
        regular = [path for path in paths if EMERGENCY not in path.name]
        newest = max(map(step_of, regular), default=-1)
        retained = set(regular[: self.keep]) | {
            path for path in regular if step_of(path) == best_step
        }
        retained |= {path for path in paths if path not in regular and step_of(path) > newest}
        return [path for path in paths if path not in retained]

    def _candidates(self, which: str, skipped: list[str]) -> list[Path]:
        paths = self.paths()
        if which == "emergency":
            return [path for path in paths if EMERGENCY in path.name]
        match = STEP.fullmatch(which)
        step = int(match[1]) if match else None
        if which == "best":
            step = _best_step(paths, skipped)
        if step is None:
            return paths
        return [path for path in paths if step_of(path) == step]


def load_checkpoint(path: Path, skipped: tuple[str, ...] = ()) -> Checkpoint:
    """One checkpoint folder, verified, with all weights of its model.

    Raises:
        CorruptCheckpointError: it is damaged; the message is the reason.
        CheckpointUnavailableError: the frozen weights that it refers to are missing or damaged.
    """
    manifest, files = read_verified(path)
    if step_of(path) not in (-1, manifest["step"]):
        raise CorruptCheckpointError(f"holds the checkpoint of step {manifest['step']}")
    try:
        weights = parse_arrays(files[WEIGHTS])
        optimizer = parse_arrays(files[OPTIMIZER]) if OPTIMIZER in files else {}
        state = parse_state(files[STATE])
    except (KeyError, ValueError, RuntimeError, DataError) as error:
        raise CorruptCheckpointError(f"unreadable ({str(error).splitlines()[0]})") from None
    if state["progress"].step != manifest["step"]:
        raise CorruptCheckpointError(
            f"state.json is of step {state['progress'].step}, expected {manifest['step']}"
        )
    weights = read_base(path, state["base"]) | weights
    return Checkpoint(path, manifest["step"], weights, optimizer, state, skipped)


def resolve_resume(
    resume: str | None, run_dir: Path, *, read_only: bool = False
) -> Checkpoint | None:
    """The checkpoint that `resume` names for a run in `run_dir`; None starts a new run.

    `auto` is the last checkpoint of the run folder, None if it has none; anything else is a name as in `load_named`,
    whose errors it raises. With `read_only` nothing in the folder is changed: a damaged checkpoint is skipped.
    """
    if resume == "auto":
        own = CheckpointStore(run_dir / FOLDER)
        if own.paths() or any(own.folder.glob("unusable-*")):
            return own.load(read_only=read_only)
        return None
    if resume is None:
        return None
    try:
        return load_named(resume, run_dir, RESUME_KEYWORDS)
    except CheckpointUnavailableError as error:
        if not KEYWORD.fullmatch(resume) or committed_paths(run_dir / FOLDER):
            raise
        raise CheckpointUnavailableError(
            f"{error}; hydra.run.dir=<run folder> says which run to resume"
        ) from None


def load_named(name: str, run_dir: Path, keywords: str = KEYWORDS) -> Checkpoint:
    """A checkpoint by its name; of several the newest good one. Changes nothing in the folder.

    Args:
        name: last, best, emergency (saved after a signal) or step-N of `run_dir`; or the path of a run folder (its
            last), of a checkpoint, or of either with one of these keywords appended: `outputs/x/best`.
        keywords: those that the message on any other name lists.

    Raises:
        CheckpointUnavailableError: no checkpoint of that name is usable.
        InputNotFoundError: as `split_path`.
    """
    if KEYWORD.fullmatch(name):
        return CheckpointStore(run_dir / FOLDER).load(name, read_only=True)
    path, which = split_path(name, keywords)
    folder = path / FOLDER
    if not folder.is_dir():
        folder = path
    store = CheckpointStore(folder)
    if which or store.paths() or folder != path:
        return store.load(which or "last", read_only=True)
    try:
        return load_checkpoint(path)
    except CorruptCheckpointError as error:
        raise CheckpointUnavailableError(f"{path}: {error}") from None


def check_arrays(
    saved: Mapping[str, mx.array], expected: Mapping[str, mx.array], owner: str
) -> None:
    """Checks names, shapes, dtypes, and that all numbers are finite: MLX loads a wrong shape or dtype without an error.

    Raises CorruptCheckpointError for the first array that does not fit; it is one of `owner`: "model" or "optimizer".
    """
    got = _kinds(saved)
    like = _kinds(expected)
    for name in sorted({*got, *like}):
        if got.get(name) != like.get(name):
            kinds = f"expected {like.get(name, 'none')}, got {got.get(name, 'none')}"
            raise CorruptCheckpointError(f"{owner} array {name}: {kinds}")
    for name in nonfinite_paths(saved)[:1]:
        raise CorruptCheckpointError(f"{owner} array {name}: holds NaN or infinity")


def _best_step(paths: list[Path], skipped: list[str]) -> int | None:
    """The best step by the newest good manifest; None if no evaluation has chosen one."""
    for path in paths:
        try:
            return read_manifest(path)["best_step"] or None
        except CorruptCheckpointError as error:  # it may have been the best
            skipped.append(f"{path.name}: {error}")
    return None


def _remove(folder: Path) -> None:
    """Removes a folder so that no reader sees a part of it: renamed first."""
    doomed = folder.with_name(f".del-{folder.name}-{secrets.token_hex(4)}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _kinds(arrays: Mapping[str, mx.array]) -> dict[str, str]:
    """Type and shape of each array."""
    return {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
