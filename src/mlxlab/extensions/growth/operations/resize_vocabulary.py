"""A larger or smaller vocabulary: rows of the embedding and of the output layer, by index."""

import re

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import (
    Extension,
    Gather,
    Sources,
    extend_arrays,
    has_classifier,
    require_plain_layers,
)
from mlxlab.extensions.growth.operations.schema import ResizeVocabulary
from mlxlab.models.build import Architecture
from mlxlab.models.initialization import STD

TABLE = re.compile(r"backbone\.(?:encoder\.)?embedding\.weight|head\.out\.weight|head\.bias")
ADAPTED = re.compile(
    r"(?:backbone\.(?:encoder\.)?embedding|head\.out)\.(?:base\.)?(?:lora_a|scales)"
)
NOISE = 0.01  # standard deviation of the noise on copies of embeddings, by default


def resize_vocabulary_node(operation: ResizeVocabulary, before: Architecture) -> Architecture:
    """The architecture with another vocabulary; ConfigError if it is the same or has no source."""
    old = before.vocab_size
    source = operation.get("source")
    if operation["size"] == old:
        raise ConfigError(f"size: expected more or fewer than {old}, got {old}")
    if isinstance(source, int) and source >= old:
        raise ConfigError(f"source: expected a token below {old}, got {source}")
    return Architecture(before.node, operation["size"])


def resize_vocabulary_arrays(
    operation: ResizeVocabulary, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays with more or fewer rows. The logits of tokens in both do not change.

    Raises ConfigError if embedding or output layer have an adapter, or are quantised.
    """
    require_plain_layers("vocabulary", filter(ADAPTED.fullmatch, arrays))
    is_classifier = has_classifier(arrays)
    source = operation.get("source")
    index = np.arange(operation["size"])
    index[before.vocab_size :] = -1
    extension = Extension(Gather(0, index), STD)
    if source is not None:

        def base(array: mx.array) -> mx.array:
            return array.mean(axis=0) if source == "mean" else array[source]

        extension = Extension(Gather(0, index), operation.get("noise", NOISE), base)

    def choose(path: str) -> Extension | None:
        if not TABLE.fullmatch(path) or (is_classifier and path.startswith("head.")):
            return None
        return extension

    return extend_arrays(operation, arrays, seed, choose)
