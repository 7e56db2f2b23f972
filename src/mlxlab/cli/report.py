"""Writes the report of a run, sweep, comparison or trial as one HTML file.

    mlxlab report FOLDER [out=FOLDER] [metric=...] [--open]

A run writes its report.html itself when it ends, and a sweep too. This command is for older ones, for those that were
killed, for folders of comparisons, cross-validations and trials, and to rank a sweep by another metric, of which it
prints the verdict: docs/how_to/sweeps.md. A page needs no network and no other file.

Examples
    mlxlab report outputs/mine --open
    mlxlab report multirun/2026-11-23/09-00-00-4f2a metric=valid/accuracy out=outputs/by_accuracy
"""

import webbrowser
from pathlib import Path

from mlxlab.cli.print_json import print_result
from mlxlab.errors import InputNotFoundError
from mlxlab.files.untrusted import refuse_links
from mlxlab.program import display_path
from mlxlab.record.run_file import FILE

COMPARISONS = ("table", "comparison")  # names of their files: a cross-validation, and methods


def report(
    folder: Path,
    out: Path | None = None,
    metric: str | None = None,
    open: bool = False,
    json: bool = False,
) -> None:
    """Writes a report.

    Args:
        folder: of a run, a sweep, a comparison, a cross-validation or a trial.
        out: the folder for the report; null is its own.
        metric: of the best evaluation of each run of a sweep; null is the objective of the sweep.
        open: opens it in the browser.
        json: prints JSON.
    """
    refuse_links(folder)
    paths, verdict = _write(folder, out or folder, metric)
    lines = [*verdict, *(f"report: {display_path(path)}" for path in paths)]
    result = {"reports": [str(path) for path in paths], "verdict": verdict}
    print_result(result, "\n".join(lines), json)
    if open:
        for path in paths:
            webbrowser.open(path.absolute().as_uri())


def _write(folder: Path, out: Path, metric: str | None) -> tuple[list[Path], list[str]]:
    """Writes the pages of what the folder holds; returns their paths, and the verdict on a sweep."""
    from mlxlab.analysis.comparison_report import read_comparison_page
    from mlxlab.analysis.sweeps.read_sweep import read_sweep
    from mlxlab.analysis.sweeps.sweep_report import write_sweep_report
    from mlxlab.past_runs.collect_record import write_run_report
    from mlxlab.trial.record import FILE as TRIAL
    from mlxlab.trial.record import read_record
    from mlxlab.trial.view import trial_page
    from mlxlab.views.pages import REPORT, write_page

    if not folder.is_dir():
        raise InputNotFoundError(
            f"{folder}: not found; expected the folder of a run, sweep, comparison or trial"
        )
    names = [name for name in COMPARISONS if (folder / f"{name}.json").exists()]
    is_run = (folder / FILE).exists()
    is_trial = (folder / TRIAL).exists()
    if metric is not None or not (names or is_run or is_trial):
        sweep = write_sweep_report(read_sweep(folder, metric), out)
        return [sweep.page], sweep.verdict
    out.mkdir(parents=True, exist_ok=True)
    if is_run:
        return [write_run_report(folder, out / REPORT)], []
    if is_trial:
        return [write_page(out / REPORT, trial_page(read_record(folder), folder))], []
    pages = {out / f"{name}.html": read_comparison_page(folder, name) for name in names}
    return [write_page(path, page) for path, page in pages.items()], []
