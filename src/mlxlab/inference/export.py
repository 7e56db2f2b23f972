"""Exports trained models: folders that are read like those of a run, with one checkpoint and no optimizer."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import yaml

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.checkpoint.names import FOLDER
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.errors import ConfigError, WriteError
from mlxlab.files.atomic import new_folder, refuse_existing, write_atomic
from mlxlab.inference.restore import ENSEMBLE_FILE, RestoredModel, restore_model, stored_config_dir
from mlxlab.tracking.mlflow.download import is_mlflow_uri


def restore_single(run: Path, checkpoint: str) -> RestoredModel:
    """The model to export; raises as `restore_model`, and ConfigError for an ensemble."""
    if (run / ENSEMBLE_FILE).is_file():
        raise ConfigError(f"run={run}: expected one model, got an ensemble; export its members")
    return restore_model(run, checkpoint)


def check_output(run: Path, out: Path) -> None:
    """Refuses a folder without a run, then an `out` that exists or lies in a folder of the run.

    Raises:
        InputNotFoundError: there is no run. CannotCreateError: `out` exists. ConfigError: it lies in the run.
    """
    if not (is_mlflow_uri(str(run)) or (run / ENSEMBLE_FILE).is_file()):
        stored_config_dir(run)
    refuse_existing(out)
    folder = out.parent.resolve()
    if folder != run.resolve() and folder.is_relative_to(run.resolve()):
        raise ConfigError(
            f"out={out}: lies in {out.parent}, a folder of the run; expected {run / out.name}"
        )


def merge_adapters(run: Path, out: Path, checkpoint: str = "best") -> RestoredModel:
    """Writes the model of a run with its adapters folded in, in full precision; returns it as it is in the run.

    Raises:
        ConfigError: it has no adapters, or `out` lies in a folder of the run. CannotCreateError: `out` exists.
        WriteError: it cannot be written.
        InputNotFoundError, CheckpointUnavailableError, DataError, NotAllowedError: see `restore_model`.
    """
    from mlxlab.models.adapters.merge import merged_node, merged_parameters

    check_output(run, out)
    restored = restore_single(run, checkpoint)
    node = restored.checkpoint.state["architecture"]
    if not node.get("adapter"):
        raise ConfigError(f"run={run}: its model has no adapters to merge")
    write_export(out, restored, merged_parameters(restored.model), merged_node(node))
    return restored


def write_export(
    out: Path,
    restored: RestoredModel,
    weights: Arrays,
    node: dict[str, Any],
    files: Mapping[str, str] | None = None,
) -> None:
    """Writes a folder with the `inference` files of a run and a checkpoint of these weights, as a whole or not at all.

    Args:
        out: the folder; it must not exist.
        node: the `model` node of the weights.
        files: further files, text by name.

    Raises:
        CannotCreateError: `out` exists. WriteError: it cannot be written.
    """
    config = {**restored.config, "model": node}
    saved = restored.checkpoint.state
    metadata = {
        **saved["metadata"],
        "config": config,
        "uid": "",
    }
    try:
        with new_folder(out) as folder:
            shutil.copytree(restored.config_dir, folder / "inference")
            write_atomic(
                folder / "inference" / "config.yaml", yaml.safe_dump(config, sort_keys=False)
            )
            for name, text in (files or {}).items():
                write_atomic(folder / name, text)
            state: Any = {**saved, "architecture": node, "metadata": metadata}
            mx.eval(weights)
            step = restored.checkpoint.step
            CheckpointStore(folder / FOLDER).save(step, weights, {}, state, best_step=step)
    except (OSError, RuntimeError) as error:  # MLX has no exception of its own for a full disk
        raise WriteError(
            f"out={out}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}"
        ) from None
