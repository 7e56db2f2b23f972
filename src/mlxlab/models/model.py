"""A model: a backbone and a head."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxlab.models.backbone import Backbone
from mlxlab.models.heads import Classifier, Head

PROJECTIONS = "feature_matching"  # submodule added to a student for feature matching; not part of a restored model


class Model(nn.Module):
    """Tokens and mask (B, T) -> logits: (B, C) of a classifier, (B, T, V) of a language model.

    In `mask` 0 is padding and k > 0 the number of the document within its row. A boolean mask promises one document
    per row and padding on the right only, which is cheaper for long rows.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        x = self.backbone(tokens, mask)
        if isinstance(self.head, Classifier):
            return self.head(self.backbone.pool(x, mask))
        return self.head(x, self.backbone.embedding)


def count_parameters(model: nn.Module) -> int:
    """The exact count, without allocating: the arrays of a new model are unevaluated until they are used."""
    leaves: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    return sum(leaf.size for _, leaf in leaves)
