"""Builds the native CPU kernels, says what is known about them, or removes them.

    mlxlab kernels info
    mlxlab kernels build [--again]
    mlxlab kernels clear

All print JSON with --json.

`train` builds them by itself (`backend.native`, docs/reference/kernels.md); a build before many runs lets all of them
use the kernels.

Exit codes: 0; 69 if they cannot be built on this machine, the compiler failed, or the self-check did; 73 if `clear`
cannot use the cache folder, or another process builds.
"""

import logging
import time

from mlxlab.cli.print_json import print_result
from mlxlab.errors import CannotCreateError, ServiceUnavailableError
from mlxlab.wording import counted

ACTIONS = {"info": "info", "build": "build", "clear": "clear"}
logger = logging.getLogger(__name__)


def info(json: bool = False) -> None:
    """Prints the state of the kernels.

    Args:
        json: prints a JSON object instead of lines.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.ops.native.cache import Cache
    from mlxlab.ops.native.description import as_text, describe

    description = describe(Cache())
    print_result(description, as_text(description), json)


def build(again: bool = False, json: bool = False) -> None:
    """Builds the kernels, also where an earlier build failed.

    Args:
        again: builds them although they are built.
        json: prints JSON instead.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.ops.native.activation import load_or_build
    from mlxlab.ops.native.cache import Cache
    from mlxlab.ops.native.toolchain import KernelsUnavailable, find_toolchain

    start = time.time()
    try:
        kernels = load_or_build(retry=True, again=again)
    except KernelsUnavailable as reason:
        raise ServiceUnavailableError(f"native kernels: {reason}") from None
    cache = Cache()
    key = find_toolchain().key
    path = cache.path(key, "so")
    record = cache.record(key)
    seconds = None
    state = "already built"
    if record and record["time"] >= start:
        seconds = record["seconds"]
        state = f"built in {seconds:.0f} s"
    result = {"kernels": str(kernels), "library": str(path), "built_in_seconds": seconds}
    print_result(result, f"{kernels}: {state} ({path})", json)


def clear(json: bool = False) -> None:
    """Removes all built kernels of this user.

    Args:
        json: prints JSON instead.
    """
    from mlxlab.ops.native.cache import Cache
    from mlxlab.ops.native.toolchain import KernelsUnavailable

    cache = Cache()
    try:
        count, size = cache.clear()
    except KernelsUnavailable as reason:
        raise CannotCreateError(str(reason)) from None
    libraries = counted(count, "library", "libraries")
    result = {"cache": str(cache.folder), "libraries": count, "bytes": size}
    print_result(result, f"{cache.folder}: removed {libraries}, {size / 1e6:.1f} MB", json)
