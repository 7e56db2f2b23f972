"""What a decoder remembers of the tokens it has seen, so that each is computed once."""

import mlx.core as mx

from mlxlab.ops.attention import MASK_VALUE


class KVCache:
    """Keys and values of every layer. Rows end together: shorter ones are padded on the left.

    Args:
        num_layers: layers of the decoder.
        padding: places of padding before each row's first token, (B,).
    """

    def __init__(self, num_layers: int, padding: list[int]) -> None:
        self.length = 0  # places so far, padding included
        self.padding = padding
        self.layers = [LayerCache(self) for _ in range(num_layers)]

    def places(self, count: int, longest: int) -> mx.array:
        """The place in its row of each of the next `count` tokens, from 0: (B, count). Padding is at 0 too.

        Raises:
            ValueError: a place is not below `longest`; MLX has no bounds checks.
        """
        if self.length + count - min(self.padding) > longest:
            raise ValueError(f"more than {longest} tokens in a row, the model has no positions for them")
        new = mx.arange(self.length, self.length + count)
        return mx.maximum(new - mx.array(self.padding)[:, None], 0)

    @property
    def offset(self) -> int | mx.array:
        """The place of the next token: one number, or (B,) where rows differ."""
        first, *others = {self.length - padding for padding in self.padding}
        return mx.array([self.length - padding for padding in self.padding]) if others else first

    def mask(self, count: int, dtype: mx.Dtype) -> mx.array:
        """Numbers to add to the scores of the next `count` tokens: itself and what its row has before it counts."""
        keys = mx.arange(self.length + count)
        queries = keys[self.length :, None]
        allowed = (keys <= queries) & (keys >= mx.array(self.padding)[:, None, None])  # (B, count, all)
        return mx.where(allowed, 0.0, MASK_VALUE).astype(dtype)[:, None]  # (B, 1, count, all)

    def keep(self, rows: list[int]) -> None:
        """Forgets all rows but these."""
        self.padding = [self.padding[row] for row in rows]
        for layer in self.layers:
            layer.keep(mx.array(rows))


class LayerCache:
    """Keys and values of one layer: (B, H, places, D / H)."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def extend(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Remembers further places; returns all of them."""
        if self.keys is not None and self.values is not None:
            keys = mx.concatenate([self.keys, keys], axis=2)
            values = mx.concatenate([self.values, values], axis=2)
        self.keys, self.values = keys, values
        return keys, values

    def keep(self, rows: mx.array) -> None:
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]
