"""Starts the processes of a run with `mlx.launch` on its hosts: named, or listed in a file, and reachable by SSH."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

from mlxlab.errors import ConfigError, DataError, ServiceUnavailableError, WorkerLostError
from mlxlab.files.untrusted import read_json
from mlxlab.schema.constraints import MinLen, Predicate
from mlxlab.terminal.wording import one_line
from mlxlab.training.distributed.launch_env import PROCESSES

VARIABLES = (  # A host file may come from anyone: no variable here names a file or a program.
    "MLX_METAL_FAST_SYNCH",
    "MLX_RING_VERBOSE",
    "NCCL_DEBUG",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_SOCKET_IFNAME",
)
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
LOCAL = "127.0.0.1"  # the only name for which `mlx.launch` uses no ssh
# Lines of mlx.launch about a process, by its rank; and of mpirun about the first one that failed.
EXITED = re.compile(r".*Node with rank (\d+) exited with code (-?\d+)")
MPI_EXITED = re.compile(r" +Exit code: +(\d+)$")
MPI_KILLED = re.compile(r"signal (\d+) \(.*\)\.$")
SSH_FAILED = 255  # The connection to a host was lost: no process of a run ends with it.


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


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        hosts: the name of one for each process.
        per_host: the most on one host.
        flags: of `mlx.launch`, which name the hosts.
    """

    hosts: list[str]
    backend: str
    per_host: int
    flags: list[str]


def listed_processes(hostfile: Path, backend: str | None) -> Processes:
    """The processes that a file lists; its backend counts where none is given."""
    content = read_hostfile(hostfile)
    names = [host["ssh"] for host in content["hosts"]]
    backend = backend or content.get("backend") or "ring"
    per_host = max(Counter(names).values())
    return Processes(names, backend, per_host, [f"--hostfile={hostfile}"])


def named_processes(hosts: str, per_host: int, backend: str | None) -> Processes:
    """Puts `per_host` processes on each of the hosts, whose names commas separate."""
    names = hosts.split(",")
    if not all(map(is_host_name, names)):
        got = one_line(hosts, 120)
        raise ConfigError(f"hosts={got}: expected names of machines, separated by commas")
    flags = ["--hosts", hosts]
    return Processes(names * per_host, backend or "ring", per_host, flags)


def check_processes(processes: Processes) -> None:
    """Raises ServiceUnavailableError if a program is not installed, or a host cannot be reached."""
    if processes.backend != "mpi":  # A scheduler may start the processes of mpirun, without SSH.
        check_reachable(processes.hosts)
    elif not shutil.which("mpirun"):
        raise ServiceUnavailableError(
            "backend=mpi: mpirun not found; expected Open MPI 5 or later in PATH"
        )


def start(processes: Processes, program: list[str]) -> int:
    """Runs a program in all processes; returns the exit code of rank 0, or of the first process that failed."""
    launcher = Path(sys.executable).with_name("mlx.launch")
    command = [str(launcher), "-n", str(processes.per_host), *processes.flags]
    command += ["--backend", processes.backend, *_ports(processes.hosts)]
    command += ["--env", f"{PROCESSES}={len(processes.hosts)}", "--", *program]
    return run(command, processes.backend == "mpi")


def run(command: list[str], is_mpi: bool = False) -> int:
    """Runs `mlx.launch`, which itself always exits with 0; returns the exit code of the run."""
    codes: dict[int, int] = {}  # Rank -> exit code; MPI names no rank, which is -1 here.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            if exited := EXITED.match(line):
                codes[int(exited[1])] = int(exited[2])
            elif is_mpi and (exited := MPI_EXITED.match(line)):
                codes[-1] = int(exited[1])
            elif is_mpi and (exited := MPI_KILLED.match(line)):
                codes[-1] = -int(exited[1])
    ordered = [codes.get(0, 0), *codes.values()]
    failed = [code for code in ordered if code]
    # Once a process has failed, mlx.launch stops the others.
    causes = [code for code in failed if code != -signal.SIGTERM]
    code = [*causes, *failed, process.returncode][0]
    if code == SSH_FAILED:
        return WorkerLostError.exit_code
    return 128 - code if code < 0 else code


def _ports(hosts: list[str]) -> list[str]:
    """Free ones, if all processes are on this machine: two runs with the same ports would mix."""
    if any(host != LOCAL for host in hosts):
        return []
    with socket.create_server((LOCAL, 0)) as free:
        port = str(free.getsockname()[1])
    return ["--starting-port", port, "--nccl-port", port]
