"""Restores a trained model from a checkpoint and the `inference/` folder of its run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from mlxlab.checkpoint.arrays import check_arrays
from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.resume import load_named
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.check import read_stored_config
from mlxlab.config.instantiate import import_target
from mlxlab.data.batch import Task
from mlxlab.data.dataset import Encoder, RestoresEncoder
from mlxlab.errors import CheckpointUnavailableError, DataError, InputNotFoundError
from mlxlab.inference.ensemble import FILE, find_run_dir, read_ensemble
from mlxlab.models.build import build_model
from mlxlab.models.ensemble import Ensemble
from mlxlab.models.model import PROJECTIONS, Model


@dataclass(frozen=True)
class RestoredModel:
    """A model in evaluation mode, the encoder of its inputs, and the config it was trained with.

    The encoder is a `TextEncoder` (language model), a `PassengerEncoder` (Titanic) or that of another data set class.
    """

    model: Model
    encoder: Encoder
    config: dict[str, Any]
    checkpoint: Checkpoint
    config_dir: Path  # the `inference` folder: config.yaml, tokenizer.json, data.json


def restore_model(folder: Path, checkpoint: str = "best") -> RestoredModel:
    """Restores the model of a run.

    Args:
        folder: the run folder, or its `inference` folder alone; or that of an ensemble.
        checkpoint: its name, as in `load_named`.

    Raises:
        InputNotFoundError: the folder holds no run.
        CheckpointUnavailableError: no checkpoint is usable.
        DataError: a file is damaged.
    """
    if (folder / FILE).is_file():
        return _restore_ensemble(folder)
    config_dir = folder / "inference" if (folder / "inference").is_dir() else folder
    if not (config_dir / "config.yaml").is_file():
        if (folder / "restore").is_dir():
            raise CheckpointUnavailableError(f"{folder}: run folder of format 1, expected format 2")
        raise InputNotFoundError(f"{folder}: expected a run folder; inference/config.yaml not found")
    config = read_stored_config(config_dir / "config.yaml")
    encoder = restore_encoder(config, config_dir)
    # The checkpoint replaces pretrained weights; their config.json, which the run copied, defines the architecture.
    node = config["model"] | ({"pretrained": str(config_dir)} if config["model"].get("pretrained") else {})
    task = encoder.task
    sizes = {"num_classes": task.num_classes, "vocab_size": encoder.tokenizer.vocab_size}
    model = build_model(node, kind=task.kind, **sizes, load_pretrained=False)
    loaded = load_named(checkpoint, folder)
    weights = {name: leaf for name, leaf in loaded.weights.items() if not name.startswith(f"{PROJECTIONS}.")}
    try:
        check_arrays(weights, dict(tree_flatten(model.parameters())), "model")
    except CorruptCheckpointError as error:
        raise CheckpointUnavailableError(f"{loaded.path}: {error}") from None
    model.load_weights(list(weights.items()))
    model.eval()
    return RestoredModel(model, encoder, config, loaded, config_dir)


def restore_from(path: Path) -> RestoredModel:
    """Restores the best model of a run folder, a checkpoint of it, or an ensemble.

    Raises:
        InputNotFoundError: the path is none of these; others as `restore_model`.
    """
    run = find_run_dir(path)
    if run is None:
        raise InputNotFoundError(f"{path}: no run folder, checkpoint or ensemble")
    return restore_model(run, "best" if path.absolute() == run else str(path))


def _restore_ensemble(folder: Path) -> RestoredModel:
    """The ensemble of a folder as one model, with the encoder of its first member.

    Raises:
        DataError: `ensemble.json` is damaged, or the members differ in tokenizer or task.
    """
    members, combine = read_ensemble(folder)
    restored = [restore_from(member) for member in members]
    first = restored[0]
    for member, other in zip(members, restored, strict=True):
        if _interface(other) != _interface(first):
            raise DataError(f"{folder / FILE}: expected one tokenizer and task, {member} differs from {members[0]}")
    return replace(first, model=Ensemble([member.model for member in restored], mean=combine))  # type: ignore[arg-type]


def _interface(restored: RestoredModel) -> tuple[str, Task]:
    return restored.encoder.tokenizer.fingerprint, restored.encoder.task


def restore_encoder(config: dict[str, Any], inference_dir: Path) -> Encoder:
    """The encoder that the data set of a run saved, restored by the class of that data set.

    Raises:
        NotAllowedError: the config names a class that is not on the list of allowed targets; it is not imported.
        InputNotFoundError, DataError: a file is missing or damaged.
    """
    target = config["data"]["_target_"]
    dataset = import_target(target)
    if not isinstance(dataset, RestoresEncoder):
        raise DataError(f"{inference_dir / 'config.yaml'}: data._target_={target}: expected a data set class")
    return dataset.restore_encoder(inference_dir)
