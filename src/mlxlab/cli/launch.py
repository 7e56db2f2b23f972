"""Runs one experiment in several processes, each with its share of every batch.

    mlxlab launch nproc=2 model=transformer data=streaming ...         two processes on this machine
    mlxlab launch hosts=10.0.0.1,10.0.0.2 model=...                    one on each host, connected by TCP
    mlxlab launch hostfile=hosts.json model=...                        one for each entry of a file of mlx.launch

All other arguments are passed to `train`, with trainer.parallel=data. It wraps mlx.launch. The batch, the order of the
data and (without dropout) the losses are those of a single process. backend=jaccl needs hostfile=, which
`mlx.distributed_config --backend jaccl --hosts mac-1,mac-2 --output-hostfile hosts.json` writes.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError
from mlxlab.run.entry import with_fetched_run
from mlxlab.schema.constraints import Ge, Le
from mlxlab.training.distributed import launcher
from mlxlab.training.distributed.launcher import LOCAL


def launch(
    *overrides: str,
    nproc: Annotated[int, Ge(1), Le(1024)] | None = None,
    hosts: str | None = None,
    hostfile: Path | None = None,
    backend: Literal["ring", "jaccl", "jaccl-ring", "nccl", "mpi"] | None = None,
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
    if {"-m", "--multirun"} & set(overrides):
        raise ConfigError("-m: launch starts a single run; start sweeps with train")
    if hostfile and (nproc or hosts):
        raise ConfigError(
            "hostfile=...: expected neither nproc nor hosts; the file has an entry for each process"
        )
    conf_dir()  # Without config files no process starts.
    train = [sys.executable, "-m", "mlxlab", "train"]
    if nproc == 1 and not hosts:
        return subprocess.call([*train, *with_fetched_run(list(overrides))])
    if hostfile:
        processes = launcher.listed_processes(hostfile, backend)
    else:
        processes = launcher.named_processes(hosts or LOCAL, nproc or 1, backend)
    launcher.check_processes(processes)
    args = with_fetched_run(list(overrides))
    if not any(arg.startswith("trainer.parallel=") for arg in args):
        args.append("trainer.parallel=data")
    return launcher.start(processes, [*train, *args])
