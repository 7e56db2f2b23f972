"""The keys and values of the tokens a decoder has processed, so that each is computed once."""

import mlx.core as mx

from mlxlab.ops.attention import MASK_VALUE


class KVCache:
    """Keys and values of every layer. Rows end together: shorter ones are padded on the left.

    Args:
        num_layers: layers of the decoder.
        padding: left padding of each row, in tokens: B integers.
    """

    def __init__(self, num_layers: int, padding: list[int]) -> None:
        self.length = 0  # positions held, padding included
        self.padding = padding
        self.layers = [LayerCache(self) for _ in range(num_layers)]

    def position_ids(self, count: int, limit: int) -> mx.array:
        """The positions of the next `count` tokens within their rows, from 0; 0 for padding: (B, count).

        Raises:
            ValueError: a position is not below `limit`; MLX has no bounds checks.
        """
        if self.length + count - min(self.padding) > limit:
            raise ValueError(f"more than {limit} tokens in a row, the model has no positions for them")
        new = mx.arange(self.length, self.length + count)
        return mx.maximum(new - mx.array(self.padding)[:, None], 0)

    @property
    def offset(self) -> int | mx.array:
        """The position of the next token: one number, or (B,) where rows differ."""
        offsets = [self.length - padding for padding in self.padding]
        return offsets[0] if len(set(offsets)) == 1 else mx.array(offsets)

    def mask(self, count: int, dtype: mx.Dtype) -> mx.array:
        """The bias to add to the attention scores of the next `count` tokens: (B, 1, count, length + count).

        A token attends to itself and to what precedes it in its row, not to padding.
        """
        keys = mx.arange(self.length + count)
        queries = keys[self.length :, None]
        allowed = (keys <= queries) & (keys >= mx.array(self.padding)[:, None, None])  # (B, count, length + count)
        return mx.where(allowed, 0.0, MASK_VALUE).astype(dtype)[:, None]

    def keep(self, rows: list[int]) -> None:
        """Removes all rows but these."""
        self.padding = [self.padding[row] for row in rows]
        for layer in self.layers:
            layer.arrays = [array[mx.array(rows)] for array in layer.arrays]


class LayerCache:
    """Keys and values of one layer: (B, H, length, D / H).

    They are concatenated for every token. Writing into blocks of 256 preallocated positions gave the same tokens and no
    measurable gain at a context of 256 on a CPU (docs/log.md): the products with the weights dominate.
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.arrays: list[mx.array] = []  # keys and values, once there are any

    def update(self, keys: mx.array, values: mx.array) -> list[mx.array]:
        """Appends keys and values (B, H, count, D / H); returns all of them, (B, H, length + count, D / H)."""
        new = [keys, values]
        if self.arrays:
            new = [mx.concatenate([old, added], axis=2) for old, added in zip(self.arrays, new, strict=True)]
        self.arrays = new
        return new
