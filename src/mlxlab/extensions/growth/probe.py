"""Compares the outputs of a model before and after an operation, on the first rows of a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.errors import ConfigError
from mlxlab.training.device_batch import to_device
from mlxlab.training.state import StepResult

ROWS = 2  # of the batch
MAX_CHANGE = 1e-4  # of an output, as a multiple of the largest one, or of 1 if that is larger
CORE_TOKEN = 0  # an id that every map has


@dataclass(frozen=True)
class Probe:
    """Which outputs are compared: of a `vocabulary` that grows those of the tokens it keeps.

    Inputs that are rare are replaced: their embeddings get noise.
    """

    vocabulary: VocabularyMap | None

    def before(self, tokens: np.ndarray) -> np.ndarray:
        """The inputs before the operation."""
        if self.vocabulary is None:
            return tokens
        return np.where(tokens == self.vocabulary.rare_id, CORE_TOKEN, tokens)

    def after(self, tokens: np.ndarray) -> np.ndarray:
        """The inputs after the operation."""
        if self.vocabulary is None:
            return tokens
        return self.vocabulary.core_ids[self.before(tokens)].astype(np.int32)

    def core_outputs(self, outputs: mx.array | None) -> mx.array | None:
        """The outputs after the operation, in the order of those before."""
        if self.vocabulary is None or outputs is None:
            return outputs
        return mx.take(outputs, mx.array(self.vocabulary.core_ids), axis=-1)


def probe_outputs(
    model: nn.Module, result: StepResult, ids: Callable[[np.ndarray], np.ndarray]
) -> mx.array | None:
    """The outputs for other `ids` of the batch, in evaluation mode; None without a batch.

    Computed on the CPU: a GPU may round the factors of a product, which changes outputs by 1e-3.
    """
    if not result.trained:
        return None
    was_training = model.training
    model.eval()
    with mx.stream(mx.cpu):
        batch = to_device(result.batch._replace(tokens=ids(result.batch.tokens)))
        outputs: mx.array = model(batch.tokens[:ROWS], batch.segment_ids[:ROWS])
        mx.eval(outputs)
    model.train(was_training)
    return outputs


def largest_change(before: mx.array | None, after: mx.array | None) -> float:
    """The largest absolute difference, over the outputs that both have; 0 without any."""
    if before is None or after is None:
        return 0.0
    columns = min(before.shape[-1], after.shape[-1])
    return float(mx.abs(before[..., :columns] - after[..., :columns]).max())


def preserves_outputs(operation: Any) -> bool:
    """False where the operation says that it changes what the model computes."""
    is_noisy = operation["op"] == "widen" and operation.get("noise")
    return bool(operation.get("preserve", True)) and not is_noisy


def check_change(change: float, outputs: mx.array | None) -> None:
    """ConfigError if outputs of the size of `outputs` changed by more than rounding does."""
    largest = 0.0 if outputs is None else float(mx.abs(outputs).max())
    limit = MAX_CHANGE * max(1.0, largest)
    if not change <= limit:  # NaN is refused too.
        raise ConfigError(
            f"expected outputs within {limit:.2g} of those before, got a change of {change:.2g}"
        )
