"""Builds the data set of a config for its model, and checks one of the user's own."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import mlx.nn as nn
import numpy as np

from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch, BatchIterator, check_ids
from mlxlab.data.dataset import AUTO_EPOCHS, DataModule, LabelledRows, RunLength
from mlxlab.errors import ConfigError, DataError
from mlxlab.models import build
from mlxlab.models.cells import FOLDER
from mlxlab.models.model import count_parameters
from mlxlab.models.pretrained.load import MLX_LM, resolve
from mlxlab.models.sentence_encoder import SentenceEncoder
from mlxlab.models.zoo.architectures import check_keys
from mlxlab.schema.metric_names import BY_TASK, VALID
from mlxlab.terminal.wording import counted, one_of
from mlxlab.training.metrics.labelled import labelled_metrics

TYPE_NAMES = {"iu": "integers", "iub": "integers or booleans", "f": "floats"}

Config = dict[str, Any]  # a composed and checked config, resolved


def build_data(
    cfg: Config, project: Path, tokenizer: Path | None, folder: Path, restored: Path | None = None
) -> DataModule:
    """Builds the data set of a config for its model, with the tokenizer in the folder `tokenizer`; None trains one.

    `restored` is the `inference` folder of the run that is resumed or evaluated.

    Raises:
        ConfigError: the objective or the metric of a registration is not one of this task, or the data set lacks a
            member of `DataModule`.
    """
    limits = RunLength(*(cfg["trainer"][key] for key in RunLength._fields))
    if cfg["trainer"]["epochs"] == "auto":
        limits = limits._replace(epochs=AUTO_EPOCHS)
    if cfg["model"]["_target_"] == MLX_LM and isinstance(cfg["model"].get("config"), dict):
        check_keys(cfg["model"]["config"], "model.config")
    # An outline: its arrays are never evaluated.
    backbone = build.build_backbone(cfg["model"], vocab_size=1)
    read_cells = None
    if hasattr(backbone, "reads_cells"):
        from mlxlab.models.cells.inputs import CellInputs

        embedder = load_embedder(cfg["model"], restored)
        folds = getattr(backbone, "folds", 1)
        if folds > 1 and "distillation" in cfg["trainer"]:
            raise ConfigError(f"model.folds={folds}: expected 1 with trainer=distill")
        read_cells = partial(CellInputs, folds=folds, embedder=embedder)
    dataset = instantiate(
        cfg["data"],
        seed=cfg["seed"],
        cache=project / ".cache",
        pretrained=tokenizer,
        masked=not backbone.causal,
        one_document=not backbone.separates_documents,
        width=backbone.hidden_size,
        positions=backbone.position_limit,
        read_cells=read_cells,
        parameters=count_parameters(cast(nn.Module, backbone)) - backbone.embedding.weight.size,
        folder=folder,
        restored=restored,
        run_length=limits,
    )
    data = check_data_module(dataset)
    metrics = BY_TASK[data.task.kind]
    if cfg["objective"] not in metrics:
        raise ConfigError(
            f"objective={cfg['objective']}: not measured on this data; expected {one_of(metrics)}"
        )
    _refuse_undefined(cfg["objective"], data)
    return data


def load_embedder(node: Config, restored: Path | None) -> SentenceEncoder | None:
    """The pretrained encoder of the texts among cells: that of the restored run, or of a new one that the config names.

    Raises ConfigError for a GGUF file, which holds no encoder.
    """
    name = node.get("pretrained")
    if name is None:
        return None
    if restored is not None:
        own = restored / FOLDER
        return SentenceEncoder(own) if own.is_dir() else None
    path = resolve(name)
    if path.suffix == ".gguf":
        raise ConfigError(
            f"model.pretrained={name}: model=tabular expects the folder of an encoder"
        )
    return SentenceEncoder(path)


def _refuse_undefined(objective: str, data: DataModule) -> None:
    """DataError for an objective that has no value on the validation rows, whatever a model predicts."""
    if not isinstance(data, LabelledRows):
        return
    targets = data.valid_targets
    outputs = np.full((len(targets), data.task.num_classes), 1 / data.task.num_classes)
    if data.task.kind == "regression":
        outputs = outputs[:, 0]
    value = labelled_metrics(data.task, outputs, targets).get(objective.removeprefix(VALID), 0.0)
    if np.isnan(value):
        different = counted(len(np.unique(targets, axis=0)), "different label")
        rows = counted(len(targets), "validation row")
        raise DataError(f"objective={objective}: undefined on {rows} with {different}")


def longest_row(data: object, node: Mapping[str, Any]) -> int:
    """The tokens that a row of a data set has at most, if not by its config then by its encoder; 0 without a limit."""
    seq_len: int | None = node.get("seq_len")
    if seq_len is None:
        seq_len = getattr(getattr(data, "encoder", None), "seq_len", None)
    return seq_len or 0


def check_data_module(data: object) -> DataModule:
    """`data`, or a ConfigError with what it lacks of `DataModule`, or what is wrong with its first validation rows.

    Only a data set of the user's own is asked for rows: those of mlxlab are tested.
    """
    _refuse_missing(data, DataModule)
    module = cast(DataModule, data)
    _refuse_missing(module.train, BatchIterator)
    if not type(data).__module__.startswith("mlxlab."):
        batch = next(iter(module.valid), None)
        if batch is not None:
            _check_batch(batch, module, type(data).__qualname__)
    return module


def _check_batch(batch: Batch, data: DataModule, name: str) -> None:
    """Raises ConfigError for an array of another type or shape than `Batch` has for the task, with both."""
    shape = np.asarray(batch.tokens).shape
    rows = shape[:1]
    by_token = rows + shape[-1:]
    shapes = {"multi_label": (*rows, data.task.num_classes), "language_modelling": by_token}
    target_shape = shapes.get(data.task.kind, rows)
    is_class = data.task.kind in ("classification", "language_modelling")
    expected = {
        "tokens": ("iu", by_token),
        "segment_ids": ("iub", by_token),
        "targets": ("iu" if is_class else "f", target_shape),
        "loss_weights": ("f", target_shape),
        "example_ids": ("iu", rows),
    }
    for field, (kinds, shape) in expected.items():
        array = np.asarray(getattr(batch, field))
        if array.dtype.kind not in kinds or array.shape != shape:
            got = f"got {array.dtype} of shape {array.shape}"
            wanted = f"expected {TYPE_NAMES[kinds]} of shape {shape}"
            raise ConfigError(f"{name}: valid: {field}: {wanted}, {got}")
    check_ids(batch, data.tokenizer.vocab_size, data.task.num_classes)


def _refuse_missing(candidate: object, protocol: type) -> None:
    missing = [name for name in vars(protocol) if name[0] != "_" and not hasattr(candidate, name)]
    if missing:
        lacks = f"lacks {', '.join(missing)} of {protocol.__module__}.{protocol.__name__}"
        raise ConfigError(f"{type(candidate).__qualname__}: {lacks}")
