"""Floating-point operations of a model, by the formula used in the literature."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxlab.models.heads import CausalHead
from mlxlab.models.layers import Attention
from mlxlab.models.model import Model


def training_flops(model: Model, length: int) -> float:
    """Operations of one training step per token: 6 N + 12 L d T (Chowdhery et al. 2022, appendix B).

    N counts the weights that every token is multiplied by: matrices, including the embedding where it is also the head,
    excluding lookup tables. L d is the summed width of all attention layers, T the row length; as in the paper, the
    half that a causal mask saves is counted. 2 of the 6 and 4 of the 12 are the forward pass. Work that a step saves (a
    masked model's head at its targets only) or repeats (activation checkpointing) is not counted.
    """
    return 6.0 * matmul_parameters(model) + 12.0 * attention_width(model) * length


def matmul_parameters(model: Model) -> int:
    """N of the formula."""
    lookup_tables = ["position_embedding.weight", "type_embedding.weight"]
    if isinstance(model.head, CausalHead) and "out" in model.head:
        lookup_tables.append("embedding.weight")
    # Below `backbone.`, or below the encoder of a CnnHybrid.
    excluded = {f"backbone.{prefix}{name}" for name in lookup_tables for prefix in ("", "encoder.")}
    leaves: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    return sum(leaf.size for path, leaf in leaves if leaf.ndim >= 2 and path not in excluded)


def attention_width(model: Model) -> int:
    """L d of the formula."""
    layers: list[nn.Module] = [module for module in model.modules() if isinstance(module, Attention)]
    return len(layers) * model.backbone.hidden_size
