"""A larger or smaller vocabulary: rows of the embedding and of the output layer, by index."""

import re

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Gather, Source, Sources, draw, gather, has_classifier
from mlxlab.extensions.growth.operations.plain_layers import require_plain_layers
from mlxlab.extensions.growth.operations.schema import ResizeVocabulary
from mlxlab.models.build import Architecture
from mlxlab.models.initialization import STD

TABLE = re.compile(r"backbone\.(?:encoder\.)?embedding\.weight|head\.out\.weight|head\.bias")
ADAPTED = re.compile(
    r"(?:backbone\.(?:encoder\.)?embedding|head\.out)\.(?:base\.)?(?:lora_a|scales)"
)


def resize_vocabulary_node(operation: ResizeVocabulary, before: Architecture) -> Architecture:
    """The architecture with another vocabulary; ConfigError if that is the same, or lacks the source."""
    old, source = before.vocab_size, operation.get("source")
    if operation["size"] == old:
        raise ConfigError(
            f"size: expected more or fewer than {old}, the tokens of the model, got {old}"
        )
    if isinstance(source, int) and source >= old:
        raise ConfigError(f"source: expected a token below {old}, got {source}")
    return Architecture(before.node, operation["size"])


def resize_vocabulary_arrays(
    operation: ResizeVocabulary, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays with rows for more tokens, or fewer. The logits of tokens in both do not change."""
    old, size, source = before.vocab_size, operation["size"], operation.get("source")
    index = np.concatenate([np.arange(min(old, size)), np.full(max(size - old, 0), -1)])
    fills: Arrays = {}
    for path, array in arrays.items():
        if TABLE.fullmatch(path):
            shape = (size, *array.shape[1:])
            std = STD if source is None else operation.get("noise", 0.01)
            drawn = (
                mx.zeros(shape)
                if array.ndim < 2
                else draw(seed, f"{operation['id']}.{path}", shape, std)
            )
            start = (
                array.mean(axis=0)
                if source == "mean"
                else None
                if source is None
                else array[source]
            )
            fills[path] = drawn if start is None else drawn + start
    return gather_tokens(index, arrays, fills)


def gather_tokens(
    forward: np.ndarray, arrays: Arrays, fills: Arrays | None = None
) -> tuple[Arrays, Sources]:
    """The arrays of the model whose token i is the old token `forward[i]`, or a new one where that is -1.

    Args:
        fills: embeddings of new tokens by path, in arrays of the new shape; 0 where there is none.

    Raises:
        ConfigError: embedding or output layer have an adapter, or are quantised.
    """
    require_plain_layers("vocabulary", filter(ADAPTED.fullmatch, arrays))
    result: Arrays = {}
    sources: Sources = {}
    is_classifier = has_classifier(arrays)
    for path, array in arrays.items():
        is_table = TABLE.fullmatch(path) and not (is_classifier and path.startswith("head."))
        sources[path] = Source(path, (Gather(0, forward),) if is_table else ())
        result[path] = gather(array, sources[path], (fills or {}).get(path))
    return result, sources
