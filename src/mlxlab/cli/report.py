"""Writes the report of a run or sweep as one HTML file.

    mlxlab report FOLDER [out=FOLDER] [metric=...] [--open]

Each of them writes its report.html itself when it ends. This command is for older ones, for those that were killed, and
to rank a sweep by another metric, of which it prints the verdict: docs/how_to/sweeps.md. A page needs no network and no
other file.

Examples
    mlxlab report outputs/mine --open
    mlxlab report multirun/2026-11-23/09-00-00-4f2a metric=valid/accuracy out=outputs/by_accuracy
"""

import webbrowser
from pathlib import Path

from mlxlab.cli.app import print_result
from mlxlab.errors import InputNotFoundError
from mlxlab.files.untrusted import refuse_links
from mlxlab.record.run_file import FILE
from mlxlab.terminal.program import display_path


def report(
    folder: Path,
    out: Path | None = None,
    metric: str | None = None,
    open: bool = False,
    json: bool = False,
) -> None:
    """Writes a report.

    Args:
        folder: of a run or a sweep.
        out: the folder for the report; null is its own.
        metric: of the best evaluation of each run of a sweep; null is the objective of the sweep.
        open: opens it in the browser.
        json: prints JSON.
    """
    refuse_links(folder)
    page, verdict = _write(folder, out or folder, metric)
    text = "\n".join([*verdict, f"report: {display_path(page)}"])
    print_result({"reports": [str(page)], "verdict": verdict}, text, json)
    if open:
        webbrowser.open(page.absolute().as_uri())


def _write(folder: Path, out: Path, metric: str | None) -> tuple[Path, list[str]]:
    """Writes the page of what the folder holds; returns its path, and the verdict on a sweep."""
    from mlxlab.analysis.sweeps.sweep_jobs import read_sweep
    from mlxlab.analysis.sweeps.sweep_report import write_sweep_report
    from mlxlab.past_runs.collect_record import write_run_report
    from mlxlab.views.pages import REPORT

    if not folder.is_dir():
        raise InputNotFoundError(f"{folder}: not found; expected the folder of a run or sweep")
    if metric is not None or not (folder / FILE).exists():
        sweep = write_sweep_report(read_sweep(folder, metric), out)
        return sweep.page, sweep.verdict
    out.mkdir(parents=True, exist_ok=True)
    return write_run_report(folder, out / REPORT), []
