"""What a further job of a sweep costs with each launcher, beyond its own training."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.alternate import table
from mlxlab.constraints import Size

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "train.py"
TRIVIAL = [
    "tracking=none",
    "trainer.max_steps=2",
    "trainer.eval_every=2",
    "checkpointing.every_steps=null",
    "model.num_layers=1",
    "model.hidden_size=32",
    "model.num_heads=2",
    "model.intermediate_size=32",
    "data.batch_size=8",
    "data.prefetch=0",
    "data.baselines=false",
    "~callbacks.learning_curve",
    "~callbacks.memory_monitor",
    "hydra.callbacks.parent_run.report=false",
]
LAUNCHERS = {  # name -> (overrides, package that it needs)
    "basic": (["hydra/sweeper=basic", "hydra/launcher=basic"], "hydra"),
    "in_process": (["hydra/launcher=in_process"], "hydra"),
    "isolated, 1 at a time": (["hydra/launcher=isolated"], "hydra"),
    "isolated, 2 at a time": (["hydra/launcher=isolated", "hydra.launcher.n_jobs=2"], "hydra"),
    "joblib, 2 at a time": (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "joblib"),
    "submitit_local": (["hydra/launcher=submitit_local"], "submitit"),
}


class Cost(NamedTuple):
    """Of a sweep: seconds elapsed, and those of all its processes together."""

    seconds: float
    cpu: float


def launchers(jobs: Size = 12, rounds: int = 3) -> str:
    """Sweeps of `jobs` jobs and of two, in turn; the first round, which fills the caches, is not counted."""
    installed = {name: args for name, (args, package) in LAUNCHERS.items() if importlib.util.find_spec(package)}
    further: dict[str, list[Cost]] = {name: [] for name in installed}
    training: list[Cost] = []
    for number in range(rounds + 1):
        for name, args in installed.items():
            with tempfile.TemporaryDirectory() as folder:
                short, long = _sweep(args, 2, f"{folder}/short"), _sweep(args, jobs, f"{folder}/long")
                each = Cost(*((b - a) / (jobs - 2) for a, b in zip(short, long, strict=True)))
                if number and name == "in_process":
                    training += _training(Path(folder) / "long", jobs)
            if number:
                further[name].append(each)
    own = Cost(*(statistics.median(values) for values in zip(*training, strict=True)))
    rows: list[tuple[str, ...]] = [("launcher", "s per further job", "CPU s", "overhead s", "overhead CPU s")]
    for name, costs in further.items():
        seconds, cpu = (statistics.median(values) for values in zip(*costs, strict=True))
        beyond = (seconds - own.seconds / _at_a_time(name), cpu - own.cpu)
        rows.append((name, f"{seconds:.3f}", f"{cpu:.3f}", *(f"{value:.3f}" for value in beyond)))
    title = f"sweeps of 2 and of {jobs} jobs, {rounds} rounds; training alone {own.seconds:.3f} s, {own.cpu:.3f} CPU s"
    return table(title, rows)


def _at_a_time(name: str) -> int:
    return 2 if "2 at a time" in name else 1


def _sweep(args: list[str], jobs: int, folder: str) -> Cost:
    command = [sys.executable, str(SCRIPT), "-m", f"seed=range({jobs})", *TRIVIAL, *args, f"hydra.sweep.dir={folder}"]
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""})
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError(done.stderr)
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(seconds, used)


def _training(folder: Path, jobs: int) -> list[Cost]:
    """Of each job but the first, which imports MLX: one process runs them all, one after the other."""
    manifests = [json.loads((folder / str(number) / "manifest.json").read_text()) for number in range(1, jobs)]
    return [Cost(*(2 * [manifest["outcome"]["wall_seconds"]])) for manifest in manifests]
