"""Serves the user interface of MLflow for the central store, on this machine only, until Ctrl-C.

    mlxlab ui [RUN] [port=5000]

RUN is the beginning of a run's id, its name, or its folder: its page is printed instead of the first one. Needs the
extra `ui`.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.config.paths import project_root
from mlxlab.errors import ServiceUnavailableError
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.ui import LOG, Port, run_page, serve_ui


def _serve(run: str | None = None, port: Port | None = None, uri: str | None = None) -> None:
    """Serves the user interface.

    Args:
        run: whose page is printed.
        port: of 127.0.0.1; a free one if not given.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    address, page = resolve(uri, None, project_root()), None
    if run is not None:
        from mlxlab.experiment.past_run.lookup import find_run, open_reader

        row = find_run(open_reader(uri), run)
        page = (row.experiment_id, row.run_id)
    try:
        with _stoppable(), serve_ui(address, port) as (url, process):
            print(f"{run_page(url, *page) if page else url}  (Ctrl-C ends it)", flush=True)
            code = process.wait()
            raise ServiceUnavailableError(
                f"the server ended with exit code {code}; see {address.queue / LOG}"
            )
    except KeyboardInterrupt:
        print("stopped", flush=True)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


main = build_main(__doc__, Subcommand(_serve), needs_args=False)
