"""Writes the report of a run, sweep, comparison or trial as one HTML file.

    mlxlab report FOLDER [out=FILE] [--open]

A run writes its report.html itself when it ends, and a sweep too. This command is for older ones, for those that were
killed, and for folders of comparisons, cross-validations and trials. The file needs no network and no other file.
"""

import webbrowser
from pathlib import Path

from mlxlab.cli.print_json import print_result
from mlxlab.program import display_path


def report(folder: Path, out: Path | None = None, open: bool = False, json: bool = False) -> None:
    """Writes a report.

    Args:
        folder: of a run, a sweep, a comparison, a cross-validation or a trial.
        out: the file; report.html in the folder if not given.
        open: opens it in the browser.
        json: prints JSON.
    """
    from mlxlab.analysis.any_report import write_any_report

    paths = write_any_report(folder, out)
    print_result(
        {"reports": [str(path) for path in paths]},
        "\n".join(f"report: {display_path(path)}" for path in paths),
        json,
    )
    if open:
        for path in paths:
            webbrowser.open(path.absolute().as_uri())
