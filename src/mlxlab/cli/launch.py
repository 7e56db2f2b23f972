"""Runs one experiment in several processes, each with its share of every batch.

    mlxlab launch nproc=2 model=transformer data=streaming ...         two processes on this machine
    mlxlab launch hosts=10.0.0.1,10.0.0.2 model=...                    one on each host, connected by TCP
    mlxlab launch hostfile=hosts.json model=...                        one for each entry of a file of mlx.launch

All other arguments are passed to `train`, with trainer.parallel=data. It wraps mlx.launch. The batch, the order of the
data and (without dropout) the losses are those of a single process. backend=jaccl needs hostfile=, which
`mlx.distributed_config --backend jaccl --hosts mac-1,mac-2 --output-hostfile hosts.json` writes.
"""

import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.config.issues import one_line
from mlxlab.constraints import Ge, Le
from mlxlab.distributed.hosts import (
    LOCAL,
    Host,
    check_hosts,
    check_reachable,
    is_host_name,
    most_on_one_host,
    named_hosts,
    read_hostfile,
)
from mlxlab.distributed.launch_env import PROCESSES
from mlxlab.errors import ConfigError, ServiceUnavailableError, WorkerLostError
from mlxlab.experiment.experiment import with_fetched_run

# Lines of mlx.launch, by rank; and of mpirun about the first process that failed.
EXITED = re.compile(r".*Node with rank (\d+) exited with code (-?\d+)")
MPI_EXITED = re.compile(r" +Exit code: +(\d+)$")
MPI_KILLED = re.compile(r"signal (\d+) \(.*\)\.$")
SSH_FAILED = 255  # The connection to a host was lost: no process of a run ends with it.


def _launch(
    nproc: Annotated[int, Ge(1), Le(1024)] | None = None,
    hosts: str | None = None,
    hostfile: Path | None = None,
    backend: Literal["ring", "jaccl", "jaccl-ring", "nccl", "mpi"] | None = None,
    *,
    args: list[str],
) -> int:
    """Starts the processes; returns the exit code of rank 0 if it failed, else of the first process that did.

    Args:
        nproc: processes on this machine, or on each of the hosts; 1 if hosts are given.
        hosts: machines with the same folders on each, separated by commas; ring needs their IP addresses.
        hostfile: JSON of mlx.launch, an entry for each process: [{"ssh": "mac-1", "ips": ["10.0.0.1"]}, ...].
        backend: ring (TCP, everywhere), jaccl or jaccl-ring (Thunderbolt), nccl (CUDA) or mpi; null is that of the
            hostfile, else ring.
    """
    if nproc is None and not hosts and not hostfile:
        raise ConfigError(
            "nproc=...: missing; expected the number of processes, 1 to 1024, hosts=... or hostfile=..."
        )
    if {"-m", "--multirun"} & set(args):
        raise ConfigError("-m: launch starts a single run; start sweeps with train")
    if hostfile:
        if nproc or hosts:
            raise ConfigError(
                "hostfile=...: expected neither nproc nor hosts; the file has an entry for each process"
            )
        content = read_hostfile(hostfile)
        machines, chosen = content["hosts"], backend or content.get("backend") or "ring"
        per_host, source = most_on_one_host(machines), [f"--hostfile={hostfile}"]
    else:
        names = hosts.split(",") if hosts else [LOCAL]
        if not all(map(is_host_name, names)):
            raise ConfigError(
                f"hosts={one_line(hosts or '', 120)}: expected names of machines, separated by commas"
            )
        per_host, source = nproc or 1, ["--hosts", ",".join(names)]
        machines, chosen = named_hosts(names, per_host), backend or "ring"
    train = [sys.executable, "-m", "mlxlab", "train"]
    if nproc == 1 and not hosts:
        return subprocess.call([*train, *with_fetched_run(args)])
    check_hosts(machines, chosen, per_host)
    command = [
        *_launcher(chosen),
        "-n",
        str(per_host),
        *source,
        "--backend",
        chosen,
        *_ports(machines),
    ]
    if chosen != "mpi":  # A scheduler may start the processes of mpirun, without SSH.
        check_reachable(machines)
    args = with_fetched_run(args)
    if not any(arg.startswith("trainer.parallel=") for arg in args):
        args = [*args, "trainer.parallel=data"]
    return _run([*command, "--env", f"{PROCESSES}={len(machines)}", "--", *train, *args], chosen)


def _launcher(backend: str) -> list[str]:
    """The program; raises ServiceUnavailableError if it, or what it starts, is not installed."""
    launcher = Path(sys.executable).with_name("mlx.launch")
    if not launcher.exists():
        raise ServiceUnavailableError(f"{launcher}: not found; it is part of the package mlx")
    if backend == "mpi" and not shutil.which("mpirun"):
        raise ServiceUnavailableError(
            "backend=mpi: mpirun not found; expected Open MPI 5 or later in PATH"
        )
    return [str(launcher)]


def _ports(machines: list[Host]) -> list[str]:
    """Free ones, if all processes are on this machine: two runs with the same ports would mix."""
    if any(host["ssh"] != LOCAL for host in machines):
        return []
    with socket.create_server((LOCAL, 0)) as free:
        port = str(free.getsockname()[1])
    return ["--starting-port", port, "--nccl-port", port]


def _run(command: list[str], backend: str) -> int:
    codes: dict[int, int] = {}  # by rank, of MPI -1: mlx.launch itself always exits with 0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            if exited := EXITED.match(line):
                codes[int(exited[1])] = int(exited[2])
            elif backend == "mpi" and (exited := MPI_EXITED.match(line)):
                codes[-1] = int(exited[1])
            elif backend == "mpi" and (exited := MPI_KILLED.match(line)):
                codes[-1] = -int(exited[1])
    failed = [code for code in (codes.get(0), *codes.values()) if code]
    stopped = -signal.SIGTERM  # mlx.launch stops the others once a process has failed
    code = next(
        (code for code in failed if code != stopped), stopped if failed else process.returncode
    )
    if code == SSH_FAILED:
        return WorkerLostError.exit_code
    return 128 - code if code < 0 else code


main = build_main(__doc__, Subcommand(_launch, forwards_overrides=True))
