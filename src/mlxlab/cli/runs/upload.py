"""`mlxlab runs sync`: uploads runs that are not in the store yet."""

from pathlib import Path

from mlxlab.config.paths import project_root
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.flush import check_store, flush


def sync(uri: str | None = None, artifacts: str | None = None, *, args: list[str]) -> None:
    """Uploads runs.

    Args:
        uri: the store to upload to, instead of MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        artifacts: where the store keeps artifacts, instead of MLFLOW_ARTIFACT_ROOT.
    """
    address, folders = resolve(uri, artifacts, project_root()), [Path(arg).absolute() for arg in args]
    for folder in folders if uri is None else ():
        check_store(folder, address)
    for line in flush(address, folders):
        print(line, flush=True)
