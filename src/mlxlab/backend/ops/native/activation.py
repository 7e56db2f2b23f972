"""Decides which kernels a process uses, by `backend.native` or `MLXLAB_NATIVE`, and loads them."""

import logging
import os
from typing import Literal, get_args

from mlxlab.backend.ops.native import state
from mlxlab.backend.ops.native.cache import Cache
from mlxlab.backend.ops.native.state import KernelSet
from mlxlab.backend.ops.native.toolchain import (
    KernelsUnavailable,
    Toolchain,
    find_toolchain,
    on_cpu,
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
        if not _load_if_built() and builds:
            from mlxlab.backend.ops.native.build import start_background_build

            start_background_build(Cache())
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
    from mlxlab.backend.ops.native.build import build

    toolchain = find_toolchain()
    cache = Cache()
    rebuilds = again or (retry and cache.failure(toolchain.key) is not None)
    if rebuilds or not cache.was_built(toolchain.key):
        compiler = toolchain.compiler[0]
        logger.info(f"native kernels: building them with {compiler}, once; this takes some 20 s")
        build(toolchain, cache, again=rebuilds)
    return _load(toolchain, cache)


def _load_if_built() -> bool:
    """Whether a build has ended; raises KernelsUnavailable if it failed."""
    toolchain = find_toolchain()
    cache = Cache()
    if not cache.was_built(toolchain.key):
        return False
    _load(toolchain, cache)
    return True


def _load(toolchain: Toolchain, cache: Cache) -> KernelSet:
    failure = cache.failure(toolchain.key)
    if failure is not None:
        raise KernelsUnavailable(f"{failure} (mlxlab kernels info)")
    from mlxlab.backend.ops.native.library import load

    features = load(cache.path(toolchain.key, "so"))
    state.use(KernelSet(toolchain.digest, features))
    return state.current()
