"""Memory and seconds of a training step with trainer.parallel=none, data and fsdp, over a ring of processes."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.alternate import table
from benchmarks.new_process import ROOT

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # the processes share the cores; OpenBLAS's threads spin


def fsdp(
    size: str = "small", nproc: int = 2, rows: int = 2, length: int = 32, steps: int = 5
) -> str:
    """Peak memory per process in MB, of MLX and resident, and its ratio to that of one process; seconds per step.

    A causal language model without dropout, AdamW, one BLAS thread per process; not compiled, as it would be
    after some of the steps only. Saving is the peak while a checkpoint is written.

    Args:
        nproc: processes on this machine.
        rows, length: of a batch of all processes.
    """
    tables = []
    for step in ("plain", "optimized"):
        lines: list[tuple[str, ...]] = [
            ("parallel", "peak", "ratio", "resident", "ratio", "saving", "ratio", "s/step")
        ]
        alone: dict[str, Any] = {}
        for parallel, count in (("none", 1), ("data", nproc), ("fsdp", nproc)):
            ranks = measure(
                "processes.fsdp_subject", count, parallel, size, step, rows, length, steps
            )
            worst = {key: max(rank[key] for rank in ranks) for key in ranks[0]}
            alone = alone or worst
            cells = [parallel]
            for key in ("peak", "resident", "saving"):
                cells += [f"{worst[key] / 1e6:.0f}", f"{worst[key] / alone[key]:.2f}"]
            lines.append((*cells, f"{worst['seconds']:.2f}"))
        title = f"transformer, model/size={size}, trainer/step={step}, {rows} x {length} tokens, {nproc} processes"
        tables.append(table(title, lines))
    return "\n\n".join(tables)


def measure(module: str, count: int, *settings: object) -> list[dict[str, Any]]:
    """What a module of benchmarks prints in each of `count` processes of a ring."""
    args = ["-m", f"benchmarks.{module}", *map(str, settings)]
    command = [sys.executable, *args]
    if count > 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        launcher = Path(sys.executable).with_name("mlx.launch")
        command = [
            str(launcher),
            "-n",
            str(count),
            "--starting-port",
            str(port),
            "--python",
            sys.executable,
            *args,
        ]
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path, **ONE_THREAD},
    )
    ranks: dict[int, dict[str, Any]] = {}
    for text in re.findall(r"^\{.*\}$", done.stdout, re.MULTILINE):
        result = json.loads(text)
        ranks[result["rank"]] = result
    if len(ranks) != count:
        raise RuntimeError(done.stderr)
    return list(ranks.values())
