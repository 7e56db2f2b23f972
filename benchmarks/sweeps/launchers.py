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

ROOT = Path(__file__).resolve().parents[2]
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
JOBLIB = "joblib, 2 at a time"
LAUNCHERS = {  # name -> (overrides, package that it needs)
    "basic": (["hydra/sweeper=basic", "hydra/launcher=basic"], "hydra"),
    "basic, our sweeper": (["hydra/launcher=basic"], "hydra"),
    "isolated, 1 at a time": (["hydra/launcher=isolated"], "hydra"),
    "isolated, 2 at a time": (["hydra/launcher=isolated", "hydra.launcher.n_jobs=2"], "hydra"),
    JOBLIB: (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "joblib"),
    "submitit_local": (["hydra/launcher=submitit_local"], "submitit"),
}


class Cost(NamedTuple):
    """Of a sweep: seconds elapsed, and those of all its processes together."""

    seconds: float
    cpu: float


def launchers(jobs: Size = 12, rounds: Size = 3) -> str:
    """Sweeps of `jobs` jobs and of two, in turn; the first round, which fills the caches, is not counted."""
    installed = {
        name: args
        for name, (args, package) in LAUNCHERS.items()
        if importlib.util.find_spec(package)
    }
    further: dict[str, list[Cost]] = {name: [] for name in installed}
    training: list[Cost] = []
    for number in range(rounds + 1):
        for name, args in installed.items():
            with tempfile.TemporaryDirectory() as folder:
                short, long = (
                    _sweep(args, 2, f"{folder}/short"),
                    _sweep(args, jobs, f"{folder}/long"),
                )
            if number:
                further[name].append(
                    Cost(*((b - a) / (jobs - 2) for a, b in zip(short, long, strict=True)))
                )
        training += _training(jobs)
    own = _medians(training)
    costs = {name: _medians(measured) for name, measured in further.items()}
    beyond = {
        name: Cost(cost.seconds - own.seconds / _at_a_time(name), cost.cpu - own.cpu)
        for name, cost in costs.items()
    }
    rows: list[tuple[str, ...]] = [
        (
            "launcher",
            "s per further job",
            "CPU s",
            "overhead s",
            "overhead CPU s",
            "relative to joblib's",
        )
    ]
    for name, cost in costs.items():
        joblib = beyond[JOBLIB].cpu if JOBLIB in beyond else float("nan")
        values = (f"{value:.3f}" for value in (*cost, *beyond[name]))
        rows.append((name, *values, f"{beyond[name].cpu / joblib:.2f}"))
    title = f"sweeps of 2 and of {jobs} jobs, {rounds} rounds; training alone {own.seconds:.3f} s, {own.cpu:.3f} CPU s"
    return table(title, rows)


def train_alone(jobs: int) -> list[Cost]:
    """Each run but the first, which imports MLX, in this process without Hydra."""
    from mlxlab.config.hydra.compose import compose_checked
    from mlxlab.experiment.experiment import run_config

    overrides = [text for text in TRIVIAL if not text.startswith("hydra.")]
    costs: list[Cost] = []
    for seed in range(jobs):
        config = compose_checked([*overrides, f"seed={seed}"])
        with tempfile.TemporaryDirectory() as folder:
            start, used = time.perf_counter(), time.process_time()
            run_config(config, Path(folder))
            costs.append(Cost(time.perf_counter() - start, time.process_time() - used))
    return costs[1:]


def _medians(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def _at_a_time(name: str) -> int:
    return 2 if "2 at a time" in name else 1


def _sweep(args: list[str], jobs: int, folder: str) -> Cost:
    command = [
        sys.executable,
        str(SCRIPT),
        "-m",
        f"seed=range({jobs})",
        *TRIVIAL,
        *args,
        f"hydra.sweep.dir={folder}",
    ]
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""}
    )
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError(done.stderr)
    used = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return Cost(seconds, used)


def _training(jobs: int) -> list[Cost]:
    code = f"import json, benchmarks.sweeps.launchers as l; print('\\n' + json.dumps(l.train_alone({jobs})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [Cost(*cost) for cost in json.loads(done.stdout.splitlines()[-1])]
