"""A lower bound of the memory of a training run, by arithmetic on shapes."""

from math import ceil

from mlxlab.data.dataset import DataModule
from mlxlab.evaluation.parts.data import Config
from mlxlab.models.bert import Bert
from mlxlab.models.build import Architecture, build_model
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.memory_bound import array_bytes, check_memory, is_deep
from mlxlab.models.options import split_node
from mlxlab.models.pretrained.family import Node
from mlxlab.models.transformer import Transformer
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.steps.step import PlainStep
from mlxlab.training.trainer import Trainer

PLAIN_STEP = f"{PlainStep.__module__}.{PlainStep.__name__}"
TOKEN_BYTES = 4  # Token ids are int32.


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
    micro_batch = _micro_batch_rows(cfg["trainer"]["step"], rows) * length
    computes_all_logits = (
        task.kind == "language_modelling" and cfg["trainer"]["step"]["_target_"] == PLAIN_STEP
    )
    width = 2 if cfg["trainer"]["step"].get("dtype") == "bfloat16" else 4

    def needed(node: Node) -> int:
        model = build_model(
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
