"""Resolves the name of a checkpoint, the same way for every command; checks that its arrays fit a model."""

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx

from mlxlab.checkpoint.arrays import nonfinite_paths
from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.names import (
    FOLDER,
    KEYWORD,
    KEYWORDS,
    RESUME_KEYWORDS,
    committed_paths,
    split_path,
)
from mlxlab.checkpoint.store import Checkpoint, CheckpointStore, load_checkpoint
from mlxlab.errors import CheckpointUnavailableError


def resolve_resume(
    resume: str | None, run_dir: Path, *, read_only: bool = False
) -> Checkpoint | None:
    """The checkpoint that `resume` names for a run in `run_dir`; None starts a new run.

    `auto` is the last checkpoint of the run folder, None if it has none; anything else is a name as in `load_named`,
    whose errors it raises. With `read_only` nothing in the folder is changed: a damaged checkpoint is skipped.
    """
    if resume == "auto":
        own = CheckpointStore(run_dir / FOLDER)
        return (
            own.load(read_only=read_only)
            if own.paths() or any(own.folder.glob("unusable-*"))
            else None
        )
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
    store = CheckpointStore(path / FOLDER if (path / FOLDER).is_dir() else path)
    if which or store.paths() or store.folder != path:
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


def _kinds(arrays: Mapping[str, mx.array]) -> dict[str, str]:
    """Type and shape of each array."""
    return {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
