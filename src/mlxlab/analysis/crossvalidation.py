"""Cross-validation: trains every fold of every seed, each in its own process and run folder, and compares methods."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from pathlib import Path
from statistics import fmean

import mlxlab
from mlxlab.analysis.comparison import Comparison, MethodResults, compare
from mlxlab.analysis.comparison_report import fold_markdown, fold_verdict, markdown, write_report
from mlxlab.analysis.comparison_runs import method_results
from mlxlab.analysis.comparison_subject import subject_of
from mlxlab.analysis.fold_warnings import fold_warnings
from mlxlab.config.issues import one_line
from mlxlab.errors import DataError, InputNotFoundError, UserError, WriteError
from mlxlab.experiment.manifest import read_manifest
from mlxlab.experiment.run_metrics import FILE, Metrics, RunMetrics
from mlxlab.files.untrusted import read_json
from mlxlab.metric_names import VALID
from mlxlab.program import display_path, run_dir_override, text_value
from mlxlab.progress import FIRST_SECONDS, LINE_SECONDS, duration

MODEL, TEACHER, STUDENT_ALONE = "this model", "teacher", "student alone"
_TRAIN = "import sys; from mlxlab.cli.train import main; sys.exit(main())"

logger = logging.getLogger(__name__)
_Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class FoldRun:
    """The training of one fold of one seed; `command` trains or resumes it."""

    name: str
    folder: Path
    command: list[str]

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")


def plan_folds(
    folder: Path, folds: int, seeds: int, args: Sequence[str], teachers: Path | None = None
) -> list[FoldRun]:
    """The runs of all folds, seed by seed: `train` with `args` and those of the fold.

    `teachers` is the folder of another cross-validation: a student learns from the final weights of its own fold.
    """
    runs = []
    for seed, fold in ((seed, fold) for seed in range(seeds) for fold in range(folds)):
        path = folder / f"seed-{seed}-fold-{fold}"
        own = [f"data.folds={folds}", f"data.fold={fold}", f"seed={seed}", "resume=auto"]
        own.append(run_dir_override(path))
        if teachers is not None:
            own.append(
                f"trainer.teachers=[{text_value(str(teachers / path.name / 'checkpoints' / 'last'))}]"
            )
        runs.append(
            FoldRun(f"seed {seed} fold {fold}", path, [sys.executable, "-c", _TRAIN, *args, *own])
        )
    return runs


_Job = tuple[FoldRun, _Process, float]  # and when it started


def read_result(run: FoldRun) -> RunMetrics | None:
    """The metrics of a finished run; None if it is not finished, its task has no labels, or its file is malformed."""
    with suppress(InputNotFoundError, DataError):
        metrics = read_json(run.folder / FILE, RunMetrics)
        return (
            metrics
            if metrics["main_metric"] and read_manifest(run.folder)["status"] == "DONE"
            else None
        )
    return None


def main_metric(result: RunMetrics) -> str:
    """The key of the metric that is compared: accuracy, macro F1 or RMSE on the validation rows."""
    return f"{VALID}{result['main_metric']}"


def _value(metrics: Metrics, key: str) -> float:
    """A metric; NaN if it is missing or not finite."""
    value = metrics.get(key)
    return float("nan") if value is None else value


def train_folds(runs: Sequence[FoldRun], jobs: int, title: str) -> None:
    """Trains those that have no result yet, `jobs` in parallel, and logs the result of each.

    Raises:
        UserError: a run failed (with its exit code and last line) or has no labels; the others are terminated.
    """
    waiting, active = [run for run in runs if read_result(run) is None], list[_Job]()
    done, seconds, begin = len(runs) - len(waiting), list[float](), time.monotonic()
    finished = f", {done} of them finished already" if done else ""
    logs = display_path(runs[0].folder.parent / "*.log")
    logger.info(
        f"{title}{len(runs)} runs{finished}, {min(jobs, len(runs))} at a time; logs in {logs}"
    )
    due = begin + FIRST_SECONDS
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                run = waiting.pop(0)
                with (
                    _signals_deferred()
                ):  # one that arrives while a process starts would leave it behind
                    active.append((run, _start(run), time.monotonic()))
            time.sleep(0.1)
            for ended in [job for job in active if job[1].poll() is not None]:
                active.remove(ended)
                run, process, start = ended
                result, done = _result(run, process.returncode), done + 1
                seconds.append(time.monotonic() - start)
                score = (
                    f"{_value(result['final'], main_metric(result)):.4f} at step {result['steps']}"
                )
                rest = _time_left(seconds, active, len(waiting), jobs)
                logger.info(
                    f"{done}/{len(runs)} {title}{run.name}: {score}, {seconds[-1]:.0f} s{rest}"
                )
            if active and (now := time.monotonic()) > due:
                due = now + min(
                    LINE_SECONDS, now - begin
                )  # soon at first: there is no ETA before a run has ended
                lines = " | ".join(f"{run.name}: {_last_line(run)}" for run, *_ in active)
                rest = _time_left(seconds, active, len(waiting), jobs)
                logger.info(f"{done}/{len(runs)} done{rest}; {title}{lines}")
    finally:
        for _, process, _ in active:
            process.terminate()  # it saves, and the next call resumes it
        for _, process, _ in active:
            process.wait()


def _time_left(seconds: Sequence[float], active: Sequence[_Job], waiting: int, jobs: int) -> str:
    """`, ETA h:mm:ss` of all runs, if each takes as long as the mean of those that ended, `jobs` at a time."""
    if not seconds or not (active or waiting):
        return ""
    mean, now = fmean(seconds), time.monotonic()
    ends = [max(0.0, mean - (now - start)) for *_, start in active]
    ends += [0.0] * (jobs - len(active))
    heapify(ends)
    for _ in range(waiting):
        heapreplace(ends, ends[0] + mean)  # in the place of the run that ends first
    return f", ETA {duration(max(ends))}"


def _last_line(run: FoldRun) -> str:
    with suppress(OSError):
        lines = run.log.read_text(errors="replace").strip().splitlines()
        return one_line(lines[-1], 100) if lines else "started"
    return "started"


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """A stop signal that arrives inside is delivered after it."""
    received: list[int] = []
    stops = (signal.SIGINT, signal.SIGTERM)
    before = {
        number: signal.signal(number, lambda number, _: received.append(number)) for number in stops
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in received:
            signal.raise_signal(each)


def _start(run: FoldRun) -> _Process:
    run.folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(
        filter(None, [str(Path(mlxlab.__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    # One BLAS thread each: parallel processes with several threads are slower than running them in sequence.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    with run.log.open("w") as log:
        return subprocess.Popen(
            run.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )


def _result(run: FoldRun, code: int = 0) -> RunMetrics:
    """The metrics of a run whose process has ended with this exit code."""
    if code:
        lines = run.log.read_text(errors="replace").strip().splitlines() or ["no output"]
        error = UserError(f"{run.name}: exit {code}: {lines[-1][:300]} (full log: {run.log})")
        error.exit_code = code if code > 0 else 128 - code
        raise error
    if (result := read_result(run)) is None:
        raise WriteError(
            f"{run.folder}: no metric to compare in its metrics.json; expected a run on labelled data"
        )
    return result


def write_tables(
    runs: Mapping[str, Sequence[FoldRun]],
    folds: int,
    folder: Path,
    command: str,
) -> tuple[str, dict[str, Comparison]]:
    """Writes table.md, .json and .png: the model, its baselines and other methods on the same folds.

    With a teacher also comparison.md, .json and .png, of the student with and without it. Returns the Markdown, with
    a verdict, the warnings of the runs and the command that reproduces it, and the comparisons by the name of
    their files.
    """
    results = {run.name: _result(run) for run in runs[MODEL]}
    first = next(iter(results.values()))
    metric = main_metric(first)
    methods = {
        name: method_results(name, [run.folder for run in each], metric)
        for name, each in runs.items()
    }
    baselines = [
        MethodResults(
            name,
            {run: _value(result["baselines"][name], metric) for run, result in results.items()},
        )
        for name in first["baselines"]
        if all(name in result["baselines"] for result in results.values())
    ]
    folders = {name: [run.folder for run in each] for name, each in runs.items()}
    subject = subject_of({MODEL: folders[MODEL]}, metric, MODEL)
    table = compare(metric, [*baselines, *methods.values()], MODEL, subject=subject)
    steps = sorted({result["steps"] for result in results.values()})
    span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    best = fmean(_value(result["metrics"], metric) for result in results.values())
    notes = [
        f"Folds x seeds: {folds} x {len(results) // folds}; a seed shuffles the folds and initialises the weights.",
        f"The standard error is over the {len(results)} runs, which share rows.",
        f"The model is evaluated at its last step ({span}), so the validation fold selects nothing.",
        f"Mean {first['main_metric']} of the best checkpoints: {best:.4f}.",
    ]
    if baselines:
        table = replace(table, verdict=fold_verdict(table, baselines))
    table = replace(
        table, warnings=fold_warnings([run.folder for each in runs.values() for run in each])
    )
    text = fold_markdown(table, notes, command)
    write_report(table, text, folder, "table")
    comparisons = {"table": table}
    if TEACHER in runs:
        students = [methods[STUDENT_ALONE], replace(methods[MODEL], name="distilled")]
        named = {
            STUDENT_ALONE: folders[STUDENT_ALONE],
            "distilled": folders[MODEL],
            TEACHER: folders[TEACHER],
        }
        subject = subject_of(named, metric, STUDENT_ALONE)
        comparison = compare(metric, [*students, methods[TEACHER]], STUDENT_ALONE, subject=subject)
        verdicts = markdown(comparison, command, TEACHER)
        write_report(comparison, verdicts, folder, "comparison")
        text += f"\n\n{verdicts}"
        comparisons["comparison"] = comparison
    return text, comparisons
