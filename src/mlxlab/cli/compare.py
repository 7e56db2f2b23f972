"""Compares methods over seeds and folds: who is better, and whether the difference is significant.

    mlxlab compare NAME=FOLDER[,FOLDER ...] NAME=FOLDER ... [baseline=NAME] [key=value ...]

NAME=FOLDER is a method and its runs: run folders, or folders of them such as sweeps leave, and the `folder` of a
crossvalidate. Runs of the same seed and fold are pairs. The test is the paired t-test; for cross-validations with the
variance corrected for the rows that folds share (Nadeau and Bengio 2003). Intervals are 95 %.

For single runs, without a test: `mlxlab runs diff RUN RUN` prints what differs.

Examples
    mlxlab compare alone=outputs/alone distilled=outputs/distilled teacher=outputs/teacher baseline=alone
"""

import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

from mlxlab import terminal
from mlxlab.analysis.comparison import Evaluation
from mlxlab.analysis.comparison_report import comparison_lines, write_report
from mlxlab.analysis.comparison_runs import compare_folders, comparison_folder
from mlxlab.cli.app import print_json
from mlxlab.errors import ConfigError
from mlxlab.terminal import program
from mlxlab.terminal.nearest import did_you_mean, nearest
from mlxlab.terminal.wording import one_of

log = logging.getLogger(__name__)


def compare(
    *methods: str,
    baseline: str | None = None,
    metric: str | None = None,
    evaluation: Evaluation = "last",
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Compares methods.

    Args:
        baseline: the method that the others are compared with; null is the first one.
        metric: of the evaluations; losses, errors, perplexity and bits per byte are better when lower. null is
            valid/accuracy, of runs without one their objective.
        evaluation: the last one of a run, or its best one by its objective, which the validation rows have chosen: the
            one whose weights evaluate and predict use.
        out: folder for comparison.html, .md, .json; null is one below outputs/comparisons, named by the methods
            and settings.
        json: prints JSON instead of a table.
    """
    folders = _folders(methods)
    if baseline is None:
        baseline = next(iter(folders))
    if baseline not in folders:
        near = did_you_mean(nearest(baseline, folders))
        raise ConfigError(f"baseline={baseline}: expected {one_of(folders)}{near}")

    comparison = compare_folders(folders, metric, baseline, evaluation)
    comparison = replace(comparison, command=program.command_line())
    out = out or comparison_folder(folders, comparison)
    write_report(comparison, out, "comparison")
    report = f"report: {program.display_path(out / 'comparison.html')}"
    if json:
        print_json(asdict(comparison))
        log.info(report)
    else:
        terminal.show(comparison_lines(comparison))
        print(f"\n{report}")


def _folders(methods: tuple[str, ...]) -> dict[str, list[Path]]:
    """The folders of each method."""
    folders: dict[str, list[Path]] = {}
    for text in methods:
        name, _, paths = text.partition("=")
        if not paths or not name:
            raise ConfigError(
                f"{text}: expected NAME=FOLDER; mlxlab runs diff RUN RUN compares single runs"
            )
        own = folders.setdefault(name, [])
        own += [Path(os.path.expanduser(path)) for path in paths.split(",")]
    if len(folders) < 2:
        got = f"; got {methods[0]}" if methods else ""
        raise ConfigError(f"expected two or more methods, each as NAME=FOLDER{got}")
    return folders
