"""Runs of mlxlab commands that are small enough for tests: in processes of their own, or in this one."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import psutil

from mlxlab.cli.main import main
from support.forks import ForkedProcess

ROOT = Path(__file__).resolve().parents[2]
NO_PLOTS = ["~callbacks.memory_monitor", "~callbacks.report"]  # a third of a short run
SETTINGS = """tracking=none trainer.max_steps=40 trainer.eval_every=20 checkpointing.every_steps=5
model.num_layers=1 model.hidden_size=32 model.num_heads=2 model.intermediate_size=32
data.batch_size=8 data.prefetch=0 data.baselines=false"""
TINY = [*SETTINGS.split(), *NO_PLOTS]


def tiny_overrides(*overrides: str) -> list[str]:
    """TINY with some keys set otherwise."""
    changed = {override.split("=")[0] for override in overrides}
    return [setting for setting in TINY if setting.split("=")[0] not in changed] + list(overrides)


def environment(**more: str) -> dict[str, str]:
    """Of a new interpreter. It keeps its bytecode, as that of a user does: compiling takes a tenth of its start."""
    variables = os.environ | {"OPENBLAS_NUM_THREADS": "1"} | more
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


# What a process reads when it runs; other variables are read at the start of an interpreter.
READ_LATE = {
    *("MLXLAB_ALLOWED_TARGETS", "MLXLAB_NATIVE", "MLXLAB_NATIVE_ARCH", "MLX_HOSTFILE", "MLX_RANK"),
    *("CXX", "PATH", "PYTHONPATH", "XDG_CACHE_HOME"),
}
READ_BY_STORES = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_HOST")


def start(
    *overrides: str,
    script: str = "train",
    fresh: bool = False,
    folder: Path | None = None,
    **more: str,
) -> subprocess.Popen[str] | ForkedProcess:
    """A command in a process of its own: a fork, or of a new interpreter if `fresh` or `more` needs it.

    Args:
        folder: its working directory; None for that of this process.
    """
    is_forkable = sys.platform == "linux" and script != "launch" and not fresh
    if is_forkable and all(map(_is_read_late, more)):
        args = [str(ROOT / "src" / "mlxlab" / "__main__.py"), script, *overrides]
        return ForkedProcess("mlxlab.cli.main", args, environment(**more), folder)
    command = [sys.executable, "-m", "mlxlab", script, *overrides]
    return subprocess.Popen(
        command, cwd=folder, env=environment(**more), stdout=-1, stderr=-1, text=True
    )


def _is_read_late(name: str) -> bool:
    return name in READ_LATE or name.startswith(READ_BY_STORES)


def run(
    *overrides: str,
    script: str = "train",
    fresh: bool = False,
    folder: Path | None = None,
    **more: str,
) -> subprocess.CompletedProcess:
    process = start(*overrides, script=script, fresh=fresh, folder=folder, **more)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def passed(process: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    """A process that has to end with exit code 0."""
    assert process.returncode == 0, process.stderr
    return process


def succeed(*overrides: str, **options: Any) -> subprocess.CompletedProcess:
    """`run` of what has to succeed."""
    return passed(run(*overrides, **options))


def succeed_here(*overrides: str, **options: Any) -> subprocess.CompletedProcess:
    """`run_here` of what has to succeed."""
    return passed(run_here(*overrides, **options))


def run_script(
    file: Path, *args: str, folder: Path, fresh: bool = False, **more: str
) -> subprocess.CompletedProcess:
    """A Python script in a process of its own: a fork, which has imported what it needs, unless `fresh`."""
    argv, variables = [str(file), *args], environment(**more)
    process: subprocess.Popen[str] | ForkedProcess
    if sys.platform == "linux" and not fresh:
        process = ForkedProcess("support.script", argv, variables, folder)
    else:
        process = subprocess.Popen(
            [sys.executable, *argv], cwd=folder, env=variables, stdout=-1, stderr=-1, text=True
        )
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def start_ring(hosts: Path, *overrides: str) -> list[subprocess.Popen[str] | ForkedProcess]:
    """Two processes of one run, by rank, as a launcher starts them; `hosts` is the file that names their ports."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        addresses = [[f"127.0.0.1:{server.getsockname()[1]}"] for server in servers]
        hosts.write_text(json.dumps(addresses))
    return [start(*overrides, MLX_RANK=str(rank), MLX_HOSTFILE=str(hosts)) for rank in range(2)]


def run_ring(hosts: Path, *overrides: str) -> list[subprocess.CompletedProcess]:
    processes = start_ring(hosts, *overrides)
    outputs = [each.communicate(timeout=120) for each in processes]
    return [
        subprocess.CompletedProcess(each.args, each.returncode, *output)
        for each, output in zip(processes, outputs, strict=True)
    ]


def run_here(*overrides: str, script: str = "train") -> subprocess.CompletedProcess:
    """The same in this process: cheaper by the seconds that a start takes. Not for signals and kills."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([script, *overrides])
    return subprocess.CompletedProcess(list(overrides), code, out.getvalue(), err.getvalue())


def final_state(finished: subprocess.CompletedProcess) -> str:
    lines = [line for line in finished.stdout.splitlines() if line.startswith("final_state=")]
    assert len(lines) == 1, finished.stderr
    return lines[0]


def process_of_rank(launcher: subprocess.Popen[str] | ForkedProcess, rank: int) -> psutil.Process:
    """The process of a launched run that has this rank."""
    processes = psutil.Process(launcher.pid).children(recursive=True)
    processes = [process for process in processes if "mlxlab train" in " ".join(process.cmdline())]
    return next(process for process in processes if process.environ().get("MLX_RANK") == str(rank))


def killed_and_resumed(overrides: Sequence[str], folder: Path, step: int) -> str:
    """The final state of a run in `folder` that was killed after a checkpoint and resumed."""
    again = [*overrides, f"hydra.run.dir={folder}", "resume=auto"]
    process = start(*again)
    wait_for(folder / "checkpoints" / f"step-{step:08d}", process)
    process.kill()
    process.communicate()
    resumed = run(*again)
    assert "resumed from step-" in resumed.stderr
    return final_state(resumed)


def wait_for(
    path: Path, process: subprocess.Popen[str] | ForkedProcess, seconds: float = 60.0
) -> None:
    """Waits until a path is there; fails if the process ends before."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.002)
