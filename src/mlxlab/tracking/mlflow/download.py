"""Downloads models of a store, named by `models:/...` or `runs:/...`."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mlxlab.backend.detached import module_environment
from mlxlab.errors import (
    ConfigError,
    DataError,
    InputNotFoundError,
    ServiceUnavailableError,
    UserError,
)
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.store import open_existing
from mlxlab.tracking.one_line import mlflow_errors

MODULE = "mlxlab.tracking.mlflow.download"
SCHEMES = ("models:/", "runs:/")


def is_mlflow_uri(name: str) -> bool:
    return name.startswith(SCHEMES)


def download_model(name: str, uri: str | None, project: Path, cache: Path) -> Path:
    """The checkpoint folder of a logged or registered model; the `inference` folder of its run has the same parent.

    Downloads are cached by model id, so that an alias that is reassigned gives the new model.

    Its name is `models:/<name>/<version>`, `models:/<name>@<alias>`, `models:/<model id>` or `runs:/<run id>/best`.

    Raises:
        ServiceUnavailableError: there is no store, or it cannot be reached.
        InputNotFoundError: it has no such model.
        DataError: the model was not logged by mlxlab.
    """
    address = resolve(uri, None, project)
    # This runs in a process of its own: training imports no MLflow, and MLflow takes the address from the environment.
    done = subprocess.run(
        [sys.executable, "-P", "-m", MODULE, name, str(cache / "models")],
        capture_output=True,
        text=True,
        env=module_environment() | {"MLFLOW_TRACKING_URI": address.uri},
    )
    if done.returncode:
        is_missing = done.returncode == ConfigError.exit_code
        kind = InputNotFoundError if is_missing else ServiceUnavailableError
        lines = done.stderr.splitlines() or ["no message"]
        raise kind(f"{name}: {lines[-1]}")
    folder = Path(done.stdout.strip())
    checkpoints = sorted(path.parent for path in folder.glob("**/artifacts/*/model.safetensors"))
    if not checkpoints or not (checkpoints[0].parent / "inference" / "config.yaml").is_file():
        raise DataError(f"{name}: expected a model that mlxlab logged")
    return checkpoints[0]


def _fetch(name: str, store: str, cache: Path) -> Path:
    """The folder of a model in the cache: the whole model, or nothing."""
    from mlflow.artifacts import download_artifacts
    from mlflow.models import get_model_info

    model_id = get_model_info(name).model_uuid
    folder = cache / hashlib.sha256(f"{store} {model_id}".encode()).hexdigest()[:32]
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            fetched = download_artifacts(artifact_uri=name, dst_path=temporary)
            os.rename(fetched, folder)
    return folder


def main() -> None:
    name, cache = sys.argv[1:]
    address = resolve(None, None, Path.cwd())
    try:
        open_existing(address)
        with mlflow_errors(address.shown):
            print(_fetch(name, address.shown, Path(cache)))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
