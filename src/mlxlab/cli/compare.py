"""Compares methods over seeds and folds: who is better, and whether the difference is significant.

    mlxlab compare baseline=NAME NAME=FOLDER[,FOLDER ...] NAME=FOLDER ... [key=value ...]
    mlxlab compare sweep=FOLDER [metric=...] [out=FOLDER]

NAME=FOLDER is a method and its runs: run folders, or folders of them such as sweeps leave, and the `folder` of a
crossvalidate. Runs of the same seed and fold are pairs. The test is the paired t-test; for cross-validations with the
variance corrected for the rows that folds share (Nadeau and Bengio 2003). Intervals are 95 %.

With sweep= the report of a sweep is written again: docs/how_to/sweeps.md.

For single runs, without a test: `mlxlab runs compare RUN RUN` puts settings and metrics side by side, and `mlxlab runs
diff RUN RUN` prints what differs.

Examples
    mlxlab compare alone=outputs/alone distilled=outputs/distilled teacher=outputs/teacher baseline=alone
    mlxlab compare sweep=multirun/2026-11-23/09-00-00-4f2a
"""

import hashlib
import logging
import os
import re
from inspect import signature
from pathlib import Path

from mlxlab import terminal
from mlxlab.analysis.comparison import Comparison, Evaluation, compare
from mlxlab.analysis.comparison_report import as_json, markdown, write_report
from mlxlab.analysis.comparison_runs import (
    check_metric,
    find_runs,
    main_metric,
    method_results,
    metric_names,
)
from mlxlab.analysis.comparison_subject import subject_of
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.config.issues import one_line
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError, InputNotFoundError, WriteError
from mlxlab.files.untrusted import refuse_links
from mlxlab.nearest import did_you_mean, nearest
from mlxlab.program import display_path
from mlxlab.tracking.journal import Journal
from mlxlab.wording import one_of

log = logging.getLogger(__name__)


def _compare(
    baseline: str | None = None,
    sweep: Path | None = None,
    metric: str | None = None,
    relative_to: str | None = None,
    evaluation: Evaluation = "last",
    out: Path | None = None,
    experiment: str | None = None,
    json: bool = False,
    *,
    args: list[str],
    command_line: str,
) -> None:
    """Compares methods, or the configurations of a sweep.

    Args:
        baseline: the method that the others are compared with.
        sweep: folder of a sweep, of which report.html and the files of report/ are written.
        metric: of the evaluations; losses, errors, perplexity and bits per byte are better when lower. null is
            valid/accuracy, of runs without one their objective; of a sweep its objective, and others are of the best
            evaluations.
        relative_to: the method whose result is 100 %, a teacher for example.
        evaluation: the last one of a run, or its best one by its objective, which the validation rows have chosen: the
            one whose weights evaluate and predict use.
        out: folder for comparison.html, .md, .json, .png; null is one below outputs/comparisons, named by the methods
            and settings. Of the report of a sweep, null is its own folder.
        experiment: of MLflow, in which the comparison is recorded as a run of its own.
        json: prints JSON instead of a table.
    """
    if sweep is not None:
        _refuse_misspelt_sweep_options(args)
        if baseline or relative_to or experiment:
            raise ConfigError(f"sweep={sweep}: only with metric=, out= and json=; without methods")
        _report(sweep, metric, out or sweep, json)
        return
    _refuse_misspelt_options(args)
    if args and not any("=" in arg for arg in args):
        raise ConfigError(
            f"{args[0]}: expected NAME=FOLDER; mlxlab runs compare RUN RUN compares single runs"
        )
    folders = _folders(args, {"baseline": baseline, "relative_to": relative_to})
    if baseline is None:
        raise ConfigError(f"baseline=...: missing; expected {one_of(folders)}")
    runs = {name: _runs_of(name, paths) for name, paths in folders.items()}
    if metric:
        check_metric(
            metric,
            {name for paths in runs.values() for run in paths for name in metric_names(run)},
            "the runs",
        )
    metric = metric or main_metric(runs[baseline][0])
    methods = [method_results(name, paths, metric, evaluation) for name, paths in runs.items()]
    comparison = compare(metric, methods, baseline, evaluation, subject_of(runs, metric, baseline))
    text = markdown(comparison, command_line, relative_to)
    out = out or _default_folder(folders, [baseline, metric, evaluation, relative_to])
    try:
        files = write_report(comparison, text, out, "comparison")
        if experiment:
            tracker = Journal(
                None, None, experiment, False, 30.0, folder=out, project=project_root()
            )
            listed = {name: ",".join(map(str, paths)) for name, paths in folders.items()}
            params: dict[str, object] = {"methods": listed, "baseline": baseline, "metric": metric}
            _record(tracker, params, comparison, files)
    except OSError as error:
        raise WriteError(f"{out}: {error.strerror or error}") from None
    if json:
        print_json(as_json(comparison))
        log.info(f"report: {display_path(out / 'comparison.html')}")
    else:
        terminal.show(text)
        print(f"\nreport: {display_path(out / 'comparison.html')}")


def _record(
    tracker: Journal, params: dict[str, object], comparison: Comparison, files: list[Path]
) -> None:
    names = " vs ".join(method.name for method in comparison.methods)
    tracker.start(params, {"kind": "comparison"}, name=names)
    tracker.log_metrics(0, comparison.metrics())
    for file in files:
        tracker.log_artifact(file, "comparison")
    tracker.end("FINISHED")


def _default_folder(methods: dict[str, list[Path]], settings: list[str | None]) -> Path:
    """The folder of this comparison: another one for other runs or settings, the same when it is repeated."""
    paths = {name: [str(path.absolute()) for path in paths] for name, paths in methods.items()}
    digest = hashlib.sha256(repr((paths, settings)).encode()).hexdigest()[:8]
    name = re.sub(r"[^a-zA-Z0-9_]+", "-", "-vs-".join(methods)).strip("-")[:60]
    return project_root() / "outputs" / "comparisons" / f"{name}-{digest}"


def _report(folder: Path, metric: str | None, out: Path, json: bool) -> None:
    """Writes the report of a sweep, and prints its verdict."""
    from mlxlab.analysis.trial.record import FILE, read_record
    from mlxlab.sweep.reports.read_sweep import read_sweep
    from mlxlab.sweep.reports.sweep_report import write_sweep_report

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
        print("\n".join([*report.verdict, f"report: {display_path(report.page)}"]))


def _refuse_misspelt_options(args: list[str]) -> None:
    """Arguments that are named almost as an option, and are no folders or the only ones."""
    options = [
        name for name in signature(_compare).parameters if name not in ("args", "command_line")
    ]
    for arg in args:
        is_folder = all(
            os.path.exists(os.path.expanduser(path)) for path in arg.partition("=")[2].split(",")
        )
        meant = nearest(_key(arg), options)
        if meant and (not is_folder or len(args) < 2):
            raise ConfigError(f"{arg}: unknown option{did_you_mean(f'{meant}=')}")


def _runs_of(method: str, paths: list[Path]) -> list[Path]:
    try:
        return [run for path in paths for run in find_runs(path)]
    except InputNotFoundError as error:
        raise InputNotFoundError(f"{method}={error}") from None


def _refuse_misspelt_sweep_options(args: list[str]) -> None:
    if args:
        hint = did_you_mean(nearest(_key(args[0]), ("metric", "out", "json")))
        raise ConfigError(f"{args[0]}: sweep= takes only metric=, out= and json={hint}")


def _key(arg: str) -> str:
    return arg.lstrip("-").partition("=")[0]


def _folders(args: list[str], chosen: dict[str, str | None]) -> dict[str, list[Path]]:
    """The folders of each method; the values of `chosen` are names of methods."""
    folders: dict[str, list[Path]] = {}
    for arg in args:
        name, _, paths = arg.partition("=")
        if not paths or not name:
            raise ConfigError(f"{arg}: expected NAME=FOLDER")
        folders.setdefault(name, []).extend(
            Path(os.path.expanduser(path)) for path in paths.split(",")
        )
    if len(folders) < 2:
        got = f"; got {args[0]}" if args else ""
        raise ConfigError(f"expected two or more methods, each as NAME=FOLDER{got}")
    for key, value in chosen.items():
        if value is not None and value not in folders:
            near = did_you_mean(nearest(value, folders))
            raise ConfigError(f"{key}={value}: expected {one_of(folders)}{near}")
    return folders


main = build_main(__doc__, Subcommand(_compare, forward_prefix=""))
