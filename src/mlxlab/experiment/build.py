"""Builds the data set, the model and the callbacks of a config, and writes what inference needs of them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import yaml

from mlxlab.cells.saved import FOLDER
from mlxlab.checkpoint.names import TOKENIZERS, inference_dir_of
from mlxlab.checkpoint.state import ChangedSettings
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.check import check_stored_model
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.data.batch import Batch, BatchIterator, check_ids
from mlxlab.data.dataset import (
    AUTO_EPOCHS,
    DataModule,
    HasEncoder,
    LabelledRows,
    LimitsLength,
    RunLength,
)
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.distillation.options import read_options
from mlxlab.dotted_keys import value_at
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.atomic import temporary_name, write_atomic
from mlxlab.metric_names import BY_TASK, VALID
from mlxlab.models import build
from mlxlab.models.build import Architecture
from mlxlab.models.model import Model, count_parameters
from mlxlab.models.options import split_node
from mlxlab.models.pretrained.load import MLX_LM, resolve
from mlxlab.models.sentence_encoder import SentenceEncoder
from mlxlab.models.zoo.arguments import check_keys
from mlxlab.nearest import suggestion
from mlxlab.training.callback import Callback
from mlxlab.training.metrics.labelled import labelled_metrics
from mlxlab.wording import counted, one_of

SETTINGS = {  # config key -> field of `ChangedSettings` that takes its place once an operation changed it
    "trainer.learning_rate": "learning_rate",
    "trainer.eval_every": "eval_every",
    "trainer.eval_batches": "eval_batches",
    "trainer.step.accumulate": "accumulate",
    "data.batch_size": "resizes",
}

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
    limits = limits._replace(epochs=AUTO_EPOCHS) if cfg["trainer"]["epochs"] == "auto" else limits
    if cfg["model"]["_target_"] == MLX_LM and isinstance(cfg["model"].get("config"), dict):
        check_keys(cfg["model"]["config"], "model.config")
    # An outline: its arrays are never evaluated.
    backbone = build.build_backbone(cfg["model"], vocab_size=1)
    read_cells = None
    if hasattr(backbone, "reads_cells"):
        from mlxlab.cells.inputs import CellInputs

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
    seq_len = node.get("seq_len")
    if seq_len is None and isinstance(data, HasEncoder) and isinstance(data.encoder, LimitsLength):
        return data.encoder.seq_len
    return seq_len or 0


def build_model(
    cfg: Config, data: DataModule, saved: Architecture | None = None, *, draw: bool = False
) -> Model:
    """Builds the model of a config with its initial weights, or one of a saved architecture, drawn if `draw`."""
    seed = model_seed(cfg)
    task = data.task
    architecture = saved or Architecture(model_node(cfg, data), data.tokenizer.vocab_size)
    mx.random.seed(seed)
    model = build.build_model(
        architecture.node,
        kind=task.kind,
        vocab_size=architecture.vocab_size,
        num_classes=task.num_classes,
        pair_separator=task.pair_separator,
        seed=None if saved and not draw else seed,
        load_pretrained=saved is None,
    )
    limit = model.backbone.position_limit
    seq_len = longest_row(data, cfg["data"])
    if limit is not None and seq_len > limit:
        raise ConfigError(f"data.seq_len={seq_len}: the model has positions for {limit} tokens")
    if saved is None or draw:
        mx.eval(model.parameters())
    options, _ = split_node(architecture.node)
    if options.quantization.bits is not None:
        from mlxlab.models.adapters.quantize import refuse_training

        refuse_training(options, model)
        mx.clear_cache()  # of the weights before they were quantised
    return model


def model_node(cfg: Config, data: DataModule) -> dict[str, Any]:
    """The `model` node with what the data decide: the columns of a table."""
    columns = getattr(data, "model_columns", None)
    return cfg["model"] if columns is None else {**cfg["model"], "columns": columns}


def saved_architecture(checkpoint: Checkpoint, *, is_checked: bool = False) -> Architecture:
    """The architecture of a checkpoint; DataError or NotAllowedError if it is not valid.

    Args:
        is_checked: its config was checked, and with it the model that the config names.
    """
    state = checkpoint.state
    node = state["architecture"]
    config = state["metadata"]["config"]
    if not is_checked or node != config["model"]:
        check_stored_model(node, config, str(checkpoint.path))
    return Architecture(node, state["vocab_size"])


def saved_tokenizer_dir(checkpoint: Checkpoint) -> Path:
    """The folder of the tokenizer with which a checkpoint was saved."""
    return inference_dir_of(
        checkpoint.run_dir / "inference", checkpoint.state["metadata"]["tokenizer"]
    )


def without_overridden_settings(
    checkpoint: Checkpoint, cfg: Config, requested: Sequence[str] = ()
) -> Checkpoint:
    """The checkpoint, where a key that `cfg` sets in another way has its value from now on, not the one of the run.

    So has one of the keys `requested`, whatever `cfg` said before.
    """
    state = checkpoint.state
    names = {field.name for field in fields(ChangedSettings)}
    saved = state["metadata"]["config"]
    progress = state["progress"]
    is_set = {
        key: key in requested or value_at(cfg, key) != value_at(saved, key) for key in SETTINGS
    }
    changed = {name for key, name in SETTINGS.items() if is_set[key]}
    settings = ChangedSettings(**{name: vars(progress.settings)[name] for name in names - changed})
    return replace(checkpoint, state={**state, "progress": replace(progress, settings=settings)})


def save_inference_config(config: Config, data: DataModule, inference_dir: Path) -> None:
    """Writes what inference needs besides a checkpoint: the resolved config, the tokenizer and the fitted encoder."""
    inference_dir.mkdir(parents=True, exist_ok=True)
    write_atomic(inference_dir / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    data.save(inference_dir)


def keep_tokenizer(inference_dir: Path, new: Tokenizer) -> None:
    """Keeps the files of the folder for the checkpoints with its tokenizer, where another one replaces it."""
    if not (inference_dir / "tokenizer.json").is_file():
        return
    old = load_tokenizer(inference_dir).fingerprint
    folder = inference_dir / TOKENIZERS / old
    if old == new.fingerprint or folder.is_dir():
        return
    temporary = temporary_name(folder)
    temporary.mkdir(parents=True)
    for path in filter(Path.is_file, inference_dir.iterdir()):
        shutil.copyfile(path, temporary / path.name)
    temporary.rename(folder)


def build_callbacks(cfg: Config, run_dir: Path) -> list[Callback]:
    """The callbacks of a config, in its order."""
    runtime = {"folder": run_dir, "cache": project_root() / ".cache", "seed": model_seed(cfg)}
    nodes = [node for node in cfg["callbacks"].values() if node is not None]
    return [check_callback(instantiate(node, **runtime)) for node in nodes]


def check_callback(candidate: object) -> Callback:
    """`candidate`, or a ConfigError if it is no callback, or has a method on_... that the loop never calls."""
    name = type(candidate).__qualname__
    if Callback not in type(candidate).__mro__:
        raise ConfigError(f"{name}: expected a subclass of {Callback.__module__}.Callback")
    known = [method for method in vars(Callback) if method.startswith("on_")]
    for method in dir(type(candidate)):  # An argument may be called on_error.
        if method.startswith("on_") and method not in known:
            raise ConfigError(f"{name}.{method}: no event of the loop{suggestion(method, known)}")
    return cast(Callback, candidate)


def model_seed(cfg: Config) -> int:
    """Seed of weights and dropout: `seed`, mixed with the number of earlier students of a multi-round run."""
    earlier = len(read_options(cfg["trainer"].get("distillation")).members)
    return int(cfg["seed"] + earlier * 0x9E3779B97F4A7C15) % 2**64


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
