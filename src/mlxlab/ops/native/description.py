"""What there is to know about the native kernels of this machine, for `mlxlab kernels info`."""

from typing import Literal, TypedDict

from mlxlab.ops.native.activation import on_cpu
from mlxlab.ops.native.cache import BuildRecord, Cache
from mlxlab.ops.native.state import KernelSet
from mlxlab.ops.native.toolchain import KernelsUnavailable, Toolchain, find_toolchain

OUTPUT_LINES = 20
Status = Literal["ready", "not built", "building", "failed", "unavailable"]


class BuildInputs(TypedDict):
    """What the library is built with."""

    key: str
    compiler: list[str]
    flags: list[str]
    mlx: str
    processor: dict[str, str]


class Description(TypedDict):
    """The state of the native kernels.

    Attributes:
        status: ready is used by the next run; failed is not built again by it; unavailable is for this machine.
        reason: of failed and unavailable.
        kernels: what a run records.
        inputs: None where they are unavailable.
        build: the last one with these inputs.
        cache_bytes: of all files in the folder `cache`.
        compiler_output: of the last build.
    """

    status: Status
    reason: str
    kernels: str
    inputs: BuildInputs | None
    build: BuildRecord | None
    library: str
    library_bytes: int
    cache: str
    cache_bytes: int
    compiler_output: str


def describe(cache: Cache) -> Description:
    """The state of the kernels of this machine. MLX has been prepared."""
    description = Description(
        status="unavailable",
        reason="",
        kernels="",
        inputs=None,
        build=None,
        library="",
        library_bytes=0,
        cache=str(cache.folder),
        cache_bytes=0,
        compiler_output="",
    )
    try:
        description["cache_bytes"] = cache.size()
        if not on_cpu():
            raise KernelsUnavailable("the default device is a GPU; they are for the CPU")
        _add_build(description, find_toolchain(), cache)
    except KernelsUnavailable as reason:
        description["reason"] = str(reason)
    return description


def _add_build(description: Description, toolchain: Toolchain, cache: Cache) -> None:
    record, key = cache.record(toolchain.key), toolchain.key
    description["inputs"] = {
        "key": key,
        "compiler": [*toolchain.compiler],
        "flags": [*toolchain.flags],
        "mlx": toolchain.mlx_version,
        "processor": toolchain.cpu,
    }
    description["build"], description["compiler_output"] = record, cache.log(key)
    if record is None:
        description["status"] = "building" if cache.is_building() else "not built"
    elif record["error"] is not None:
        description["status"], description["reason"] = "failed", record["error"]
    else:
        path = cache.path(key, "so")
        description["status"], description["kernels"] = (
            "ready",
            str(KernelSet(toolchain.digest, record["features"])),
        )
        description["library"], description["library_bytes"] = str(path), path.stat().st_size


def as_text(description: Description) -> str:
    """A line for each value that is known, and the compiler's last lines after a failure."""
    status, reason = description["status"], description["reason"]
    inputs, record = description["inputs"], description["build"]
    facts = {
        "status": f"{status}: {reason}" if reason else status,
        "kernels": description["kernels"],
    }
    if inputs is not None:
        processor = inputs["processor"]
        name = processor.get("model name") or processor.get("CPU part", "")
        facts |= {"processor": name, "mlx": inputs["mlx"]}
        facts |= {"compiler": " ".join(inputs["compiler"]), "flags": " ".join(inputs["flags"])}
    if record is not None:
        facts |= {
            "compiler": f"{facts['compiler']} ({record['compiler']})",
            "self-check": record["self_check"],
        }
        facts |= {"features": record["features"], "build": f"{record['seconds']:.0f} s"}
    if description["library"]:
        facts["library"] = f"{description['library']} ({description['library_bytes'] / 1e6:.1f} MB)"
    facts["cache"] = f"{description['cache']} ({description['cache_bytes'] / 1e6:.1f} MB)"
    facts = {name: value for name, value in facts.items() if value}
    width = max(map(len, facts))
    lines = [f"{name:{width}}  {value}" for name, value in facts.items()]
    output = (
        description["compiler_output"].splitlines()[-OUTPUT_LINES:] if status == "failed" else []
    )
    return "\n".join([*lines, *(f"  {line[:200]}" for line in output)])
