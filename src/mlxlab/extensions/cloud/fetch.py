"""Fetches a run from an object store, so that it can be resumed on a machine without it."""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mlxlab.checkpoint.manifest import CorruptCheckpointError, read_verified
from mlxlab.checkpoint.names import FOLDER
from mlxlab.config.paths import project_root
from mlxlab.errors import (
    CannotCreateError,
    CheckpointUnavailableError,
    ConfigError,
    DataError,
    InputNotFoundError,
)
from mlxlab.extensions.cloud.commits import Commits
from mlxlab.extensions.cloud.object_store import (
    ObjectNotFoundError,
    ObjectStore,
    StorageError,
    is_safe_key,
)
from mlxlab.extensions.cloud.run_files import RunFiles, is_checkpoint, order
from mlxlab.record.run_file import read_run
from mlxlab.training.distributed.launch_env import is_launched

ATTEMPTS = 5  # tries of a checkpoint whose transfer is cut
MAX_LISTED = 5  # runs, in a message

logger = logging.getLogger(__name__)


def fetch_run(store: ObjectStore, prefix: str, address: str, run_dir: str | None) -> Path:
    """See `Storage.fetch`; raises StorageError if the store cannot be read.

    Args:
        prefix: of a run, of a folder with a single run, or of one of its checkpoints.
    """
    if is_launched():
        raise ConfigError(f"resume={address}: expected one process, or those of `launch`")
    if run_dir is not None and "${" in run_dir:
        raise ConfigError(f"hydra.run.dir={run_dir}: expected a plain path with resume={address}")
    commits, names = _find_commits(store, prefix, address)
    # The store itself may be the folder of the run: then its root is empty.
    run = commits.address.rstrip("/").rpartition("/")[2]
    folder = project_root() / "outputs" / run
    if run_dir is not None:
        folder = Path(os.path.abspath(os.path.expanduser(run_dir)))
    try:
        with _lock(folder.parent):
            if not _is_current(folder, run, names[0]):
                _fetch_newest(commits, names, folder)
    except OSError as error:
        raise CannotCreateError(f"{error.filename or folder}: {error.strerror or error}") from None
    return folder


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Waits for other processes that fetch into a folder, unless it cannot be locked."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _find_commits(store: ObjectStore, prefix: str, address: str) -> tuple[Commits, list[str]]:
    """The commits of the run at an address, and the names of those it means, newest first."""
    parent, _, last = prefix.rpartition("/")
    if is_checkpoint(last):
        commits = Commits(store, parent)
        if last not in commits.names():
            raise InputNotFoundError(f"{address}: not found; expected a committed checkpoint")
        return commits, [last]
    roots = [prefix, *filter(is_safe_key, store.list(prefix).folders)]
    runs = []
    for commits in [Commits(store, root) for root in roots]:
        names = sorted(filter(is_checkpoint, commits.names()), key=order, reverse=True)
        if names:
            runs.append((commits, names))
        if commits.root == prefix and names:
            break
    if not runs:
        raise InputNotFoundError(f"{address}: no committed checkpoint found")
    if len(runs) > 1:
        found = ", ".join(commits.root.rpartition("/")[2] for commits, _ in runs[:MAX_LISTED])
        raise InputNotFoundError(f"{address}: holds {len(runs)} runs; add the name of one: {found}")
    return runs[0]


def _is_current(folder: Path, run: str, newest: str) -> bool:
    """True if a folder has the run up to that checkpoint; CannotCreateError for another run."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    with suppress(InputNotFoundError):
        if read_run(folder).id == run:
            names = RunFiles(folder).names()
            return bool(names) and order(names[0]) >= order(newest)
    raise CannotCreateError(f"{folder}: not empty, and not a folder of run {run}")


def _fetch_newest(commits: Commits, names: Sequence[str], folder: Path) -> None:
    """Puts the first of some commits that is intact into a folder."""
    for name in names:
        partial = folder.with_name(f".{folder.name}.{name}.partial")
        try:
            _fetch_verified(commits, name, partial)
        except (DataError, ObjectNotFoundError, CorruptCheckpointError) as error:
            logger.warning(f"skipped {name}: {error}")
            shutil.rmtree(partial, ignore_errors=True)
            continue
        _move_aside(folder)
        partial.rename(folder)
        logger.info(f"fetched {name} of {commits.address} into {folder}")
        return
    skipped = ", ".join(names)
    raise CheckpointUnavailableError(f"{commits.address}: no usable checkpoint, skipped {skipped}")


def _fetch_verified(commits: Commits, name: str, folder: Path) -> None:
    """Fetches a commit, and verifies the checkpoints in it."""
    for attempt in range(ATTEMPTS):
        try:
            commits.fetch(name, folder)
            break
        except ObjectNotFoundError:
            raise
        except StorageError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(2**attempt)
    for checkpoint in {name, *RunFiles(folder).names()}:
        read_verified(folder / FOLDER / checkpoint)


def _move_aside(folder: Path) -> None:
    """Renames what the folder has of the run: an older state."""
    if folder.is_dir():
        aside = folder.with_name(f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        if any(aside.iterdir()):
            logger.info(f"{folder}: older than what is fetched; renamed to {aside.name}")
        else:
            aside.rmdir()
