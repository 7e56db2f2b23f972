"""Forks runs of `train` from a process that has imported everything: a start takes tenths of a second.

Orders come as JSON, one a line: argv, environment, out, err (files), phase (a file of one byte), plan (see `faults`).
Answers: the process id at once, then its wait status when it has ended. It is reaped only with the next order, so
that nobody sends a signal to a stranger of the same number. Nothing of MLX has run here: it has no threads to lose.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))

os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pandas brings pyarrow, which brings a thread

PACKAGES = ("callbacks", "checkpoint", "config", "data", "distillation", "distributed", "models", "ops", "training")
OTHERS = (
    "matplotlib.backends.backend_agg",
    "mlxlab.cli.train.multirun",
    "mlxlab.cli.train",
    "mlxlab.experiment.rounds",
    "mlxlab.experiment.run",
    "mlxlab.experiment.run_report.write",
    "mlxlab.experiment.train",
    "mlxlab.tracking.journal",
    "mlxlab.tracking.tracker",
)


def main() -> None:
    from support.fault_injection.preload import preload

    preload(PACKAGES, OTHERS)
    assert threads() == 1
    print("ready", flush=True)
    child = 0
    for line in sys.stdin:
        if child:
            os.waitpid(child, 0)
        child = os.fork()
        if child == 0:
            sys.exit(live(json.loads(line)))
        print(child, flush=True)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        killed = ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
        print(-ended.si_status if killed else ended.si_status, flush=True)


def live(order: dict[str, Any]) -> int:
    """The child: a `train` of its own, with the faults that were ordered."""
    for descriptor, path in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
        file = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.update(order["environment"])
    sys.argv = ["train.py", *order["argv"]]
    from support.fault_injection import faults

    faults.install(order["plan"], Path(order["phase"]))
    from mlxlab.cli.train import main as train

    return train()


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    main()
