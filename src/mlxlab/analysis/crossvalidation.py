"""Cross-validation: compares methods on the folds of every seed, of which each has a run folder."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlxlab.analysis.comparison import Comparison, MethodResults, compare
from mlxlab.analysis.comparison_report import fold_markdown, fold_verdict, markdown, write_report
from mlxlab.analysis.comparison_runs import method_results
from mlxlab.analysis.comparison_subject import subject_of
from mlxlab.analysis.fold_warnings import fold_warnings
from mlxlab.errors import DataError, InputNotFoundError, WriteError
from mlxlab.metric_names import VALID
from mlxlab.record.run_file import FILE, read_run
from mlxlab.record.run_record import RunRecord

MODEL = "this model"
TEACHER = "teacher"
STUDENT_ALONE = "student alone"


@dataclass(frozen=True)
class FoldRun:
    """The training of one fold of one seed."""

    name: str
    folder: Path


def plan_folds(folder: Path, folds: int, seeds: int) -> list[FoldRun]:
    """The runs of all folds, seed by seed."""
    runs = []
    for seed in range(seeds):
        for fold in range(folds):
            path = folder / f"seed-{seed}-fold-{fold}"
            runs.append(FoldRun(f"seed {seed} fold {fold}", path))
    return runs


def _read_finished(run: FoldRun) -> RunRecord:
    """The record of a run that has ended."""
    with suppress(InputNotFoundError):
        record = read_run(run.folder)
        is_labelled = record.data.task != "language_modelling"
        if record.status == "finished" and record.evaluation.results and is_labelled:
            return record
    raise WriteError(
        f"{run.folder}: no metric to compare in its {FILE}; expected a run on labelled data"
    )


def write_tables(
    runs: Mapping[str, Sequence[FoldRun]],
    folds: int,
    folder: Path,
    command: str,
) -> tuple[str, dict[str, Comparison]]:
    """Writes table.md, .json and .html: the model, its baselines and other methods on the same folds.

    With a teacher also comparison.md, .json and .html, of the student with and without it. Returns the Markdown, with
    a verdict, the warnings of the runs and the command that reproduces it, and the comparisons by the name of
    their files.
    """
    records = {run.name: _read_finished(run) for run in runs[MODEL]}
    results = {name: record.evaluation.results[0] for name, record in records.items()}
    first, *others = results.values()
    mains = {record.evaluation.main_metric for record in records.values()}
    if len(mains) > 1:
        raise DataError(f"{folder}: expected runs of one metric, got {', '.join(sorted(mains))}")
    [main] = mains
    metric = f"{VALID}{main}"
    folders = {name: [run.folder for run in each] for name, each in runs.items()}
    methods = {name: method_results(name, paths, metric) for name, paths in folders.items()}
    baselines = []
    for name in first.baselines:
        if all(name in result.baselines for result in others):
            values = {run: result.baselines[name].get(main) for run, result in results.items()}
            baselines.append(MethodResults(name, values))
    subject = subject_of({MODEL: folders[MODEL]}, metric, MODEL)
    table = compare(metric, [*baselines, *methods.values()], MODEL, subject=subject)
    verdict = ""
    if baselines:
        verdict = fold_verdict(table, [each.name for each in baselines])
    warnings = fold_warnings([path for paths in folders.values() for path in paths])
    table = replace(table, verdict=verdict, warnings=warnings)
    steps = sorted({record.training.steps for record in records.values()})
    span = f"{steps[0]:,}"
    if len(steps) > 1:
        span += f" to {steps[-1]:,}"
    bests = np.array([result.metrics.get(main) for result in results.values()], float)
    notes = [
        f"Folds x seeds: {folds} x {len(results) // folds}; a seed shuffles the folds and initialises the weights.",
        f"The standard error is over the {len(results)} runs, which share rows.",
        f"The model is evaluated at its last step ({span}), so the validation fold selects nothing.",
        f"Mean {main} of the best checkpoints: {bests.mean():.4f}.",
    ]
    text = fold_markdown(table, notes, command)
    write_report(table, text, folder, "table")
    if TEACHER not in runs:
        return text, {"table": table}
    distilled = replace(methods[MODEL], name="distilled")
    named = {
        STUDENT_ALONE: folders[STUDENT_ALONE],
        "distilled": folders[MODEL],
        TEACHER: folders[TEACHER],
    }
    subject = subject_of(named, metric, STUDENT_ALONE)
    compared = [methods[STUDENT_ALONE], distilled, methods[TEACHER]]
    comparison = compare(metric, compared, STUDENT_ALONE, subject=subject)
    verdicts = markdown(comparison, command, TEACHER)
    write_report(comparison, verdicts, folder, "comparison")
    return f"{text}\n\n{verdicts}", {"table": table, "comparison": comparison}
