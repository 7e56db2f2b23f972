"""What there is to know about the native kernels of this machine, for `mlxlab kernels info`."""

from typing import Literal, TypedDict

from mlxlab.ops.native.cache import Cache
from mlxlab.ops.native.state import KernelSet
from mlxlab.ops.native.toolchain import KernelsUnavailable, find_toolchain

Status = Literal["ready", "not built", "building", "failed", "unavailable"]


class Description(TypedDict):
    """The state of the native kernels; what is not known is empty.

    Attributes:
        status: ready is used by the next run; failed is not built again by it; unavailable is for this machine.
        reason: of failed and unavailable.
        kernels: what a run records.
        log: the file with the output of the compiler.
    """

    status: Status
    reason: str
    kernels: str
    compiler: str
    flags: str
    library: str
    log: str


def describe(cache: Cache) -> Description:
    """The state of the kernels of this machine. MLX has been prepared."""
    description = Description(
        status="unavailable", reason="", kernels="", compiler="", flags="", library="", log=""
    )
    try:
        toolchain = find_toolchain()
        record = cache.record(toolchain.key)
    except KernelsUnavailable as reason:
        return {**description, "reason": str(reason)}
    description["compiler"] = " ".join(toolchain.compiler)
    description["flags"] = " ".join(toolchain.flags)
    description["library"] = str(cache.path(toolchain.key, "so"))
    description["log"] = str(cache.path(toolchain.key, "log"))
    if record is None:
        description["status"] = "building" if cache.is_building() else "not built"
    elif record["error"] is not None:
        description["status"] = "failed"
        description["reason"] = record["error"]
    else:
        description["status"] = "ready"
        description["kernels"] = str(KernelSet(toolchain.digest, record["features"]))
    return description
