"""A model: a trunk and a head."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxlab.models.heads import Classifier

PROJECTIONS = "feature_matching"  # submodule added to a student for feature matching; not part of a restored model


class Model(nn.Module):
    """(B, T) tokens and mask -> logits: (B, C) of a classifier, (B, T, V) of a language model.

    In `mask` 0 is padding and k > 0 the number of the document within its row. A mask of booleans promises one document
    a row and padding on the right only, which is cheaper for long rows.
    """

    def __init__(self, trunk: Any, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        x = self.trunk(tokens, mask)
        if isinstance(self.head, Classifier):
            return self.head(self.trunk.pool(x, mask))
        return self.head(x, self.trunk.embedding)


def count_parameters(model: nn.Module) -> int:
    """Exact, and without allocating: the arrays of a new model are promises until they are evaluated."""
    leaves: list[tuple[str, Any]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    return sum(leaf.size for _, leaf in leaves)
