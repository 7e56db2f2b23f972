"""Decides which kernels a process uses, by `backend.native` or `MLXLAB_NATIVE`, loads and describes them."""

import logging
import os
from typing import Literal, get_args

from mlxlab.backend import on_cpu
from mlxlab.backend.ops.native import state
from mlxlab.backend.ops.native.build import Cache, build, start_background_build
from mlxlab.backend.ops.native.kernels import load
from mlxlab.backend.ops.native.state import KernelSet
from mlxlab.backend.ops.native.toolchain import (
    KernelsUnavailable,
    Toolchain,
    find_toolchain,
)
from mlxlab.errors import ConfigError

VARIABLE = "MLXLAB_NATIVE"
Mode = Literal["auto", "off", "require"]

logger = logging.getLogger(__name__)


def activate(mode: Mode, *, builds: bool = True) -> KernelSet:
    """Switches this process to the kernels that a mode asks for, and returns them. MLX has been prepared.

    Args:
        mode: auto uses the native kernels if they are built, and else starts a build in the background; require builds
            them first; off uses those of MLX. `MLXLAB_NATIVE` replaces it.
        builds: otherwise auto starts no build, and says nothing.

    Raises:
        ConfigError: require, and there are none.
    """
    mode = mode_from_environment() or mode
    state.deactivate()
    if mode == "off" or (mode == "auto" and not on_cpu()):
        return state.current()
    try:
        if mode == "require":
            return load_or_build()
        cache = Cache()
        toolchain = find_toolchain()
        if cache.was_built(toolchain.key):
            return _load(toolchain, cache)
        if builds:
            start_background_build(cache)
            logger.info("native kernels are being built in the background; later runs use them")
    except KernelsUnavailable as reason:
        if mode == "require":
            raise ConfigError(f"backend.native=require: {reason}") from None
        if builds:
            logger.info(f"native kernels are not used: {reason}")
    return state.current()


def activate_for_inference() -> KernelSet:
    """`activate` for programs without a config, by `MLXLAB_NATIVE` alone."""
    return activate("auto", builds=False)


def mode_from_environment() -> Mode | None:
    """The mode of `MLXLAB_NATIVE`; ConfigError if it is none."""
    setting = os.environ.get(VARIABLE)
    for mode in get_args(Mode):
        if setting == mode:
            return mode
    if setting:
        raise ConfigError(f"{VARIABLE}={setting[:40]}: expected one of {', '.join(get_args(Mode))}")
    return None


def load_or_build(*, retry: bool = False, again: bool = False) -> KernelSet:
    """Switches to the native kernels, which are built first if need be; raises KernelsUnavailable if that fails.

    Args:
        retry: builds them also if an earlier build failed; `again` also if they are built.
    """
    toolchain = find_toolchain()
    cache = Cache()
    rebuilds = again or (retry and cache.failure(toolchain.key) is not None)
    if rebuilds or not cache.was_built(toolchain.key):
        compiler = toolchain.compiler[0]
        logger.info(f"native kernels: building them with {compiler}, once; this takes some 20 s")
        build(toolchain, cache, again=rebuilds)
    return _load(toolchain, cache)


def describe(cache: Cache) -> dict[str, str]:
    """The state of the native kernels; what is not known is empty. MLX has been prepared.

    The status is ready, not built, building, failed (which the next run does not build again), or unavailable for this
    machine. `kernels` is what a run records, `log` the file with the output of the compiler.
    """
    keys = ("status", "reason", "kernels", "compiler", "flags", "library", "log")
    description = dict.fromkeys(keys, "")
    try:
        toolchain = find_toolchain()
        library = cache.path(toolchain.key, "so")
        failure = cache.failure(toolchain.key)
        if cache.has_library(toolchain.key):
            description["kernels"] = str(KernelSet(toolchain.digest, load(library)))
    except KernelsUnavailable as reason:
        return {**description, "status": "unavailable", "reason": str(reason)}
    description["compiler"] = " ".join(toolchain.compiler)
    description["flags"] = " ".join(toolchain.flags)
    description["library"] = str(library)
    description["log"] = str(cache.path(toolchain.key, "log"))
    if description["kernels"]:
        description["status"] = "ready"
    elif failure is not None:
        description["status"] = "failed"
        description["reason"] = failure
    elif cache.is_building():
        description["status"] = "building"
    else:
        description["status"] = "not built"
    return description


def _load(toolchain: Toolchain, cache: Cache) -> KernelSet:
    failure = cache.failure(toolchain.key)
    if failure is not None:
        raise KernelsUnavailable(f"{failure} (mlxlab kernels info)")
    features = load(cache.path(toolchain.key, "so"))
    state.use(KernelSet(toolchain.digest, features))
    return state.current()
