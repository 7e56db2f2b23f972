"""`mlxlab runs open`: the folder of a run, and its page in the user interface of MLflow."""

import os
import sys
import webbrowser

from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import project_root
from mlxlab.experiment.past_run.past_runs import PastRuns
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.ui import run_page, running_ui
from mlxlab.tracking.runs.reader import RunRow


def open_run(run: str, browser: bool = True, uri: str | None = None, json: bool = False) -> None:
    """Prints where a run is, and opens its page in a browser, if there is one.

    Args:
        run: the beginning of its id, its name, or its folder.
        browser: opens the page; never without a desktop.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead, and opens nothing.
    """
    row = PastRuns(uri).find(run)
    url = running_ui(resolve(uri, None, project_root())) if row.is_stored else None
    page = url and run_page(url, row.experiment_id, row.run_id)
    is_missing = row.folder is not None and not os.path.isdir(row.folder)
    if json:
        print_json(
            {"run_id": row.run_id, "folder": row.folder, "is_missing": is_missing, "page": page}
        )
        return
    print(f"folder: {row.folder or 'unknown'}{' (not found)' if is_missing else ''}")
    print(f"page: {page or _why_no_page(row)}")
    if page and browser and _has_desktop():
        webbrowser.open(page)


def _why_no_page(run: RunRow) -> str:
    if not run.is_stored:
        return "none; the run is not in the store"
    return f"not served; start it with mlxlab ui {run.short_id}"


def _has_desktop() -> bool:
    has_display = sys.platform == "darwin" or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return has_display and sys.stdout.isatty()
