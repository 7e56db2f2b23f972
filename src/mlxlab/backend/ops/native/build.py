"""Builds the library with the machine's compiler and checks it, one process at a time.

`python -m mlxlab.backend.ops.native.build` is the build in the background.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mlxlab.backend.detached import module_environment, start_detached
from mlxlab.backend.ops.native.cache import Cache
from mlxlab.backend.ops.native.toolchain import SOURCES, Toolchain, find_toolchain
from mlxlab.files.atomic import temporary_name, write_atomic

BUILD_SECONDS = 600.0
CHECK_SECONDS = 300.0
_MODULE = "mlxlab.backend.ops.native"


def check_library(library: Path) -> str | None:
    """Why a library may not be used; None if it may."""
    command = [sys.executable, "-P", "-m", f"{_MODULE}.check_library", str(library)]
    variables = {"MLXLAB_NATIVE": "off", "MLXLAB_CUSTOM_OPS": "0"}
    code, output = _run(command, module_environment() | variables, CHECK_SECONDS)
    if code == 0:
        return None
    reason = "took too long" if code is None else f"exit code {code}"
    return f"the self-check failed: {' '.join([reason, *output.split()])[-200:]}"


def build(
    toolchain: Toolchain,
    cache: Cache,
    *,
    again: bool = False,
    check: Callable[[Path], str | None] = check_library,
) -> None:
    """Builds unless a build with this key has ended before; waits for another process that builds.

    Args:
        again: builds in any case.

    Raises:
        KernelsUnavailable: the cache folder cannot be used.
    """
    cache.create()
    with cache.lock(waits=True):
        if again or not cache.was_built(toolchain.key):
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
    cache = Cache()
    toolchain = find_toolchain()
    cache.create()
    with cache.lock() as locked:
        if locked and not cache.was_built(toolchain.key):
            _build(toolchain, cache, check_library)


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


if __name__ == "__main__":
    main()
