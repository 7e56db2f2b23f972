"""The cache of built libraries: a folder that only its user can write, checked before anything in it is loaded.

<key>.so      a library that passed its self-check
<key>.error   why there is none: the last build with this key failed
<key>.log     output of the compiler
build.lock    held (`flock`) while a library is built
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from mlxlab.backend.ops.native.toolchain import KernelsUnavailable
from mlxlab.files.atomic import leftovers

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Cache:
    """The folder of the libraries. Every method raises KernelsUnavailable if someone else could have written there."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def create(self) -> None:
        """Makes the folder if there is none."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.folder.mkdir(mode=0o700)
        except OSError as error:
            raise KernelsUnavailable(
                f"{self.folder}: cannot be created ({error.strerror})"
            ) from None
        self.check()

    def check(self) -> None:
        """Whether only this user can write there; a folder that does not exist passes."""
        try:
            status = os.lstat(self.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise KernelsUnavailable(f"{self.folder}: cannot be read ({error.strerror})") from None
        if not stat.S_ISDIR(status.st_mode):
            raise KernelsUnavailable(f"{self.folder}: expected a folder, not a link or a file")
        if status.st_uid != os.geteuid():
            raise KernelsUnavailable(f"{self.folder}: belongs to another user")
        if status.st_mode & _OTHERS_WRITE:
            raise KernelsUnavailable(f"{self.folder}: other users can write it; expected mode 700")

    def has_library(self, key: str) -> bool:
        self.check()
        return self.path(key, "so").is_file()

    def failure(self, key: str) -> str | None:
        """Why the last build failed; None if there was none, or it did not."""
        if self.has_library(key):
            return None
        with suppress(FileNotFoundError):
            return self.path(key, "error").read_text()
        return None

    def was_built(self, key: str) -> bool:
        """Whether a build has ended, also in a failure."""
        return self.has_library(key) or self.failure(key) is not None

    def is_building(self) -> bool:
        """Whether another process builds now."""
        if not self.folder.is_dir():
            return False
        with self.lock() as locked:
            return not locked

    @contextmanager
    def lock(self, *, waits: bool = False) -> Iterator[bool]:
        """Locks the folder for a build, if no other process has, or once it has ended; yields whether it did.

        KernelsUnavailable also for an OSError of the build.
        """
        operation = fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            with (self.folder / "build.lock").open("a") as file:
                is_locked = True
                try:
                    fcntl.flock(file, operation)
                except BlockingIOError:
                    is_locked = False
                yield is_locked
        except OSError as error:
            raise KernelsUnavailable(
                f"{self.folder}: cannot be written ({error.strerror or error})"
            ) from None

    def remove_leftovers(self) -> None:
        """Removes the temporary folders of builds that were killed."""
        for path in leftovers(self.folder):
            shutil.rmtree(path, ignore_errors=True)

    def path(self, key: str, kind: Literal["so", "error", "log"]) -> Path:
        return self.folder / f"{key}.{kind}"


def default_folder() -> Path:
    """`mlxlab/native` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / ".cache"
    return root / "mlxlab" / "native"
