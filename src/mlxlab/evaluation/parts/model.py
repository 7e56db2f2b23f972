"""Builds the model of a config or of a checkpoint; a lower bound of the memory to train it, from shapes."""

from math import ceil
from typing import Any

import mlx.core as mx

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.check import check_stored_model
from mlxlab.data.dataset import DataModule
from mlxlab.distillation.options import read_options
from mlxlab.errors import ConfigError
from mlxlab.evaluation.parts.data import Config, longest_row
from mlxlab.models import build
from mlxlab.models.bert import Bert
from mlxlab.models.build import Architecture
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.memory_bound import array_bytes, check_memory, is_deep
from mlxlab.models.model import Model
from mlxlab.models.options import split_node
from mlxlab.models.pretrained.family import Node
from mlxlab.models.transformer import Transformer
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.steps.step import PlainStep
from mlxlab.training.trainer import Trainer

PLAIN_STEP = f"{PlainStep.__module__}.{PlainStep.__name__}"
TOKEN_BYTES = 4  # Token ids are int32.


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


def check_training_memory(
    cfg: Config, architecture: Architecture, data: DataModule, trainer: Trainer, processes: int
) -> None:
    """Raises ConfigError if weights, gradients, optimizer and batches of a run cannot fit in memory.

    At the start of the backward pass there are all activations and no gradients, at its end the reverse: the bound has
    the larger of the two.
    """
    node = architecture.node
    task = data.task
    options = split_node(node)[0]
    is_partly_frozen = options.adapter is not None or bool(options.freeze)
    if is_deep(node) and is_partly_frozen:
        return  # The patterns of its options may name layers that a shallow model does not have.
    shards = processes if trainer.parallel == "fsdp" else 1
    rows, length = _batch_shape(data)
    rows = max(rows // processes, 1)
    step = cfg["trainer"]["step"]
    micro_batch = _micro_batch_rows(step, rows) * length
    computes_all_logits = task.kind == "language_modelling" and step["_target_"] == PLAIN_STEP
    width = 2 if step.get("dtype") == "bfloat16" else 4

    def needed(node: Node) -> int:
        model = build.build_model(
            node,
            kind=task.kind,
            vocab_size=architecture.vocab_size,
            num_classes=task.num_classes,
            pair_separator=task.pair_separator,
            load_pretrained=False,
        )
        weights = array_bytes(flatten_arrays(model.parameters()))
        trained = array_bytes(flatten_arrays(model.trainable_parameters()))
        optimizer = array_bytes(flatten_arrays(trainer.new_optimizer(model).state))
        layers = 1
        if isinstance(model.backbone, Bert | CnnHybrid | Transformer) and not is_partly_frozen:
            # The input of a layer is kept for the gradients of its weights.
            layers = node["num_layers"]
        activations = layers * micro_batch * model.backbone.hidden_size * width
        if computes_all_logits:
            activations += micro_batch * architecture.vocab_size * width
        batch = rows * length * TOKEN_BYTES
        gradients_or_activations = max(trained // shards, activations)
        state = (trained + optimizer) // shards
        return weights - trained + state + gradients_or_activations + batch

    keys = {"vocab_size": architecture.vocab_size, "data.batch_size": data.train.batch_size}
    if data.train.tokens_per_batch is not None:
        keys["data.seq_len"] = length
    check_memory(needed, node, keys)


def _batch_shape(data: DataModule) -> tuple[int, int]:
    """Rows of a batch, and tokens that each of them has at least."""
    rows = data.train.batch_size
    tokens = data.train.tokens_per_batch
    if tokens is None:
        examples = getattr(data, "num_examples", {})
        return min(rows, examples.get("training", rows)), 1
    length = tokens // rows
    sizes = getattr(data, "text_sizes", {})
    if "training" in sizes:
        _, available = sizes["training"]
        if "training" in getattr(data, "estimated_sizes", ()):
            available //= 2
        rows = min(rows, ceil(available / length))
    return rows, length


def _micro_batch_rows(step: Config, rows: int) -> int:
    accumulate = step.get("accumulate", 1)
    if step.get("retry_on_oom"):
        return 1
    return ceil(rows / accumulate)
