"""One forward pass shared by several losses."""

import mlx.core as mx
import mlx.nn as nn


class CachedForward(nn.Module):
    """A model that computes its output once for a batch, however many losses call it.

    It lives as long as one call of the loss. It is an `nn.Module` without parameters of its own, so that a loss may
    use it as the model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._tokens: mx.array | None = None
        self._output: mx.array | None = None

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        if self._output is None or self._tokens is not tokens:
            self._tokens, self._output = tokens, self._model(tokens, mask)
        return self._output


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, for a loss that captures the outputs of its layers and so needs a forward pass of its own."""
    return model._model if isinstance(model, CachedForward) else model
