"""Restores trained models: from a checkpoint and the `inference/` folder of its run, or the members of an ensemble."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypedDict

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.store import Checkpoint, check_arrays, load_named
from mlxlab.config.admission import admitted_config
from mlxlab.config.check import check_stored_model, read_stored_config
from mlxlab.config.instantiate import import_target
from mlxlab.config.paths import project_root
from mlxlab.data.batch import Task
from mlxlab.data.dataset import Encoder
from mlxlab.errors import CheckpointUnavailableError, ConfigError, DataError, InputNotFoundError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json, refuse_links
from mlxlab.models.build import build_model
from mlxlab.models.cells import FOLDER, holds_cells
from mlxlab.models.ensemble import Ensemble, EnsembleMean
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model
from mlxlab.models.sentence_encoder import SentenceEncoder
from mlxlab.schema.constraints import Probability
from mlxlab.terminal.nearest import no_such_folder
from mlxlab.tracking.mlflow.download import download_model, is_mlflow_uri

logger = logging.getLogger(__name__)
ENSEMBLE_FILE = "ensemble.json"
THRESHOLDS_FILE = "thresholds.json"


class EnsembleFile(TypedDict):
    """The contents of `ensemble.json`."""

    format: Literal[1]
    members: list[str]  # run folders or checkpoints, relative to the file's folder or absolute
    combine: EnsembleMean


@dataclass(frozen=True)
class RestoredModel:
    """A model in evaluation mode, the encoder of its inputs, and the config it was trained with.

    The encoder is a `RowEncoder` (labelled rows), a `TextEncoder` (language model) or that of another data set class.
    """

    model: Model
    encoder: Encoder
    config: dict[str, Any]
    checkpoint: Checkpoint
    config_dir: Path  # the `inference` folder: config.yaml, tokenizer.json, data.json
    thresholds: tuple[float, ...] = ()  # probability from which each of `task.decided_labels` holds


def restore_model(folder: Path, checkpoint: str = "best") -> RestoredModel:
    """Restores the model of a run.

    Args:
        folder: the run folder, or its `inference` folder alone; or that of an ensemble; or a model of the store of
            MLFLOW_TRACKING_URI (`models:/<name>@<alias>`), which is downloaded.
        checkpoint: its name, as in `load_named`.

    Raises:
        InputNotFoundError: the folder holds no run.
        CheckpointUnavailableError: no checkpoint is usable.
        DataError: a file is damaged, or the members of an ensemble differ in tokenizer, texts or task.
        NotAllowedError: the config names a class that is not on the list of allowed targets; it is not imported.
        ServiceUnavailableError, ConfigError: the store cannot be used; another checkpoint than the model's is named.
    """
    if is_mlflow_uri(str(folder)):
        if checkpoint != "best":
            raise ConfigError(f"checkpoint={checkpoint}: {folder} is one checkpoint")
        path = download_model(str(folder), None, project_root(), project_root() / ".cache")
        folder = path.parent
        checkpoint = str(path)
    refuse_links(folder)
    if (folder / ENSEMBLE_FILE).is_file():
        return _restore_ensemble(folder)
    config_dir = stored_config_dir(folder)
    loaded = load_named(checkpoint, folder)
    config, encoder = restore_encoder(config_dir)
    if loaded.skipped:
        logger.warning(f"uses {loaded.path.name}; skipped {'; '.join(loaded.skipped)}")
    vocab_size = loaded.state["vocab_size"]
    task = encoder.task
    if vocab_size < encoder.tokenizer.vocab_size:
        expected = f"at least the {encoder.tokenizer.vocab_size} tokens of the tokenizer"
        raise DataError(f"{loaded.path}: expected {expected}, the model has {vocab_size}")
    model = build_model(
        check_stored_model(loaded.state["architecture"], config, str(loaded.path)),
        kind=task.kind,
        vocab_size=vocab_size,
        num_classes=task.num_classes,
        pair_separator=task.pair_separator,
        load_pretrained=False,
    )
    _refuse_long_rows(model, encoder, config_dir)
    try:
        check_arrays(loaded.weights, named_parameters(model), "model")
    except CorruptCheckpointError as error:
        raise CheckpointUnavailableError(f"{loaded.path}: {error}") from None
    model.load_weights(list(loaded.weights.items()))
    model.eval()
    return RestoredModel(
        model, encoder, config, loaded, config_dir, _read_thresholds(config_dir, task)
    )


def stored_config_dir(folder: Path) -> Path:
    """The folder of the config of a run, which may be that folder itself; InputNotFoundError if it holds none."""
    config_dir = template_folder(folder)
    if not folder.is_dir():
        raise InputNotFoundError(no_such_folder(folder, "a run folder"))
    if not (config_dir / "config.yaml").is_file():
        raise InputNotFoundError(
            f"{folder}: expected a run folder; inference/config.yaml not found"
        )
    return config_dir


def restore_encoder(config_dir: Path) -> tuple[dict[str, Any], Encoder]:
    """The config of a run and the encoder of its inputs, from its `inference` folder; raises as `restore_model`."""
    config = admitted_config(read_stored_config(config_dir / "config.yaml"))
    target = config["data"]["_target_"]
    dataset = import_target(target)
    if not hasattr(dataset, "restore_encoder"):
        raise DataError(
            f"{config_dir / 'config.yaml'}: data._target_={target}: expected a data set class"
        )
    if not holds_cells(config_dir):
        return config, dataset.restore_encoder(config_dir)
    from mlxlab.models.cells.inputs import restore_cells

    encoder = restore_cells(config_dir)
    if encoder.reads_vectors:
        encoder = encoder.with_embedder(SentenceEncoder(config_dir / FOLDER))
    return config, encoder


def _refuse_long_rows(model: Model, encoder: Encoder, path: Path) -> None:
    """DataError if the encoder makes rows that the model has no positions for: MLX has no bounds checks."""
    limit = model.backbone.position_limit
    seq_len = getattr(encoder, "seq_len", 0)
    if limit is not None and seq_len > limit:
        raise DataError(
            f"{path}: rows of {seq_len} tokens, but the model has positions for {limit}"
        )


def _read_thresholds(config_dir: Path, task: Task) -> tuple[float, ...]:
    """Thresholds of labels that the run chose on its validation rows, or 0.5; empty if the most probable class counts."""
    labels = task.decided_labels
    if not labels:
        return ()
    chosen: dict[str, Probability] = {}
    with suppress(InputNotFoundError):
        chosen = read_json(config_dir / THRESHOLDS_FILE, dict[str, Probability])
    if unknown := sorted(chosen.keys() - set(labels)):
        raise DataError(f"{config_dir / THRESHOLDS_FILE}: unknown label {unknown[0]!r}")
    if not chosen and task.kind == "classification":
        return ()
    return tuple(chosen.get(name, 0.5) for name in labels)


def restore_from(path: Path) -> RestoredModel:
    """Restores the best model of a run folder, a checkpoint of it, or an ensemble; raises as `restore_model`."""
    run = find_run_dir(path)
    if run is None:
        raise InputNotFoundError(f"{path}: no run folder, checkpoint or ensemble")
    return restore_model(run, "best" if path.absolute() == run else str(path))


def _restore_ensemble(folder: Path) -> RestoredModel:
    from mlxlab.data.labelled.inputs import same_texts

    members, mean = _read_ensemble(folder)
    restored = [restore_from(member) for member in members]
    first = restored[0].encoder
    for member, each in zip(members, restored, strict=True):
        encoder = each.encoder
        pair = f"{member} differs from {members[0]}"
        if (encoder.tokenizer.fingerprint, encoder.task) != (
            first.tokenizer.fingerprint,
            first.task,
        ):
            raise DataError(f"{folder / ENSEMBLE_FILE}: expected one tokenizer and task, {pair}")
        if not same_texts(encoder, first):
            raise DataError(f"{folder / ENSEMBLE_FILE}: expected the same texts of a row, {pair}")
    for each in restored:
        _refuse_long_rows(each.model, first, members[0])
    # A member whose most probable class counts has no thresholds, and neither has then the ensemble.
    every = [each.thresholds for each in restored]
    thresholds = tuple(map(fmean, zip(*every, strict=True))) if all(every) else ()
    ensemble: Any = Ensemble([each.model for each in restored], mean=mean, kind=first.task.kind)
    return replace(restored[0], model=ensemble, thresholds=thresholds)


def save_ensemble(folder: Path, members: Sequence[Path], mean: EnsembleMean = "logits") -> None:
    """Writes `ensemble.json`; members inside the folder are named relative to it."""
    names = [
        str(m.relative_to(folder) if m.is_relative_to(folder) else m.absolute()) for m in members
    ]
    write_json(folder / ENSEMBLE_FILE, {"format": 1, "members": names, "combine": mean})


def _read_ensemble(folder: Path) -> tuple[list[Path], EnsembleMean]:
    saved = read_json(folder / ENSEMBLE_FILE, EnsembleFile)
    if not saved["members"]:
        raise DataError(f"{folder / ENSEMBLE_FILE}: expected at least one member")
    members = [folder / name for name in saved["members"]]
    for run in filter(None, map(find_run_dir, members)):
        if (run / ENSEMBLE_FILE).is_file():
            raise DataError(
                f"{folder / ENSEMBLE_FILE}: expected runs as members, {run} is an ensemble"
            )
    return members, saved["combine"]


def find_run_dir(path: Path) -> Path | None:
    """The run folder, or folder of an ensemble, that a path is or lies in; None if there is none."""
    path = Path(os.path.expanduser(path)).absolute()
    for folder in (path, path.parent, path.parent.parent):
        if any(map(os.path.isfile, (folder / "inference" / "config.yaml", folder / ENSEMBLE_FILE))):
            return folder
    return None


def template_folder(path: Path) -> Path:
    """The folder of the chat template of a run, of its `inference` folder alone, or of a pretrained model."""
    return path / "inference" if (path / "inference").is_dir() else path


def config_dir_of(run: Path) -> Path:
    """The `inference` folder of a run, or of the first member of an ensemble."""
    if not (run / ENSEMBLE_FILE).is_file():
        return run / "inference"
    first = find_run_dir(_read_ensemble(run)[0][0])
    return config_dir_of(first or run / "missing")
