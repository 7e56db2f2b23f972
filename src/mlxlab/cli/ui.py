"""Serves the user interface of MLflow for the central store, on this machine only, until Ctrl-C.

    mlxlab ui [RUN] [port=5000]

RUN is the beginning of a run's id, its name, or its folder: its page is printed instead of the first one.
"""

import os
import sys
from typing import Annotated

from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Ge, Le
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.store import SETTINGS, check_exists, repair_locations

HOST = "127.0.0.1"
Port = Annotated[int, Ge(1), Le(65535)]


def ui(run: str | None = None, port: Port = 5000, uri: str | None = None) -> None:
    """Becomes the server of MLflow.

    Args:
        run: whose page is printed.
        port: of 127.0.0.1.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    address = resolve(uri, None, project_root())
    if address.uri.startswith(("http", "databricks")):
        raise ConfigError(f"{address.shown}: a server, which has a user interface of its own")
    check_exists(address)
    repair_locations(address)
    url = f"http://{HOST}:{port}"
    if run is not None:
        from mlxlab.past_runs.lookup import find_run, open_reader

        row = find_run(open_reader(uri), run)
        url += f"/#/experiments/{row.experiment_id}/runs/{row.run_id}"
    # MLflow's own patterns, such as 192.168.*, also match names that an attacker registers.
    hosts = {"MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port},localhost:{port}"}
    variables = {
        "MLFLOW_BACKEND_STORE_URI": address.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if address.artifacts:
        variables["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = address.artifacts
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    print(f"{url}  (Ctrl-C ends it)", flush=True)
    os.execve(command[0], [*command, "--workers", "1"], hosts | os.environ | SETTINGS | variables)
