"""The hosts of a launch: the file that names them, and whether SSH reaches them."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

from mlxlab.errors import DataError, ServiceUnavailableError
from mlxlab.files.untrusted import read_json
from mlxlab.schema.constraints import MinLen, Predicate
from mlxlab.terminal.wording import one_line

VARIABLES = (  # The file may come from anyone: no variable here names a file or a program.
    "MLX_METAL_FAST_SYNCH",
    "MLX_RING_VERBOSE",
    "NCCL_DEBUG",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_SOCKET_IFNAME",
)
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
LOCAL = "127.0.0.1"  # the only name for which `mlx.launch` uses no ssh


def is_host_name(text: str) -> bool:
    """the name of a host"""
    return text[:1].isalnum() and all(c.isalnum() or c in "_.@:-" for c in text)


class Host(TypedDict):
    """Where one process runs: its name for ssh, its addresses, and its RDMA devices, one to each host in order."""

    ssh: Annotated[str, Predicate(is_host_name)]
    ips: NotRequired[list[str]]
    rdma: NotRequired[list[str | list[str] | None]]


class Hostfile(TypedDict):
    """What `mlx.distributed_config` writes; `mlx.launch` also takes the list alone."""

    hosts: Annotated[list[Host], MinLen(1)]
    backend: NotRequired[Literal["", "ring", "jaccl", "jaccl-ring", "nccl", "mpi"]]
    envs: NotRequired[list[str]]


def read_hostfile(path: Path) -> Hostfile:
    """The file; raises InputNotFoundError or DataError."""
    content = read_json(Path(os.path.realpath(path)), Hostfile | Annotated[list[Host], MinLen(1)])  # type: ignore[arg-type]
    if not isinstance(content, dict):
        return {"hosts": content}
    for variable in content.get("envs", []):
        name = variable.partition("=")[0]
        if name not in VARIABLES:
            expected = ", ".join(VARIABLES)
            raise DataError(f"{path}: envs: expected values of {expected}, got {name[:60]!r}")
    return content


def check_reachable(names: Iterable[str]) -> None:
    """Raises ServiceUnavailableError for a host where SSH cannot run a program without a password."""
    for name in dict.fromkeys(names):
        if name == LOCAL:
            continue
        try:
            login = subprocess.run(
                [*SSH, name, "true"], capture_output=True, stdin=subprocess.DEVNULL
            )
        except FileNotFoundError:
            raise ServiceUnavailableError("ssh: not found; expected OpenSSH in PATH") from None
        if login.returncode != 0:
            lines = login.stderr.decode(errors="replace").splitlines()
            reason = one_line(lines[-1], 300) if lines else f"exit code {login.returncode}"
            raise ServiceUnavailableError(f"{name}: cannot be reached by ssh: {reason}")
