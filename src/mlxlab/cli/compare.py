"""Compares methods over seeds and folds: who is better, and whether the difference is significant.

    mlxlab compare NAME=FOLDER[,FOLDER ...] NAME=FOLDER ... [baseline=NAME] [key=value ...]
    mlxlab compare sweep=FOLDER [metric=...] [out=FOLDER]

NAME=FOLDER is a method and its runs: run folders, or folders of them such as sweeps leave, and the `folder` of a
crossvalidate. Runs of the same seed and fold are pairs. The test is the paired t-test; for cross-validations with the
variance corrected for the rows that folds share (Nadeau and Bengio 2003). Intervals are 95 %.

With sweep= the report of a sweep is written again: docs/how_to/sweeps.md.

For single runs, without a test: `mlxlab runs diff RUN RUN` prints what differs.

Examples
    mlxlab compare alone=outputs/alone distilled=outputs/distilled teacher=outputs/teacher baseline=alone
    mlxlab compare sweep=multirun/2026-11-23/09-00-00-4f2a
"""

import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

from mlxlab import program, terminal
from mlxlab.analysis.comparison import Evaluation
from mlxlab.analysis.comparison_report import comparison_lines, write_report
from mlxlab.analysis.comparison_runs import compare_folders, comparison_folder, record_comparison
from mlxlab.cli.print_json import print_json
from mlxlab.errors import ConfigError
from mlxlab.files.untrusted import refuse_links
from mlxlab.nearest import did_you_mean, nearest
from mlxlab.wording import one_line, one_of

log = logging.getLogger(__name__)


def compare(
    *methods: str,
    baseline: str | None = None,
    sweep: Path | None = None,
    metric: str | None = None,
    relative_to: str | None = None,
    evaluation: Evaluation = "last",
    out: Path | None = None,
    experiment: str | None = None,
    json: bool = False,
) -> None:
    """Compares methods, or the configurations of a sweep.

    Args:
        baseline: the method that the others are compared with; null is the first one.
        sweep: folder of a sweep, of which report.html and the files of report/ are written.
        metric: of the evaluations; losses, errors, perplexity and bits per byte are better when lower. null is
            valid/accuracy, of runs without one their objective; of a sweep its objective, and others are of the best
            evaluations.
        relative_to: the method whose result is 100 %, a teacher for example.
        evaluation: the last one of a run, or its best one by its objective, which the validation rows have chosen: the
            one whose weights evaluate and predict use.
        out: folder for comparison.html, .md, .json; null is one below outputs/comparisons, named by the methods
            and settings. Of the report of a sweep, null is its own folder.
        experiment: of MLflow, in which the comparison is recorded as a run of its own.
        json: prints JSON instead of a table.
    """
    if sweep is not None:
        if methods or baseline or relative_to or experiment:
            raise ConfigError(f"sweep={sweep}: only with metric=, out= and json=; without methods")
        _report(sweep, metric, out or sweep, json)
        return
    folders = _folders(methods)
    if baseline is None:
        baseline = next(iter(folders))
    for key, value in (("baseline", baseline), ("relative_to", relative_to)):
        if value is not None and value not in folders:
            near = did_you_mean(nearest(value, folders))
            raise ConfigError(f"{key}={value}: expected {one_of(folders)}{near}")

    comparison = compare_folders(folders, metric, baseline, evaluation)
    comparison = replace(comparison, whole=relative_to, command=program.command_line())
    out = out or comparison_folder(folders, comparison, relative_to)
    files = write_report(comparison, out, "comparison")
    if experiment:
        record_comparison(comparison, folders, files, out, experiment)
    report = f"report: {program.display_path(out / 'comparison.html')}"
    if json:
        print_json(asdict(comparison))
        log.info(report)
    else:
        terminal.show(comparison_lines(comparison))
        print(f"\n{report}")


def _report(folder: Path, metric: str | None, out: Path, json: bool) -> None:
    """Writes the report of a sweep, and prints its verdict."""
    from mlxlab.analysis.sweeps.read_sweep import read_sweep
    from mlxlab.analysis.sweeps.sweep_report import write_sweep_report
    from mlxlab.analysis.trial.record import FILE, read_record

    refuse_links(folder)
    if (folder / FILE).exists():
        command = one_line(read_record(folder)["command"], 500)
        raise ConfigError(
            f"sweep={folder}: a trial, not a sweep; its verdict is in {FILE} and is printed by {command}"
        )
    report = write_sweep_report(read_sweep(folder, metric), out)
    if json:
        print_json(report.summary)
    else:
        print("\n".join([*report.verdict, f"report: {program.display_path(report.page)}"]))


def _folders(methods: tuple[str, ...]) -> dict[str, list[Path]]:
    """The folders of each method."""
    if methods and not any("=" in text for text in methods):
        raise ConfigError(
            f"{methods[0]}: expected NAME=FOLDER; mlxlab runs diff RUN RUN compares single runs"
        )
    folders: dict[str, list[Path]] = {}
    for text in methods:
        name, _, paths = text.partition("=")
        if not paths or not name:
            raise ConfigError(f"{text}: expected NAME=FOLDER")
        folders.setdefault(name, [])
        folders[name] += [Path(os.path.expanduser(path)) for path in paths.split(",")]
    if len(folders) < 2:
        got = f"; got {methods[0]}" if methods else ""
        raise ConfigError(f"expected two or more methods, each as NAME=FOLDER{got}")
    return folders
