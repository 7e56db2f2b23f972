"""Refuses a data set that lacks what training needs, and one of the user's own whose first rows do not fit its task."""

from typing import cast

import numpy as np

from mlxlab.data.batch import Batch, BatchIterator, check_ids
from mlxlab.data.dataset import DataModule
from mlxlab.errors import ConfigError

TYPE_NAMES = {"iu": "integers", "iub": "integers or booleans", "f": "floats"}


def check_data_module(data: object) -> DataModule:
    """`data`, or a ConfigError with what it lacks of `DataModule`, or what is wrong with its first validation rows.

    Only a data set of the user's own is asked for rows: those of mlxlab are tested.
    """
    _refuse_missing(data, DataModule)
    module = cast(DataModule, data)
    _refuse_missing(module.train, BatchIterator)
    if not type(data).__module__.startswith("mlxlab."):
        batch = next(iter(module.valid), None)
        if batch is not None:
            _check_batch(batch, module, type(data).__qualname__)
    return module


def _check_batch(batch: Batch, data: DataModule, name: str) -> None:
    """Raises ConfigError for an array of another type or shape than `Batch` has for the task, with both."""
    shape = np.asarray(batch.tokens).shape
    rows = shape[:1]
    by_token = rows + shape[-1:]
    shapes = {"multi_label": (*rows, data.task.num_classes), "language_modelling": by_token}
    target_shape = shapes.get(data.task.kind, rows)
    is_class = data.task.kind in ("classification", "language_modelling")
    expected = {
        "tokens": ("iu", by_token),
        "segment_ids": ("iub", by_token),
        "targets": ("iu" if is_class else "f", target_shape),
        "loss_weights": ("f", target_shape),
        "example_ids": ("iu", rows),
    }
    for field, (kinds, shape) in expected.items():
        array = np.asarray(getattr(batch, field))
        if array.dtype.kind not in kinds or array.shape != shape:
            got = f"got {array.dtype} of shape {array.shape}"
            wanted = f"expected {TYPE_NAMES[kinds]} of shape {shape}"
            raise ConfigError(f"{name}: valid: {field}: {wanted}, {got}")
    check_ids(batch, data.tokenizer.vocab_size, data.task.num_classes)


def _refuse_missing(candidate: object, protocol: type) -> None:
    missing = [name for name in vars(protocol) if name[0] != "_" and not hasattr(candidate, name)]
    if missing:
        lacks = f"lacks {', '.join(missing)} of {protocol.__module__}.{protocol.__name__}"
        raise ConfigError(f"{type(candidate).__qualname__}: {lacks}")
