"""Builds the model of a config, or that of a checkpoint."""

from typing import Any

import mlx.core as mx

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.check import check_stored_model
from mlxlab.data.dataset import DataModule
from mlxlab.distillation.options import read_options
from mlxlab.errors import ConfigError
from mlxlab.evaluation.parts.data import Config, longest_row
from mlxlab.models import build
from mlxlab.models.build import Architecture
from mlxlab.models.model import Model
from mlxlab.models.options import split_node


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
        from mlxlab.models.adapters.apply import refuse_training

        refuse_training(options, model)
        mx.clear_cache()  # It holds the weights before quantisation.
    return model


def model_node(cfg: Config, data: DataModule) -> dict[str, Any]:
    """The `model` node with what the data decide: the columns of a table."""
    columns = getattr(data, "model_columns", None)
    if columns is None:
        return cfg["model"]
    return {**cfg["model"], "columns": columns}


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


def model_seed(cfg: Config) -> int:
    """Seed of weights and dropout: `seed`, mixed with the number of earlier students of a multi-round run."""
    earlier = len(read_options(cfg["trainer"].get("distillation")).members)
    return int(cfg["seed"] + earlier * 0x9E3779B97F4A7C15) % 2**64
