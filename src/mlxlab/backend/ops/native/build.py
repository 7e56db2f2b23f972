"""Builds the library with the machine's compiler, checks it and caches it, one process at a time.

`python -m mlxlab.backend.ops.native.build` is the build in the background. The cache:

<key>.so      a library that passed its self-check
<key>.error   why there is none: the last build with this key failed
<key>.log     output of the compiler
build.lock    held (`flock`) while a library is built
"""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from mlxlab.backend.detached import module_environment, start_detached
from mlxlab.backend.ops.native.toolchain import (
    SOURCES,
    KernelsUnavailable,
    Toolchain,
    find_toolchain,
)
from mlxlab.files.atomic import leftovers, temporary_name, write_atomic

BUILD_SECONDS = 600.0
CHECK_SECONDS = 300.0
_MODULE = "mlxlab.backend.ops.native"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Cache:
    """The folder of the libraries, checked before anything in it is loaded. Every method raises KernelsUnavailable if someone else could have written there."""

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
        operation = fcntl.LOCK_EX
        if not waits:
            operation |= fcntl.LOCK_NB
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


def check_library(library: Path) -> str | None:
    """Why a library may not be used; None if it may."""
    command = [sys.executable, "-P", "-m", f"{_MODULE}.self_check", str(library)]
    variables = {"MLXLAB_NATIVE": "off", "MLXLAB_CUSTOM_OPS": "0"}
    code, output = _run(command, module_environment() | variables, CHECK_SECONDS)
    if code == 0:
        return None
    reason = f"exit code {code}"
    if code is None:
        reason = "took too long"
    return f"the self-check failed: {' '.join([reason, *output.split()])[-200:]}"


def build(
    toolchain: Toolchain,
    cache: Cache,
    *,
    again: bool = False,
    waits: bool = True,
    check: Callable[[Path], str | None] = check_library,
) -> None:
    """Builds unless a build with this key has ended before.

    Args:
        again: builds in any case.
        waits: for another process that builds; otherwise that one builds alone.

    Raises:
        KernelsUnavailable: the cache folder cannot be used.
    """
    cache.create()
    with cache.lock(waits=waits) as locked:
        if locked and (again or not cache.was_built(toolchain.key)):
            _build(toolchain, cache, check)


def start_background_build(cache: Cache) -> None:
    """Starts a build that outlives this process, at low priority, unless one runs."""
    cache.create()
    if not cache.is_building():
        start_detached(
            f"{_MODULE}.build", {"MLXLAB_NATIVE": "off"}, cache.folder / "background.txt"
        )


def main() -> None:
    """Builds at low priority, unless another process does."""
    os.nice(19)
    build(find_toolchain(), Cache(), waits=False)


def _build(toolchain: Toolchain, cache: Cache, check: Callable[[Path], str | None]) -> None:
    """Builds and checks. The library appears complete, by a rename, and so does the reason of a failure."""
    cache.remove_leftovers()
    key = toolchain.key
    folder = temporary_name(cache.folder / key)
    folder.mkdir(mode=0o700)
    try:
        library = folder / "library.so"
        fault, log = _compile(toolchain.command(library), folder)
        write_atomic(cache.path(key, "log"), log[-100_000:])
        fault = fault or check(library)
        if fault is None:
            library.replace(cache.path(key, "so"))
        else:
            cache.path(key, "so").unlink(missing_ok=True)
            write_atomic(cache.path(key, "error"), fault)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compile(command: list[str], folder: Path) -> tuple[str | None, str]:
    """(error, output) of the compiler; its temporary files are in `folder`."""
    code, output = _run(command, os.environ | {"TMPDIR": str(folder), "LC_ALL": "C"}, BUILD_SECONDS)
    if code == 0:
        return None, output
    if code is None:
        return f"the compiler took more than {BUILD_SECONDS:.0f} s", output
    faults = [line for line in output.splitlines() if "error" in line] or output.splitlines()[-1:]
    fault = "".join(faults[:1]).replace(f"{SOURCES}{os.sep}", "")[:200] or "without a message"
    return f"the compiler failed with exit code {code}: {fault}", output


def _run(command: list[str], environment: dict[str, str], seconds: float) -> tuple[int | None, str]:
    """(exit code, output) of a command; it and its children are killed with this process's exceptions, and in time."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def default_folder() -> Path:
    """`mlxlab/native` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():
        root = Path(os.path.expanduser("~")) / ".cache"
    return root / "mlxlab" / "native"


if __name__ == "__main__":
    main()
