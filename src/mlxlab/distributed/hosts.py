"""The hosts of a launch, and what `mlx.launch` needs to know about them for each backend."""

import ipaddress
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

from mlxlab.constraints import MinLen, Predicate
from mlxlab.errors import ConfigError, DataError, ServiceUnavailableError
from mlxlab.files.untrusted import read_json
from mlxlab.wording import one_line

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
NEEDS_IPS = 'expected hosts=10.0.0.1,10.0.0.2, or hostfile=FILE with "ips" of each host'
NEEDS_RDMA = (
    "expected hostfile=FILE with a device of each host to each; `mlx.distributed_config --backend {backend} "
    "--hosts mac-1,mac-2 --output-hostfile FILE` writes it"
)


def is_host_name(text: str) -> bool:
    """the name of a host"""
    return text[:1].isalnum() and all(c.isalnum() or c in "_.@:-" for c in text)


class Host(TypedDict):
    """Where one process runs: its name for ssh, its addresses, and its RDMA devices, one to each host in order."""

    ssh: Annotated[str, Predicate(is_host_name)]
    ips: NotRequired[list[str]]
    rdma: NotRequired[list[str | list[str] | None]]


class Hostfile(TypedDict):
    """As `mlx.distributed_config` writes it; `mlx.launch` also takes the list alone."""

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


def named_hosts(names: Sequence[str], per_host: int) -> list[Host]:
    """One for each process, as `mlx.launch --hosts` makes them: a name has no address."""
    return [
        {"ssh": name, "ips": [name] if _is_address(name) else []}
        for name in names
        for _ in range(per_host)
    ]


def most_on_one_host(hosts: Sequence[Host]) -> int:
    """The largest number of processes on one host."""
    return max(Counter(host["ssh"] for host in hosts).values())


def check_hosts(hosts: Sequence[Host], backend: str) -> None:
    """Raises ConfigError for hosts that `mlx.launch` refuses, and for processes that could not connect."""
    if backend == "ring" and len(hosts) == 1:
        raise ConfigError(
            "backend=ring: expected two processes or more; nproc=1 alone starts one on this machine"
        )
    if backend.startswith("jaccl"):
        for host in hosts:
            if len(host.get("rdma", [])) != len(hosts):
                needs = NEEDS_RDMA.format(backend=backend)
                raise ConfigError(f"backend={backend}: {host['ssh']} lacks RDMA devices; {needs}")
    listening = {"ring": hosts, "mpi": []}.get(backend, hosts[:1])
    for host in listening:
        if not host.get("ips"):
            raise ConfigError(f"backend={backend}: {host['ssh']} has no IP address; {NEEDS_IPS}")
        for ip in host["ips"] if len({each["ssh"] for each in hosts}) > 1 else []:
            if _is_address(ip) and ipaddress.ip_address(ip).is_loopback:
                raise ConfigError(
                    f"backend={backend}: {ip} of {host['ssh']} cannot be reached from other hosts"
                )


def check_reachable(hosts: Sequence[Host]) -> None:
    """Raises ServiceUnavailableError for a host where SSH cannot run a program without a password."""
    names = dict.fromkeys(host["ssh"] for host in hosts if host["ssh"] != LOCAL)
    for name in names:
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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
