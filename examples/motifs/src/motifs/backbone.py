"""A convolution that scans sequences for motifs."""

import mlx.core as mx
import mlx.nn as nn
from mlxlab.schema.constraints import Size


class Scanner(nn.Module):
    """Tokens (B, T) -> how well each motif matches at each position (B, T, D); a sequence has the best match of each.

    Has the members of `mlxlab.models.backbone.Backbone`.

    Args:
        hidden_size: number of motifs D, and dimensions of a base's embedding.
        motif_length: bases that a motif spans.
        max_position_embeddings: bases of the longest sequence, by which data sets choose theirs.
    """

    causal = False
    separates_documents = False
    classifier_hidden_size = 0
    position_limit = None

    def __init__(
        self, hidden_size: Size, motif_length: Size, max_position_embeddings: Size, *, vocab_size: int
    ) -> None:
        super().__init__()
        self.hidden_size = self.output_size = self.pooled_size = hidden_size
        self.max_position_embeddings = max_position_embeddings
        self.motif_length = motif_length
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.motifs = nn.Conv1d(hidden_size, hidden_size, motif_length)

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        real = (segment_ids > 0)[..., None]
        x = self.embedding(tokens) * real  # (B, T, D); padding counts as the end of the sequence
        left = (self.motif_length - 1) // 2
        x = mx.pad(x, [(0, 0), (left, self.motif_length - 1 - left), (0, 0)])
        return nn.relu(self.motifs(x)) * real

    def pool(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        """Matches (B, T, D) -> the best of each motif (B, D); they are not negative, and 0 at padding."""
        return x.max(axis=1)

    def remove_pooler(self) -> None:
        """Deletes the parameters that only `pool` uses: there are none."""
