"""Cross-validation: compares methods on the folds of every seed, of which each has a run folder."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from mlxlab.analysis.comparison import Comparison, MethodResults, compare
from mlxlab.analysis.comparison_report import comparison_lines, write_report
from mlxlab.analysis.comparison_runs import method_results, read_finished, run_key, subject_of
from mlxlab.errors import DataError, WriteError
from mlxlab.schema.metric_names import VALID
from mlxlab.terminal.wording import one_line
from mlxlab.views.run_view import RunView

MODEL = "this model"
TEACHER = "teacher"
STUDENT_ALONE = "student alone"
_OVERLAP = "scores on repeated rows are too optimistic; data.on_overlap=drop leaves them out"


def plan_folds(folder: Path, folds: int, seeds: int) -> list[Path]:
    """The run folders of all folds, seed by seed."""
    return [
        folder / f"seed-{number // folds}-fold-{number % folds}" for number in range(folds * seeds)
    ]


def write_tables(
    folders: Mapping[str, Sequence[Path]], folder: Path, command: str
) -> tuple[str, dict[str, Comparison]]:
    """Writes table.md, .json and .html: the model, its baselines and other methods on the same folds.

    With a teacher also comparison.md, .json and .html, of the student with and without it. Returns the Markdown, and
    the comparisons by the name of their files.
    """
    runs = {name: list(map(read_finished, paths)) for name, paths in folders.items()}
    comparisons = {"table": _compare_baselines(runs, command)}
    if TEACHER in runs:
        comparisons["comparison"] = _compare_students(runs, command)
    for name, comparison in comparisons.items():
        write_report(comparison, folder, name)
    return "\n\n".join(map(comparison_lines, comparisons.values())), comparisons


def _compare_baselines(runs: Mapping[str, Sequence[RunView]], command: str) -> Comparison:
    model = runs[MODEL]
    metric = _main_metric(model)
    name = metric.removeprefix(VALID)
    results = {run_key(run): run.results[0] for run in model}
    subject = subject_of({MODEL: model}, metric, model)
    baselines = []
    for baseline in subject.baselines:
        values = {key: result.baselines[baseline].get(name) for key, result in results.items()}
        baselines.append(MethodResults(baseline, values))
    # Without the speed a repeated cross-validation has the same table.
    methods = [
        replace(method_results(method, each, metric), speed=None) for method, each in runs.items()
    ]
    table = compare(metric, [*baselines, *methods], MODEL, subject=subject)
    notes = [
        f"{len(model)} runs: a seed shuffles the folds and initialises the weights.",
        "The standard error is over the runs, which share rows.",
        "The model is evaluated at its last step, so the validation fold selects nothing.",
    ]
    warnings = fold_warnings([*chain.from_iterable(runs.values())])
    return replace(table, judged=MODEL, warnings=warnings, notes=notes, command=command)


def _main_metric(runs: Sequence[RunView]) -> str:
    for run in runs:
        if not run.results or run.is_text:
            raise WriteError(f"{run.folder}: no metric to compare; expected a run on labelled data")
    names = {run.record.evaluation.main_metric for run in runs}
    if len(names) > 1:
        raise DataError(f"expected runs of one metric, got {', '.join(sorted(names))}")
    return f"{VALID}{names.pop()}"


def _compare_students(runs: Mapping[str, Sequence[RunView]], command: str) -> Comparison:
    """The student with and without its teacher."""
    metric = _main_metric(runs[MODEL])
    named = {STUDENT_ALONE: runs[STUDENT_ALONE], "distilled": runs[MODEL], TEACHER: runs[TEACHER]}
    methods = [method_results(name, each, metric) for name, each in named.items()]
    subject = subject_of(named, metric, runs[STUDENT_ALONE])
    comparison = compare(metric, methods, STUDENT_ALONE, subject=subject)
    return replace(comparison, judged="distilled", command=command)


def fold_warnings(runs: Sequence[RunView]) -> list[str]:
    """The warnings of runs, and how many of them have each; those that differ only in their numbers are one."""
    counts = Counter[str]()
    texts = dict[str, str]()
    for run in runs:
        known = {re.sub(r"\d+", "#", line): one_line(line, 300) for line in _warnings(run)}
        counts.update(known.keys())
        texts = known | texts
    return [f"{texts[key]} ({count} of {len(runs)} runs)" for key, count in counts.items()]


def _warnings(run: RunView) -> Iterator[str]:
    for each in run.record.data.overlaps or []:
        if not each.left_out:
            yield f"{each.rows}: {_OVERLAP}"
    for attempt in run.record.attempts:
        yield from attempt.warnings
