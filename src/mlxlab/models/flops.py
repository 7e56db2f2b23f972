"""How many floating-point operations a model needs: by the formula that the literature compares by."""

from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxlab.models.heads import CausalHead
from mlxlab.models.layers import Attention
from mlxlab.models.model import Model


def training_flops(model: Model, length: int) -> float:
    """Operations of one training step per token: 6 N + 12 L d T (Chowdhery et al. 2022, appendix B).

    N counts the weights that every token is multiplied by: matrices, with the embedding where it is the head too, and
    without tables that are only looked up. L d is the width of all attention layers, T the length of a row; the half
    that a causal mask leaves out counts, as there. 2 of the 6 and 4 of the 12 are the forward pass. What a step saves
    (a masked model's head at its targets only) or repeats (recomputed layers) does not count.
    """
    return 6.0 * matmul_parameters(model) + 12.0 * attention_width(model) * length


def forward_flops(model: Model, length: int) -> float:
    """Operations per token of a forward pass alone."""
    return training_flops(model, length) / 3


def matmul_parameters(model: Model) -> int:
    """The N of the formula."""
    looked_up = ["position_embedding.weight", "type_embedding.weight"]
    if isinstance(model.head, CausalHead) and "out" in model.head:
        looked_up.append("embedding.weight")
    leaves: list[tuple[str, Any]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    return sum(leaf.size for path, leaf in leaves if leaf.ndim >= 2 and path.split(".", 1)[-1] not in _paths(looked_up))


def attention_width(model: Model) -> int:
    """The L d of the formula."""
    layers: list[nn.Module] = [module for module in model.modules() if isinstance(module, Attention)]
    return len(layers) * model.trunk.width


def _paths(names: list[str]) -> set[str]:
    """Behind `trunk.`; the encoder of a cnn_hybrid is a trunk inside the trunk."""
    return {*names, *(f"encoder.{name}" for name in names)}
