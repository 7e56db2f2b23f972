"""The cache of built libraries: a folder that only its user can write, checked before anything in it is loaded.

<key>.so      a library that passed its self-check
<key>.json    the record of the last build with this key, also of one that failed
<key>.log     output of the compiler
build.lock    held (`flock`) while a library is built
"""

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypedDict

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.atomic import leftovers
from mlxlab.files.untrusted import open_regular, read_json
from mlxlab.ops.native.toolchain import KernelsUnavailable

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class BuildRecord(TypedDict):
    """How a build ended.

    Attributes:
        error: why its library is not used; None if it passed the self-check.
        sha256: of the library, "" if there is none.
        features: of the processor that it uses.
    """

    error: str | None
    sha256: str
    features: str


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

    def record(self, key: str) -> BuildRecord | None:
        """The record of the last build; None if there is none, or if it or its library is damaged."""
        self.check()
        try:
            record = read_json(self.path(key, "json"), BuildRecord)
            if record["error"]:
                return record
            with open_regular(self.path(key, "so")) as file:
                digest = hashlib.sha256(file.read()).hexdigest()
        except (InputNotFoundError, DataError):
            return None
        return record if digest == record["sha256"] else None

    def is_building(self) -> bool:
        """Whether another process builds now."""
        if not self.folder.is_dir():
            return False
        with self.lock() as locked:
            return not locked

    @contextmanager
    def lock(self, *, waits: bool = False) -> Iterator[bool]:
        """Locks the folder for a build, if no other process has, or once it has ended; yields whether it did."""
        try:
            file = os.open(self.folder / "build.lock", _LOCK_FLAGS, 0o600)
        except OSError as error:
            raise KernelsUnavailable(
                f"{self.folder}: cannot be written ({error.strerror})"
            ) from None
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            except OSError as error:
                raise KernelsUnavailable(
                    f"{self.folder}: cannot be locked ({error.strerror})"
                ) from None
            yield True
        finally:
            os.close(file)

    def remove_leftovers(self) -> None:
        """Removes the temporary folders of builds that were killed."""
        for path in leftovers(self.folder):
            shutil.rmtree(path, ignore_errors=True)

    def path(self, key: str, kind: Literal["so", "json", "log"]) -> Path:
        return self.folder / f"{key}.{kind}"


def default_folder() -> Path:
    """`mlxlab/native` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / ".cache"
    return root / "mlxlab" / "native"
