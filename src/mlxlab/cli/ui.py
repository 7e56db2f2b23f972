"""Serves the user interface of MLflow for the central store, on this machine only, until Ctrl-C.

    mlxlab ui [RUN] [port=5000]

RUN is the beginning of a run's id, its name, or its folder: its page is printed instead of the first one. Needs the
extra `ui`.
"""

import signal

from mlxlab.config.paths import project_root
from mlxlab.errors import ServiceUnavailableError
from mlxlab.program import on_signals
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.ui import Port, run_page, serve_ui


def ui(run: str | None = None, port: Port | None = None, uri: str | None = None) -> None:
    """Serves the user interface.

    Args:
        run: whose page is printed.
        port: of 127.0.0.1; a free one if not given.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    address = resolve(uri, None, project_root())
    row = None
    if run is not None:
        from mlxlab.experiment.past_run.lookup import find_run, open_reader

        row = find_run(open_reader(uri), run)
    try:
        with (
            on_signals((signal.SIGTERM, signal.SIGHUP), _interrupt),
            serve_ui(address, port) as (url, process),
        ):
            if row is not None:
                url = run_page(url, row.experiment_id, row.run_id)
            print(f"{url}  (Ctrl-C ends it)", flush=True)
            raise ServiceUnavailableError(f"the server ended with exit code {process.wait()}")
    except KeyboardInterrupt:
        print("stopped", flush=True)


def _interrupt(number: int) -> None:
    raise KeyboardInterrupt
