"""Compares the outputs of a model before and after an operation, on the first rows of a batch."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxlab.errors import ConfigError
from mlxlab.training.device_batch import to_device
from mlxlab.training.state import StepResult

ROWS = 2  # of the batch
MAX_CHANGE = 1e-4  # of an output, as a multiple of the largest one, or of 1 if that is larger


def probe_outputs(model: nn.Module, result: StepResult) -> mx.array | None:
    """The outputs on the batch, in evaluation mode; None without a batch.

    Computed on the CPU: a GPU may round the factors of a product, which changes outputs by 1e-3.
    """
    if not result.trained:
        return None
    was_training = model.training
    model.eval()
    with mx.stream(mx.cpu):
        batch = to_device(result.batch)
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
