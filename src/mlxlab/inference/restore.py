"""Restores trained models: from a checkpoint and the `inference/` folder of its run, or the members of an ensemble."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.resume import check_arrays, load_named
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.check import read_stored_config
from mlxlab.config.instantiate import import_target
from mlxlab.data.dataset import Encoder, RestoresEncoder
from mlxlab.errors import CheckpointUnavailableError, DataError, InputNotFoundError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.models.build import build_model
from mlxlab.models.ensemble import Ensemble, EnsembleMean
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import PROJECTIONS, Model

ENSEMBLE_FILE = "ensemble.json"


class EnsembleFile(TypedDict):
    """The contents of `ensemble.json`."""

    format: Literal[1]
    members: list[str]  # run folders or checkpoints, relative to the file's folder or absolute
    combine: EnsembleMean


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
        DataError: a file is damaged, or the members of an ensemble differ in tokenizer or task.
        NotAllowedError: the config names a class that is not on the list of allowed targets; it is not imported.
    """
    if (folder / ENSEMBLE_FILE).is_file():
        return _restore_ensemble(folder)
    config_dir = folder / "inference" if (folder / "inference").is_dir() else folder
    if not (config_dir / "config.yaml").is_file():
        raise InputNotFoundError(f"{folder}: expected a run folder; inference/config.yaml not found")
    config = read_stored_config(config_dir / "config.yaml")
    target = config["data"]["_target_"]
    dataset = import_target(target)
    if not isinstance(dataset, RestoresEncoder):
        raise DataError(f"{config_dir / 'config.yaml'}: data._target_={target}: expected a data set class")
    encoder = dataset.restore_encoder(config_dir)
    # The checkpoint replaces pretrained weights; their config.json, which the run copied, defines the architecture.
    node = config["model"] | ({"pretrained": str(config_dir)} if config["model"].get("pretrained") else {})
    task = encoder.task
    sizes = {"num_classes": task.num_classes, "vocab_size": encoder.tokenizer.vocab_size}
    model = build_model(node, kind=task.kind, **sizes, load_pretrained=False)
    loaded = load_named(checkpoint, folder)
    weights = {name: leaf for name, leaf in loaded.weights.items() if not name.startswith(f"{PROJECTIONS}.")}
    try:
        check_arrays(weights, named_parameters(model), "model")
    except CorruptCheckpointError as error:
        raise CheckpointUnavailableError(f"{loaded.path}: {error}") from None
    model.load_weights(list(weights.items()))
    model.eval()
    return RestoredModel(model, encoder, config, loaded, config_dir)


def restore_from(path: Path) -> RestoredModel:
    """Restores the best model of a run folder, a checkpoint of it, or an ensemble; raises as `restore_model`."""
    run = find_run_dir(path)
    if run is None:
        raise InputNotFoundError(f"{path}: no run folder, checkpoint or ensemble")
    return restore_model(run, "best" if path.absolute() == run else str(path))


def _restore_ensemble(folder: Path) -> RestoredModel:
    members, mean = _read_ensemble(folder)
    restored = [restore_from(member) for member in members]
    first = restored[0].encoder
    for member, encoder in zip(members, (each.encoder for each in restored), strict=True):
        if (encoder.tokenizer.fingerprint, encoder.task) != (first.tokenizer.fingerprint, first.task):
            raise DataError(
                f"{folder / ENSEMBLE_FILE}: expected one tokenizer and task, {member} differs from {members[0]}"
            )
    return replace(restored[0], model=Ensemble([each.model for each in restored], mean=mean))  # type: ignore[arg-type]


def save_ensemble(folder: Path, members: Sequence[Path], mean: EnsembleMean = "logits") -> None:
    """Writes `ensemble.json`; members inside the folder are named relative to it."""
    names = [str(m.relative_to(folder) if m.is_relative_to(folder) else m.absolute()) for m in members]
    write_json(folder / ENSEMBLE_FILE, {"format": 1, "members": names, "combine": mean})


def _read_ensemble(folder: Path) -> tuple[list[Path], EnsembleMean]:
    saved = read_json(folder / ENSEMBLE_FILE, EnsembleFile)
    if not saved["members"]:
        raise DataError(f"{folder / ENSEMBLE_FILE}: expected at least one member")
    members = [folder / name for name in saved["members"]]
    for run in filter(None, map(find_run_dir, members)):
        if (run / ENSEMBLE_FILE).is_file():
            raise DataError(f"{folder / ENSEMBLE_FILE}: expected runs as members, {run} is an ensemble")
    return members, saved["combine"]


def find_run_dir(path: Path) -> Path | None:
    """The run folder, or folder of an ensemble, that a path is or lies in; None if there is none."""
    path = Path(os.path.expanduser(path)).absolute()
    for folder in (path, path.parent, path.parent.parent):
        if any(map(os.path.isfile, (folder / "inference" / "config.yaml", folder / ENSEMBLE_FILE))):
            return folder
    return None


def config_dir_of(run: Path) -> Path:
    """The `inference` folder of a run, or of the first member of an ensemble."""
    if not (run / ENSEMBLE_FILE).is_file():
        return run / "inference"
    first = find_run_dir(_read_ensemble(run)[0][0])
    return config_dir_of(first or run / "missing")
