"""CPU seconds of a further job of a sweep with each launcher, of one that does nothing and of a nano run."""

import importlib.util
import statistics
import tempfile
from pathlib import Path

from benchmarks.alternate import table
from benchmarks.processes.cpu_seconds import adopt_orphans, cpu_seconds
from mlxlab.schema.constraints import Size

ROOT = Path(__file__).resolve().parents[2]
JOBS = {  # name -> command
    "does nothing": ["-m", "benchmarks.sweeps.launchers_subject"],
    "nano, 5 steps": [str(ROOT / "scripts" / "train.py")],
}
OVERRIDES = [
    "data=titanic",
    "model=bert",
    "model/size=nano",
    "trainer.max_steps=5",
    "tracking=none",
    "hydra/sweeper=grid",
    "hydra.callbacks.parent_run.report=false",
]
JOBLIB = "joblib, 2 at a time"
LAUNCHERS = {  # name -> (overrides, package that it needs)
    "basic": (["hydra/launcher=basic"], "hydra"),
    "isolated, 2 at a time": (["hydra/launcher=isolated", "hydra.launcher.n_jobs=2"], "hydra"),
    JOBLIB: (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "joblib"),
    "submitit_local": (["hydra/launcher=submitit_local"], "submitit"),
}
_FEW = 2  # jobs that a sweep has in any case


def launchers(jobs: Size = 8, rounds: Size = 3) -> str:
    """Sweeps of two and of `jobs` jobs, in turn; the first round, which fills the caches, is not counted."""
    adopt_orphans()
    installed = {
        name: args
        for name, (args, package) in LAUNCHERS.items()
        if importlib.util.find_spec(package)
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for name, args in installed.items():
            for job, command in JOBS.items():
                few, many = (
                    _sweep([*command, "--multirun", *args], count) for count in (_FEW, jobs)
                )
                if number:
                    seconds.setdefault((job, name), []).append((many - few) / (jobs - _FEW))
    rows: list[tuple[str, ...]] = [("job", "launcher", "CPU s", "relative to joblib's")]
    for (job, name), values in seconds.items():
        median = statistics.median(values)
        joblib = statistics.median(seconds.get((job, JOBLIB), [float("nan")]))
        rows.append((job, name, f"{median:.3f}", f"{median / joblib:.2f}"))
    return table(f"a further job, sweeps of {_FEW} and of {jobs} jobs, {rounds} rounds", rows)


def _sweep(command: list[str], jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        sweep = [f"seed=range({jobs})", f"hydra.sweep.dir={folder}/sweep"]
        return cpu_seconds(Path(folder), *command, *OVERRIDES, *sweep, path=(ROOT / "src", ROOT))
