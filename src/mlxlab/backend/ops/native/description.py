"""What there is to know about the native kernels of this machine, for `mlxlab kernels info`."""

from mlxlab.backend.ops.native.cache import Cache
from mlxlab.backend.ops.native.library import load
from mlxlab.backend.ops.native.state import KernelSet
from mlxlab.backend.ops.native.toolchain import KernelsUnavailable, find_toolchain


def describe(cache: Cache) -> dict[str, str]:
    """The state of the native kernels; what is not known is empty. MLX has been prepared.

    The status is ready, not built, building, failed (which the next run does not build again), or unavailable for this
    machine. `kernels` is what a run records, `log` the file with the output of the compiler.
    """
    description = dict.fromkeys(
        ("status", "reason", "kernels", "compiler", "flags", "library", "log"), ""
    )
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
    else:
        description["status"] = "building" if cache.is_building() else "not built"
    return description
