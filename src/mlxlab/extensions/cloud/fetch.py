"""Fetches a run from an object store, so that it can be resumed on a machine that has nothing of it."""

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
from mlxlab.distributed.launch_env import is_launched
from mlxlab.errors import (
    CannotCreateError,
    CheckpointUnavailableError,
    ConfigError,
    DataError,
    InputNotFoundError,
)
from mlxlab.experiment.manifest import read_manifest
from mlxlab.extensions.cloud.commits import Commits
from mlxlab.extensions.cloud.object_store import (
    ObjectNotFoundError,
    ObjectStore,
    StorageError,
    is_safe_key,
)
from mlxlab.extensions.cloud.run_files import RunFiles, is_checkpoint, order

ATTEMPTS = 5  # for a checkpoint whose transfer is cut
MAX_LISTED = 5  # runs, in a message

logger = logging.getLogger(__name__)


def fetch_run(store: ObjectStore, prefix: str, address: str, run_dir: str | None) -> Path:
    """See `Storage.fetch`; raises StorageError if the store cannot be read.

    Args:
        prefix: of a run, of a folder with a single run, or of one of its checkpoints.
    """
    if is_launched():
        raise ConfigError(
            f"resume={address}: expected one process, or several of `launch`, which fetches it for them"
        )
    if run_dir is not None and "${" in run_dir:
        raise ConfigError(
            f"hydra.run.dir={run_dir}: expected a plain path together with resume={address}"
        )
    commits, names = _find_commits(store, prefix, address)
    run = commits.root.rpartition("/")[2]
    folder = (
        project_root() / "outputs" / run
        if run_dir is None
        else Path(os.path.abspath(os.path.expanduser(run_dir)))
    )
    try:
        with _lock(folder.parent):
            if not _is_current(folder, run, names[0]):
                _fetch_newest(commits, names, folder)
    except OSError as error:
        raise CannotCreateError(f"{error.filename or folder}: {error.strerror or error}") from None
    return folder


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Waits for other processes that fetch into a folder. Where it cannot be locked, nothing is waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fetch_newest(commits: Commits, names: Sequence[str], folder: Path) -> None:
    """Puts the first of some commits that is intact into a folder; raises CheckpointUnavailableError if none is."""
    partial = folder.with_name(f".{folder.name}.partial")
    for name in names:
        try:
            _fetch_verified(commits, name, partial)
        except (DataError, ObjectNotFoundError, CorruptCheckpointError) as error:
            logger.warning(f"skipped {name}: {error}")
            continue
        _move_aside(folder)
        partial.rename(folder)
        logger.info(f"fetched {name} of {commits.address} into {folder}")
        return
    shutil.rmtree(partial, ignore_errors=True)
    raise CheckpointUnavailableError(
        f"{commits.address}: no usable checkpoint, skipped {', '.join(names)}"
    )


def _find_commits(store: ObjectStore, prefix: str, address: str) -> tuple[Commits, list[str]]:
    """The commits of the run that an address leads to, and the names of those it means, the newest first."""
    parent, _, last = prefix.rpartition("/")
    if is_checkpoint(last):
        commits = Commits(store, parent)
        if last not in commits.names():
            raise InputNotFoundError(f"{address}: not found; expected a committed checkpoint")
        return commits, [last]
    commits = Commits(store, prefix)
    if names := _checkpoints(commits):
        return commits, names
    below = [Commits(store, folder) for folder in store.list(prefix).folders if is_safe_key(folder)]
    runs = [(each, names) for each in below if (names := _checkpoints(each))]
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise InputNotFoundError(f"{address}: no committed checkpoint found")
    listed = ", ".join(
        f"{each.root.rpartition('/')[2]} ({names[0]})" for each, names in runs[:MAX_LISTED]
    )
    raise InputNotFoundError(f"{address}: holds {len(runs)} runs; add the name of one: {listed}")


def _checkpoints(commits: Commits) -> list[str]:
    return sorted(filter(is_checkpoint, commits.names()), key=order, reverse=True)


def _is_current(folder: Path, run: str, newest: str) -> bool:
    """Whether a folder has the run, up to that checkpoint or a newer one; CannotCreateError if it has another one."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    with suppress(InputNotFoundError):
        if read_manifest(folder)["id"] == run:
            names = RunFiles(folder).names()
            return bool(names) and order(names[0]) >= order(newest)
    raise CannotCreateError(f"{folder}: not empty, and not a folder of run {run}")


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
    paths = set(commits.read(name)["files"])
    if not any(path.startswith(f"{FOLDER}/{name}/") for path in paths):
        raise DataError(f"{commits.address}: has no files of {FOLDER}/{name}")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in paths:
            path.unlink()  # of a newer commit, which is damaged
    for checkpoint in RunFiles(folder).names():
        if any(path.startswith(f"{FOLDER}/{checkpoint}/") for path in paths):
            read_verified(folder / FOLDER / checkpoint)
        else:
            (folder / FOLDER / checkpoint).rmdir()


def _move_aside(folder: Path) -> None:
    """Renames what the folder has of the run: an older state."""
    if not folder.is_dir():
        return
    if not any(folder.iterdir()):
        folder.rmdir()
        return
    aside = next(
        path
        for n in range(1, 10**6)
        if not (path := folder.with_name(f"{folder.name}-{n}")).exists()
    )
    folder.rename(aside)
    logger.info(f"{folder}: older than what is fetched; renamed to {aside.name}")
