"""Builds models from a `model` node of the configuration, with its pretrained shape and weights if it names any."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import mlx.nn as nn

from mlxlab.config.instantiate import instantiate
from mlxlab.errors import ConfigError
from mlxlab.models.adapters.apply import apply_options
from mlxlab.models.backbone import Backbone
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.initialization import initialize
from mlxlab.models.memory_bound import check_weights
from mlxlab.models.model import Model, TaskKind, build_head
from mlxlab.models.options import split_node
from mlxlab.models.pretrained.family import TABULAR, Node, Shape
from mlxlab.models.pretrained.load import MLX_LM, read_shape, resolve, target_of
from mlxlab.models.pretrained.weights import load_head_weights, load_weights

OUTSIDE_ENCODER = "backbone.[!e]*"  # all modules of a CnnHybrid but its encoder


def build_model(
    node: Node,
    *,
    kind: TaskKind,
    vocab_size: int,
    num_classes: int = 0,
    pair_separator: int | None = None,
    seed: int | None = None,
    load_pretrained: bool = True,
) -> Model:
    """The model of a `model` node for a task; with `pretrained`, sizes are those of the pretrained model.

    Args:
        num_classes: outputs of the head: classes, labels, or 1 for a regression; not used by a language model.
        pair_separator: as in `Task`; for backbones that tell the two texts of a pair apart.
        seed: the initial weights are a function of it; None leaves them undrawn, for weights that are loaded later.
        load_pretrained: whether to load pretrained weights too; a resumed or restored run has its own.

    Raises:
        InputNotFoundError, ServiceUnavailableError, DataError, ConfigError: see `mlxlab.models.pretrained`.
    """
    node = train_new_weights(node)
    options, _ = split_node(node)
    path, shape = _pretrained_shape(node, vocab_size)
    backbone = build_backbone({**node, **shape}, vocab_size, pair_separator, kind)
    if not load_pretrained:
        path = None
    # Files have all weights of a backbone, but of a CnnHybrid only those of its encoder.
    if seed is not None and (path is None or isinstance(backbone, CnnHybrid)):
        initialize(cast(nn.Module, backbone), seed, "backbone")
    # Weights before the head: they are checked against all of the backbone, pooler included.
    head_weights = {}
    if path is not None:
        head_weights = load_weights(backbone, path)
    dropout = node.get("dropout", 0.0)
    head = build_head(backbone, kind=kind, num_classes=num_classes, dropout=dropout)
    if seed is not None:
        initialize(head, seed, "head")
    missing = []
    if path is not None and kind == "language_modelling":
        missing = load_head_weights(head, head_weights)
    model = Model(backbone, head)
    if options.adapter or options.freeze or options.quantization.bits:
        apply_options(model, options, seed, drawn=[f"head.{name}" for name in missing])
    return model


def train_new_weights(node: Node) -> Node:
    """The node, whose adapter also trains what no pretrained model has: of a CnnHybrid all that is not its encoder."""
    adapter = node.get("adapter")
    if (
        not adapter
        or not node.get("pretrained")
        or not str(node["_target_"]).endswith(".CnnHybrid")
    ):
        return node
    return {**node, "adapter": {**adapter, "train": [*adapter.get("train", []), OUTSIDE_ENCODER]}}


def _pretrained_shape(node: Node, vocab_size: int) -> tuple[Path | None, Shape]:
    """The pretrained model that the backbone of a node begins with, and its shape.

    A `Tabular` takes none: a pretrained encoder reads its texts.
    """
    name = node.get("pretrained")
    if not name or node["_target_"] == TABULAR:
        return None, {}
    path = resolve(name)
    return path, read_shape(path, node, vocab_size)


class Architecture(NamedTuple):
    """What the shape of a model depends on apart from the task: its node, and the number of tokens."""

    node: dict[str, Any]
    vocab_size: int

    def with_keys(self, **keys: object) -> "Architecture":
        """Returns a copy with these values in the node."""
        return self._replace(node={**self.node, **keys})


def architecture_of(node: Node, vocab_size: int) -> Architecture:
    """What rebuilds a model without its pretrained weights: its node with their sizes, and its vocabulary size.

    Arguments and errors are those of `build_model`.
    """
    _, shape = _pretrained_shape(node, vocab_size)
    own = {key: None for key in ("pretrained", "init_from") if key in node}
    architecture: dict[str, Any] = {
        "vocab_size": vocab_size,
        **train_new_weights(node),
        **shape,
        **own,
    }
    size = architecture.pop("vocab_size")
    return Architecture(architecture, size)


def build_pretrained_model(path: Path, vocab_size: int) -> Model:
    """The language model at `path` (a folder or GGUF file) as it was published, in evaluation mode."""
    node = {"_target_": target_of(path), "dropout": 0.0, "pretrained": str(path)}
    model = build_model(node, kind="language_modelling", vocab_size=vocab_size, seed=0)
    model.eval()
    return model


def build_backbone(
    node: dict[str, Any],
    vocab_size: int,
    pair_separator: int | None = None,
    kind: TaskKind = "language_modelling",
) -> Backbone:
    """The backbone of a `model` node, with the sizes of the node also where it names a pretrained model.

    Only an architecture of mlx-lm has no sizes but those of the pretrained model. Nothing is allocated; ConfigError if
    the weights cannot fit in memory.
    """
    if node["_target_"] == MLX_LM and node.get("config") is None and node.get("pretrained"):
        node = {**node, **read_shape(resolve(node["pretrained"]), node, vocab_size)}
    runtime = {"vocab_size": vocab_size, "pair_separator": pair_separator, "kind": kind}

    def new_backbone(node: Node) -> nn.Module:
        return instantiate(split_node(node)[1], nn.Module, **runtime)

    check_weights(node, new_backbone, vocab_size)
    backbone = new_backbone(node)
    # Not `isinstance` with the protocol: submodules are items of an MLX module, invisible to it in newer Pythons.
    members = [*Backbone.__annotations__, "embedding", "pool", "remove_pooler"]
    if missing := [name for name in members if not hasattr(backbone, name)]:
        raise ConfigError(
            f"{node['_target_']}: not a backbone, it has no {', '.join(missing)} (see {Backbone.__module__})"
        )
    return cast(Backbone, backbone)
