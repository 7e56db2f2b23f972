"""The weights of a trained model under published names, in one floating-point type."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx

from mlxlab.checkpoint.arrays import FLOATS, Arrays, nonfinite_paths
from mlxlab.data.batch import Task
from mlxlab.errors import ConfigError, WriteError
from mlxlab.models.adapters.merge import merged_parameters
from mlxlab.models.interop.trained_model import TrainedModel

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def plain_weights(trained: TrainedModel, *, with_adapters: bool = True) -> Arrays:
    """The float32 weights by path, adapters folded in; a regression gives its numbers as they stand in the data."""
    weights = merged_parameters(trained.model, with_adapters=with_adapters)
    return _in_data_units(weights, trained.task) if trained.task.kind == "regression" else weights


def publish(
    weights: Mapping[str, mx.array],
    rename: Callable[[str], str],
    dtype: str,
    casts: Callable[[str], bool],
) -> Arrays:
    """The arrays under their published names; ConfigError if a number of one is too large for the type.

    Args:
        casts: whether the array of a published name gets the type; others keep theirs.
    """
    published = {rename(path): array for path, array in weights.items()}
    cast = {
        name: array.astype(DTYPES[dtype]) if array.dtype in FLOATS and casts(name) else array
        for name, array in published.items()
    }
    if too_large := nonfinite_paths(cast):
        raise ConfigError(
            f"dtype={dtype}: {too_large[0]} has numbers that are too large for it; expected float32"
        )
    return cast


@contextmanager
def refuse_unwritable(out: Path) -> Iterator[None]:
    """Raises WriteError for an output that cannot be written inside."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # MLX has no exception of its own for a full disk.
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WriteError(f"out={out}: {reason}") from None


def _in_data_units(weights: Arrays, task: Task) -> Arrays:
    weight, bias = (weights[f"head.out.{name}"] for name in ("weight", "bias"))
    scaled = {
        "weight": weight * task.target_deviation,
        "bias": bias * task.target_deviation + task.target_mean,
    }
    return weights | {f"head.out.{name}": array for name, array in scaled.items()}
