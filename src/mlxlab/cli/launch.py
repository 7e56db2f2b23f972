"""`launch`: one run by several processes, each with its share of every batch.

    launch n=2 model=transformer data=streaming ...        # two processes on this machine
    launch hosts=mac-1,mac-2 backend=jaccl model=...       # one on each host

n:       processes on this machine (or on each host).
hosts:   names of machines, with the same folders on each; null is this machine.
backend: ring (TCP, everywhere), mpi, nccl (CUDA) or jaccl (Thunderbolt).

All other words go to `train`, with trainer.parallel=data. It only wraps mlx.launch, which does the same. The batch, the
order of the data and (without dropout) the losses are those of one process.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mlxlab.cli.app import run_program
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, ServiceUnavailableError

BACKENDS = ("ring", "mpi", "nccl", "jaccl")


def main(argv: Sequence[str] | None = None) -> int:
    codes: list[int] = []
    return run_program(__doc__, argv, lambda words: codes.append(_launch(words))) or sum(codes)


def _launch(words: list[str]) -> int:
    n, hosts, backend, rest = _settings(words)
    if not any(word.startswith("trainer.parallel=") for word in rest):
        rest = [*rest, "trainer.parallel=data"]
    train = [str(Path(__file__).parents[3] / "scripts" / "train.py")]
    if not Path(train[0]).is_file():  # installed as a wheel
        train = ["-m", "mlxlab.cli.main", "train"]
    if n == 1 and not hosts:
        return subprocess.call([sys.executable, *train, *rest])
    program = Path(sys.executable).with_name("mlx.launch")
    if not program.exists():
        raise ServiceUnavailableError(f"{program}: not there; it comes with the package mlx")
    where = ["--hosts", hosts] if hosts else []
    return _run([str(program), "-n", str(n), *where, "--backend", backend, "--python", sys.executable, *train, *rest])


def _run(command: list[str]) -> int:
    """The exit code of process 0, else of the first that failed: mlx.launch ends with 0 whatever they end with."""
    codes: dict[int, int] = {}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            if found := re.search(r"Node with rank (\d+) exited with code (-?\d+)", line):
                codes[int(found[1])] = int(found[2])
    code = codes.get(0) or next(filter(None, codes.values()), process.returncode)
    return 128 - code if code < 0 else code


def _settings(words: list[str]) -> tuple[int, str, str, list[str]]:
    known = {"n": "", "hosts": "", "backend": "ring"}
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if key in known:
            known[key] = value
        else:
            rest.append(word)
    if not known["n"] and known["hosts"]:
        known["n"] = "1"
    if not known["n"].isdigit() or not 1 <= int(known["n"]) <= 1024:
        raise ConfigError(f"n={known['n']}: how many processes? expected a number from 1 to 1024")
    if known["backend"] not in BACKENDS:
        expected = ", ".join(BACKENDS)
        raise ConfigError(f"backend={known['backend']}: expected {expected}{suggestion(known['backend'], BACKENDS)}")
    if any(word in ("-m", "--multirun") for word in rest):
        raise ConfigError("-m: a sweep is started by train, its jobs one after the other; launch runs a single one")
    return int(known["n"]), known["hosts"], known["backend"], rest
