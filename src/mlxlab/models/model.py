"""A model: a backbone and a head; its parameters and floating-point operations."""

import mlx.core as mx
import mlx.nn as nn

from mlxlab.models.backbone import Backbone
from mlxlab.models.heads import CausalHead, Classifier, Head
from mlxlab.models.layers import Attention, named_parameters

PROJECTIONS = "feature_matching"  # submodule added to a student for feature matching; not part of a restored model


class Model(nn.Module):
    """Tokens and segment ids (B, T) as in `Backbone` -> logits: (B, C) of a classifier, (B, T, V) of a language model.

    A boolean `segment_ids` is cheaper for long rows.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        x = self.backbone(tokens, segment_ids)
        if isinstance(self.head, Classifier):
            return self.head(self.backbone.pool(x, segment_ids))
        return self.head(x, self.backbone.embedding)


def count_parameters(model: nn.Module) -> int:
    """The exact count, without allocating: the arrays of a new model are unevaluated until they are used."""
    return sum(leaf.size for leaf in named_parameters(model).values())


def training_flops(model: Model, length: int) -> float:
    """Operations of one training step per token: 6 N + 12 L d T (Chowdhery et al. 2022, appendix B).

    N counts the weights that every token is multiplied by: matrices, including the embedding where it is also the head,
    excluding lookup tables. L d is the summed width of all attention layers, T the row length; as in the paper, the
    half that a causal mask saves is counted. 2 of the 6 and 4 of the 12 are the forward pass. Work that a step saves (a
    masked model's head at its targets only) or repeats (activation checkpointing) is not counted.
    """
    lookup_tables = ["position_embedding.weight", "type_embedding.weight"]
    if isinstance(model.head, CausalHead) and "out" in model.head:
        lookup_tables.append("embedding.weight")
    # Below `backbone.`, or below the encoder of a CnnHybrid.
    excluded = {f"backbone.{prefix}{name}" for name in lookup_tables for prefix in ("", "encoder.")}
    parameters = named_parameters(model).items()
    matmul_parameters = sum(leaf.size for path, leaf in parameters if leaf.ndim >= 2 and path not in excluded)
    attention_width = sum(isinstance(layer, Attention) for layer in model.modules()) * model.backbone.hidden_size
    return 6.0 * matmul_parameters + 12.0 * attention_width * length
