"""Folds times seeds: a fit for each, in a process and a folder of its own, two or more at a time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlxlab
from mlxlab.errors import UserError

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

    def command(self, folds: int, words: Sequence[str]) -> list[str]:
        """The program that trains it: `train` with the user's words, the fold, and where it was stopped, if it was."""
        own = [f"data.folds={folds}", f"data.fold={self.fold}", f"seed={self.seed}", "resume=auto"]
        return [sys.executable, "-c", _TRAIN, *words, *own, f"hydra.run.dir={_quoted(self.folder)}"]


@dataclass(frozen=True)
class Result:
    """What a fit reached on its fold: at its last step, and at the step that was best there."""

    seed: int
    fold: int
    steps: int
    final: float
    best: float
    baselines: dict[str, float]


def plan(folder: Path, folds: int, seeds: int) -> list[FoldRun]:
    """All fits, seed after seed."""
    return [FoldRun(s, f, folder / f"seed-{s}-fold-{f}") for s in range(seeds) for f in range(folds)]


def read(fit: FoldRun) -> Result | None:
    """The result of a fit; None while there is none."""
    try:
        figures: dict[str, Any] = json.loads((fit.folder / "metrics.json").read_text())
        final, best = figures["final"][_ACCURACY], figures["metrics"][_ACCURACY]
        return Result(fit.seed, fit.fold, figures["steps"], final, best, figures["baselines"])
    except (OSError, ValueError, KeyError):  # not there, half written, or of another time
        return None


def run_all(
    fits: Sequence[FoldRun], command: Callable[[FoldRun], list[str]], jobs: int
) -> Generator[tuple[FoldRun, float]]:
    """Runs the fits, `jobs` at a time; gives each when it has ended, with its seconds. No process outlives this.

    Raises:
        UserError: a fit failed, with its exit code and last line; those beside it are stopped.
    """
    waiting, running = list(fits), list[tuple[FoldRun, subprocess.Popen, float]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                fit = waiting.pop(0)
                running.append((fit, _start(fit, command(fit)), time.monotonic()))
            time.sleep(0.1)
            for one in [one for one in running if one[1].poll() is not None]:
                fit, process, began = one
                running.remove(one)
                if process.returncode:
                    raise _failure(fit, process.returncode)
                yield fit, time.monotonic() - began
    finally:
        for _, process, _ in running:
            process.terminate()  # it saves, and the next call goes on from there
        for _, process, _ in running:
            process.wait()


def _start(fit: FoldRun, command: list[str]) -> subprocess.Popen:
    fit.folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [_SOURCE, os.environ.get("PYTHONPATH")]))
    # One thread each: several processes with a pool of threads each are slower than one after the other.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    with fit.log.open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)


def _failure(fit: FoldRun, code: int) -> UserError:
    lines = fit.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    fault = UserError(f"{fit.name}: exit {code}: {lines[-1][:300]} (all of it: {fit.log})")
    fault.exit_code = code if code > 0 else 128 - code
    return fault


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
