"""Builds the native CPU kernels, or says what is known about them.

    mlxlab kernels info
    mlxlab kernels build [--again]

Both print JSON with --json.

`train` builds them by itself (`backend.native`, docs/reference/kernels.md); a build before many runs lets all of them
use the kernels.

Exit codes: 0; 69 if they cannot be built on this machine, the compiler failed, or the self-check did.
"""

from mlxlab.cli.app import print_result
from mlxlab.errors import ServiceUnavailableError

ACTIONS = {"info": "info", "build": "build"}


def info(json: bool = False) -> None:
    """Prints the state of the kernels.

    Args:
        json: prints a JSON object instead of lines.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.backend.ops.native.activation import describe
    from mlxlab.backend.ops.native.build import Cache

    description = describe(Cache())
    lines = [f"{name:8}  {value}" for name, value in description.items() if value]
    print_result(description, "\n".join(lines), json)


def build(again: bool = False, json: bool = False) -> None:
    """Builds the kernels, also where an earlier build failed.

    Args:
        again: builds them although they are built.
        json: prints JSON instead.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.backend.ops.native.activation import load_or_build
    from mlxlab.backend.ops.native.toolchain import KernelsUnavailable

    try:
        kernels = load_or_build(retry=True, again=again)
    except KernelsUnavailable as reason:
        raise ServiceUnavailableError(f"native kernels: {reason}") from None
    print_result({"kernels": str(kernels)}, str(kernels), json)
