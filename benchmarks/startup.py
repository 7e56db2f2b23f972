"""Seconds to the first step of a nano Titanic run, and overhead of the training loop."""

import statistics
import tempfile
import time
from typing import Any

from benchmarks.alternate import table
from benchmarks.new_process import run_module

STEPS = 150


def startup(size: str = "nano", rounds: int = 5) -> str:
    """Full runs in sequence; the first one fills the disk cache and is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        short = [_run(folder, size, 2) for _ in range(rounds + 1)][1:]
        long = [_run(folder, size, STEPS) for _ in range(rounds)]
    waits = [run["first"] - run["start"] for run in short]
    shares = [1 - run["steps"] / run["total"] for run in long]
    each = [run["steps"] / run["count"] for run in long]
    rows: list[tuple[str, ...]] = [
        ("quantity", "median", "min", "max"),
        ("seconds to the first step", *(f"{pick(waits):.2f}" for pick in (statistics.median, min, max))),
        ("overhead of the training loop", *(f"{pick(shares):.2%}" for pick in (statistics.median, min, max))),
        ("ms per step", *(f"{1000 * pick(each):.1f}" for pick in (statistics.median, min, max))),
    ]
    return table(f"data=titanic model=bert model/size={size}, {rounds} runs of 2 and of {STEPS} steps", rows)


def _run(folder: str, size: str, steps: int) -> dict[str, Any]:
    overrides = [
        "data=titanic",
        f"model/size={size}",
        f"trainer.max_steps={steps}",
        f"trainer.eval_every={STEPS}",
        "tracking=none",
        f"hydra.run.dir={folder}/{time.time_ns()}",
    ]
    # Installed code has its bytecode: an environment that writes none would compile every module again.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
    answer: dict[str, Any] = run_module("startup_subject", overrides, folder, bytecode)
    return answer
