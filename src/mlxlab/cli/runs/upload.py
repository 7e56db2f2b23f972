"""`mlxlab runs sync`: uploads runs that are not in the store yet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mlxlab.cli.print_json import print_json
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root, shipped_conf
from mlxlab.errors import ConfigError
from mlxlab.files.untrusted import refuse_links
from mlxlab.tracking.destination import TrackingService
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.flush import check_store, flush


def sync(
    uri: str | None = None,
    artifacts: str | None = None,
    register: bool = False,
    to: Literal["mlflow", "wandb", "trackio"] = "mlflow",
    project: str = "mlxlab",
    entity: str | None = None,
    mode: Literal["online", "offline"] | None = None,
    log_models: bool = False,
    space: str | None = None,
    json: bool = False,
    *,
    args: list[str],
) -> None:
    """Uploads runs.

    Args:
        uri: the store to upload to, instead of MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        artifacts: where the store keeps artifacts, instead of MLFLOW_ARTIFACT_ROOT.
        register: lets runs of the folders enter the model registry; runs that were started here do so anyway.
        to: another service that the runs were recorded for, or that they are to be copied to.
        project: of that service.
        entity: user or team of W&B; null takes WANDB_ENTITY, else the default of the account.
        mode: of W&B; null takes WANDB_MODE, else online.
        log_models: whether the best checkpoint is uploaded to W&B.
        space: of Hugging Face, for Trackio; null records on this machine.
        json: prints JSON instead: a list of the lines.
    """
    folders = [Path(arg).absolute() for arg in args]
    for folder in folders:
        refuse_links(folder)
    if to != "mlflow":
        options = (
            {"entity": entity, "mode": mode, "log_models": log_models}
            if to == "wandb"
            else {"space": space}
        )
        _print(_sync_to(to, {"project": project, **options}, folders), json)
        return
    address = resolve(uri, artifacts, project_root())
    for folder in folders if uri is None else ():
        check_store(folder, address)
    _print(flush(address, folders, registers=register), json)


def _print(lines: Iterator[str], json: bool) -> None:
    if json:
        print_json(list(lines))
        return
    for line in lines:
        print(line, flush=True)


def _sync_to(
    name: str, options: dict[str, str | bool | None], folders: list[Path]
) -> Iterator[str]:
    if not folders:
        raise ConfigError(f"to={name}: expected run folders")
    from mlxlab.config.hydra.yaml_limits import read_yaml  # slow to import

    node: Any = read_yaml(shipped_conf() / "tracking" / f"{name}.yaml").values[name]
    service: TrackingService = instantiate(node | options)
    service.check()
    for folder in folders:
        yield from service.upload(folder, project_root())
