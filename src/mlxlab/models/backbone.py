"""The interface of a backbone: the part of a model that turns tokens into hidden states, below the head."""

from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn


class Backbone(Protocol):
    """The interface of a backbone, which is also an `nn.Module`.

    Shapes: B rows, T positions, O `output_size`, P `pooled_size`. `segment_ids` is (B, T): integers, where 0 is padding
    and k > 0 the number of the document within its row, or booleans, which promise one document per row with padding
    on the right only. Neither padding nor another document may change the states of a document.

    A causal language model (`causal` is True) needs the members of `CausalBackbone` too.
    """

    causal: bool  # a position attends only to itself and earlier ones
    hidden_size: int  # width of the embedding, which a language-modelling head maps back to
    output_size: int  # O, of the states that calling the backbone returns
    pooled_size: int  # P, of what `pool` returns
    classifier_hidden_size: int  # width of its hidden layer; 0 for a single linear layer
    max_position_embeddings: int  # context length in tokens that the backbone is configured for
    # Tokens of the longest row it can process; None where positions are computed.
    position_limit: int | None
    # Rows may hold several documents; False: one each, padded on the right.
    separates_documents: bool

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding, (vocab_size, hidden_size)."""

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        """Tokens (B, T) -> states (B, T, O)."""

    def pool(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        """States (B, T, O) -> one vector per row (B, P)."""

    def remove_pooler(self) -> None:
        """Deletes the parameters that only `pool` uses: a language model would never train them."""


class DecodingCache(Protocol):
    """What a decoder remembers of the earlier tokens of each row."""

    def keep(self, rows: list[int]) -> None:
        """Removes all rows but these."""


class CausalBackbone(Backbone, Protocol):
    """A decoder, which can also generate token by token."""

    tie_embeddings: (
        bool | None
    )  # the language-modelling head shares the token embedding; None: states are its logits

    def new_cache(self, padding: list[int]) -> DecodingCache:
        """An empty cache for rows that begin with these numbers of padding tokens."""

    def extend(self, tokens: mx.array, cache: Any) -> mx.array:
        """The next tokens of every row (B, T) -> their states (B, T, O); they enter the cache, one of `new_cache`."""
