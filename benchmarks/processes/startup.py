"""Seconds to the first step of a nano Titanic run, and overhead of the training loop."""

import statistics
import tempfile
import time
from typing import Any

from benchmarks.alternate import table
from benchmarks.new_process import run_module

STEPS = 150


def startup(size: str = "nano", rounds: int = 5) -> str:
    """Full runs in sequence, with and without native kernels in turn; the first ones, which are not counted, build the
    kernels and fill the disk cache."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            [_run(folder, size, 2, native) for native in ("require", "off")]
            for _ in range(rounds + 1)
        ][1:]
        long = [_run(folder, size, STEPS, "require") for _ in range(rounds)]
    waits, waits_without = (
        [run["first"] - run["start"] for run in runs] for runs in zip(*pairs, strict=True)
    )
    shares = [1 - run["steps"] / run["total"] for run in long]
    each = [run["steps"] / run["count"] for run in long]
    rows: list[tuple[str, ...]] = [
        ("quantity", "median", "min", "max"),
        ("seconds to the first step", *_spread(waits, "{:.2f}")),
        ("the same with backend.native=off", *_spread(waits_without, "{:.2f}")),
        ("overhead of the training loop", *_spread([100 * share for share in shares], "{:.2f} %")),
        ("ms per step", *_spread([1000 * seconds for seconds in each], "{:.1f}")),
    ]
    return table(
        f"data=titanic model=bert model/size={size}, {rounds} runs of 2 and of {STEPS} steps", rows
    )


def _spread(values: list[float], form: str) -> list[str]:
    return [form.format(pick(values)) for pick in (statistics.median, min, max)]


def _run(folder: str, size: str, steps: int, native: str) -> dict[str, Any]:
    overrides = [
        "data=titanic",
        f"model/size={size}",
        f"trainer.max_steps={steps}",
        f"trainer.eval_every={STEPS}",
        f"backend.native={native}",
        "tracking=none",
        f"hydra.run.dir={folder}/{time.time_ns()}",
    ]
    # Installed code has its bytecode: an environment that writes none would compile every module again.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
    answer: dict[str, Any] = run_module("processes.startup_subject", overrides, folder, bytecode)
    return answer
