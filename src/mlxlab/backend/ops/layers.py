"""MLX's layers, computed by the native CPU kernels where those are in use; otherwise they are MLX's own."""

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.native import kernels


class Linear(nn.Linear):
    """x W^T + b: (..., in) -> (..., out)."""

    def __call__(self, x: mx.array) -> mx.array:
        return linear(x, self.weight, self.get("bias"))


class Embedding(nn.Embedding):
    """Rows of a table: ids (...) -> (..., D)."""

    def __call__(self, ids: mx.array) -> mx.array:
        if kernels.usable(self.weight) and ids.size > 0:
            return kernels.embedding(ids, self.weight)
        return super().__call__(ids)

    def as_linear(self, x: mx.array) -> mx.array:
        """The transposed table as output layer: (..., D) -> (..., V)."""
        return linear(x, self.weight)


class LayerNorm(nn.LayerNorm):
    """Layer normalization (Ba et al. 2016) over the last axis."""

    def __call__(self, x: mx.array) -> mx.array:
        if "weight" not in self or not kernels.usable(x, *self.parameters().values()):
            return super().__call__(x)
        return kernels.norm(x, self.weight, self.get("bias"), self.eps, centered=True)


class RMSNorm(nn.RMSNorm):
    """Root mean square normalization (Zhang and Sennrich 2019) over the last axis."""

    def __call__(self, x: mx.array) -> mx.array:
        if not kernels.usable(x, self.weight):
            return super().__call__(x)
        return kernels.norm(x, self.weight, None, self.eps, centered=False)


def linear(x: mx.array, weight: mx.array, bias: mx.array | None = None) -> mx.array:
    """(..., K) times the transposed weight (N, K), plus a bias (N,) -> (..., N)."""
    arrays = [x, weight]
    if bias is not None:
        arrays.append(bias)
    if kernels.usable(*arrays):
        return kernels.linear(x, weight, bias)
    if bias is None:
        return x @ weight.T
    return mx.addmm(bias, x, weight.T)


def tied_logits(embedding: nn.Module, x: mx.array, bias: mx.array) -> mx.array:
    """The output layer of an embedding, with a bias (V,): (..., D) -> (..., V)."""
    if isinstance(embedding, Embedding) and kernels.usable(x, embedding.weight):
        return linear(x, embedding.weight, bias)
    logits: mx.array = embedding.as_linear(x)
    return logits + bias
