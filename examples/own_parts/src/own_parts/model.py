"""A bag of words."""

import mlx.core as mx
import mlx.nn as nn
from mlxlab.schema.constraints import Size


class BagOfWords(nn.Module):
    """Tokens (B, T) -> states (B, T, D): embeddings plus a projection of the mean of the document.

    Implements `mlxlab.models.backbone.Backbone`; a decoder (`causal = True`) implements
    `CausalBackbone`. The task of the data set adds the head. Neither padding nor another document
    may change the states of a document.

    Args:
        hidden_size: dimensions D of a state.
        max_position_embeddings: tokens of the longest row, by which data sets choose theirs.
    """

    causal = False
    separates_documents = True
    classifier_hidden_size = 0
    position_limit = None

    def __init__(
        self, hidden_size: Size, max_position_embeddings: Size, *, vocab_size: int
    ) -> None:
        super().__init__()
        self.hidden_size = self.output_size = self.pooled_size = hidden_size
        self.max_position_embeddings = max_position_embeddings
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.projection = nn.Linear(hidden_size, hidden_size)

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        x = self.embedding(tokens)  # (B, T, D)
        documents = segment_ids.astype(mx.int32)  # 0 is padding, k > 0 the k-th document of the row
        is_real = (documents > 0)[:, None]
        is_same = (documents[:, :, None] == documents[:, None, :]) & is_real  # (B, T, T)
        means = (is_same / mx.maximum(is_same.sum(axis=-1, keepdims=True), 1)) @ x
        return x + self.projection(means)

    def pool(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        """States (B, T, D) -> one vector per row (B, D)."""
        is_real = (segment_ids > 0)[..., None]
        return (x * is_real).sum(axis=1) / mx.maximum(is_real.sum(axis=1), 1)

    def remove_pooler(self) -> None:
        """Deletes the parameters that only `pool` uses: there are none."""
