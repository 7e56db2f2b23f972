"""Predictions of a restored classifier."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mlxlab.data.titanic.encoder import PassengerEncoder
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.errors import NotAllowedError
from mlxlab.inference.restore import RestoredModel
from mlxlab.training.device_batch import to_device


def predict(restored: RestoredModel, rows: Sequence[Passenger], batch_size: int = 64) -> np.ndarray:
    """(N, C) probabilities of the classes, a row per passenger; does not depend on `batch_size`.

    Raises:
        NotAllowedError: the model does not classify passengers.
    """
    if not isinstance(restored.encoder, PassengerEncoder):
        raise NotAllowedError(
            f"expected a classifier of passengers, got a model for {restored.encoder.task.kind} of other data"
        )
    probabilities = []
    for start in range(0, len(rows), batch_size):
        batch = to_device(restored.encoder.encode_rows(rows[start : start + batch_size]))
        logits = restored.model(batch.tokens, batch.segment_ids).astype(mx.float32)
        probabilities.append(np.array(mx.softmax(logits, axis=-1)))
    empty = np.zeros((0, restored.encoder.task.num_classes), np.float32)
    return np.concatenate(probabilities or [empty])
