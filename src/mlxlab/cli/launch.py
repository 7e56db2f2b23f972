"""Runs one experiment in several processes, each with its share of every batch.

    mlxlab launch nproc=2 model=transformer data=streaming ...         two processes on this machine
    mlxlab launch hosts=mac-1,mac-2 backend=jaccl model=...            one on each host

All other arguments are passed to `train`, with trainer.parallel=data. It wraps mlx.launch. The batch, the order of the
data and (without dropout) the losses are those of a single process.
"""

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.config.issues import one_line
from mlxlab.constraints import Ge, Le
from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.experiment.experiment import with_fetched_run


def _launch(
    nproc: Annotated[int, Ge(1), Le(1024)] | None = None,
    hosts: str | None = None,
    backend: Literal["ring", "mpi", "nccl", "jaccl"] = "ring",
    *,
    args: list[str],
) -> int:
    """Starts the processes; returns the exit code of rank 0, else of the first process that failed.

    Args:
        nproc: processes on this machine, or on each host; 1 if hosts are given.
        hosts: names of machines with the same folders on each, separated by commas; null is this machine.
        backend: ring (TCP, everywhere), mpi, nccl (CUDA) or jaccl (Thunderbolt).
    """
    if nproc is None and not hosts:
        raise ConfigError("nproc=...: missing; expected the number of processes, 1 to 1024, or hosts=...")
    if hosts and not re.fullmatch(r"[\w.@:-]+(,[\w.@:-]+)*", hosts):
        raise ConfigError(f"hosts={one_line(hosts, 120)}: expected names of machines, separated by commas")
    if {"-m", "--multirun"} & set(args):
        raise ConfigError("-m: launch starts a single run; start sweeps with train")
    args = with_fetched_run(args)
    script = Path(__file__).parents[3] / "scripts" / "train.py"
    train = [str(script)] if script.is_file() else ["-m", "mlxlab", "train"]  # installed as a wheel
    if nproc == 1 and not hosts:
        return subprocess.call([sys.executable, *train, *args])
    if not any(arg.startswith("trainer.parallel=") for arg in args):
        args = [*args, "trainer.parallel=data"]
    launcher = Path(sys.executable).with_name("mlx.launch")
    if not launcher.exists():
        raise ServiceUnavailableError(f"{launcher}: not found; it is part of the package mlx")
    with socket.create_server(("127.0.0.1", 0)) as free:  # two rings with the same ports on a machine would mix
        port = free.getsockname()[1]
    machines = ["--hosts", hosts] if hosts else ["--starting-port", str(port)]
    settings = ["-n", str(nproc or 1), *machines, "--backend", backend, "--python", sys.executable]
    processes = [str(launcher), *settings, *train, *args]
    codes: dict[int, int] = {}  # by rank: mlx.launch itself always exits with 0
    with subprocess.Popen(processes, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            if exited := re.search(r"Node with rank (\d+) exited with code (-?\d+)", line):
                codes[int(exited[1])] = int(exited[2])
    code = codes.get(0) or next(filter(None, codes.values()), process.returncode)
    return 128 - code if code < 0 else code


main = build_main(__doc__, Subcommand(_launch, forwards_overrides=True))
