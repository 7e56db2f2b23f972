"""Cross-validation: trains every fold of every seed, each in its own process and run folder, several in parallel."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import mlxlab
from mlxlab.constraints import Ge
from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.files.shape import ShapeError, validate
from mlxlab.files.untrusted import read_json

_TRAIN = "import sys; from mlxlab.cli.train import main; sys.exit(main())"
_SOURCE = str(Path(mlxlab.__file__).parents[1])
_ACCURACY = "valid/accuracy"


@dataclass(frozen=True)
class FoldRun:
    """The training of one fold of one seed."""

    seed: int
    fold: int
    folder: Path

    @property
    def name(self) -> str:
        return f"seed {self.seed} fold {self.fold}"

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def command(self, folds: int, args: Sequence[str]) -> list[str]:
        """The command that trains or resumes it: `train` with `args` and the overrides of the fold."""
        fold = [f"data.folds={folds}", f"data.fold={self.fold}", f"seed={self.seed}", "resume=auto"]
        return [sys.executable, "-c", _TRAIN, *args, *fold, f"hydra.run.dir={_quoted(self.folder)}"]


class _Metrics(TypedDict):
    """The keys of metrics.json that are read; others are ignored."""

    final: dict[str, float]
    metrics: dict[str, float]
    steps: Annotated[int, Ge(0)]
    baselines: dict[str, float]


@dataclass(frozen=True)
class FoldResult:
    """Accuracies of a fold: at the last step, at the best step on this fold, and of the baselines."""

    seed: int
    fold: int
    steps: int
    final: float
    best: float
    baselines: dict[str, float]


def plan_folds(folder: Path, folds: int, seeds: int) -> list[FoldRun]:
    """The runs of all folds, seed by seed."""
    return [FoldRun(seed, fold, folder / f"seed-{seed}-fold-{fold}") for seed in range(seeds) for fold in range(folds)]


def read_result(run: FoldRun) -> FoldResult | None:
    """The result of a fold; None if it has none yet, or its file is malformed."""
    try:
        saved = read_json(run.folder / "metrics.json", dict[str, Any])
        metrics: _Metrics = validate({key: saved[key] for key in _Metrics.__annotations__ if key in saved}, _Metrics)
        final, best = metrics["final"][_ACCURACY], metrics["metrics"][_ACCURACY]
    except (InputNotFoundError, DataError, ShapeError, KeyError):
        return None
    return FoldResult(run.seed, run.fold, metrics["steps"], final, best, metrics["baselines"])


def teacher_override(run: FoldRun, runs: Sequence[FoldRun], teachers: Sequence[FoldRun]) -> str:
    """The override by which a student learns from the final weights of the teacher of its own fold."""
    folder = teachers[list(runs).index(run)].folder
    return f"trainer.teachers=['{folder}/checkpoints/last']"


def run_all(
    runs: Sequence[FoldRun], command: Callable[[FoldRun], list[str]], jobs: int
) -> Generator[tuple[FoldRun, float]]:
    """Trains folds, `jobs` in parallel; yields each with its seconds when it ends. Closing it ends all processes.

    Raises:
        UserError: a run failed (with its exit code and last line); the others are terminated.
    """
    waiting, active = list(runs), list[tuple[FoldRun, subprocess.Popen[bytes], float]]()
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                run = waiting.pop(0)
                active.append((run, _start(run, command(run)), time.monotonic()))
            time.sleep(0.1)
            for ended in [job for job in active if job[1].poll() is not None]:
                run, process, start = ended
                active.remove(ended)
                if process.returncode:
                    raise _failure(run, process.returncode)
                yield run, time.monotonic() - start
    finally:
        for _, process, _ in active:
            process.terminate()  # it saves, and the next call resumes it
        for _, process, _ in active:
            process.wait()


def _start(run: FoldRun, command: list[str]) -> subprocess.Popen[bytes]:
    run.folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [_SOURCE, os.environ.get("PYTHONPATH")]))
    # One BLAS thread each: parallel processes with several threads are slower than running them in sequence.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    with run.log.open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)


def _failure(run: FoldRun, code: int) -> UserError:
    lines = run.log.read_text(errors="replace").strip().splitlines() or ["no output"]
    error = UserError(f"{run.name}: exit {code}: {lines[-1][:300]} (full log: {run.log})")
    error.exit_code = code if code > 0 else 128 - code
    return error


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
