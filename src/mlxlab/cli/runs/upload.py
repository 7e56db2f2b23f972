"""`mlxlab runs sync`: uploads runs that are not in the store yet."""

from pathlib import Path
from typing import Any, Literal

from mlxlab.cli.print_json import print_json
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.errors import ConfigError, NotAllowedError, UserError
from mlxlab.files.untrusted import refuse_links
from mlxlab.tracking import upload
from mlxlab.tracking.destination import Destination
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.destination import mlflow_destination
from mlxlab.tracking.queue import Queue
from mlxlab.tracking.records import JOURNALS, read_first


def sync(
    *folders: str,
    uri: str | None = None,
    artifacts: str | None = None,
    to: Literal["mlflow", "wandb", "trackio"] = "mlflow",
    project: str = "mlxlab",
    space: str | None = None,
    json: bool = False,
) -> None:
    """Uploads runs.

    Args:
        uri: the store to upload to, instead of MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        artifacts: where the store keeps artifacts, instead of MLFLOW_ARTIFACT_ROOT.
        to: another service that the runs were recorded for, or that they are to be copied to.
        project: of that service.
        space: of Hugging Face, for Trackio; null records on this machine.
        json: prints JSON instead: a list of the lines.
    """
    paths = [Path(folder).absolute() for folder in folders]
    for path in paths:
        refuse_links(path)
    destination: Destination
    if to == "mlflow":
        mlflow = mlflow_destination(uri, artifacts, project_root())
        destination = mlflow
        if uri is None:
            for path in paths:
                check_store(path, mlflow)
    elif to == "wandb":
        destination = _service(to, {"project": project})
    else:
        destination = _service(to, {"project": project, "space": space})
    if to != "mlflow" and not paths:
        raise ConfigError(f"to={to}: expected run folders")
    lines = upload.sync(Queue(destination, project_root()), paths)
    if json:
        print_json(list(lines))
        return
    for line in lines:
        print(line, flush=True)


def check_store(folder: Path, address: Address) -> None:
    """Raises NotAllowedError if a run in `folder` was recorded for another store.

    A run folder may come from a stranger: the store it names is not used unless the user names it too.
    """
    for journal in sorted(folder.glob(JOURNALS)):
        try:
            start, _ = read_first(journal)
        except UserError:
            continue  # The upload reports it.
        if start["store"] is None:
            raise NotAllowedError(
                f"{journal}: not recorded for MLflow; name the service to upload it to: to=wandb or to=trackio"
            )
        if start["store"] != address.shown:
            raise NotAllowedError(
                f"{journal}: recorded for uri={start['store']}, got {address.shown}: name the store to upload it to: uri=...,"
                " and artifacts=... if it has a folder of its own"
            )


def _service(name: str, options: dict[str, str | bool | None]) -> Destination:
    from mlxlab.files.yaml_file import read_yaml  # slow to import

    node: Any = read_yaml(conf_dir() / "tracking" / f"{name}.yaml").values[name]
    service: Destination = instantiate(node | options)
    service.check()
    return service
