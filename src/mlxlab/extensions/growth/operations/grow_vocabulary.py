"""From the tokens that `data.vocabulary` keeps back to all tokens: each row under the original id of its token."""

from typing import Literal, NotRequired, TypedDict

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.constraints import NonNegative
from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Sources, draw
from mlxlab.extensions.growth.operations.resize_vocabulary import TABLE, gather_tokens
from mlxlab.extensions.growth.operations.schema import ArchitectureOperation
from mlxlab.models.build import Architecture

NOISE = 0.01  # standard deviation, by default


class MappedGrowVocabulary(TypedDict):
    """`GrowVocabulary` with the vocabulary of the data, of which the config knows only the size."""

    id: str
    op: Literal["grow_vocabulary"]
    noise: NotRequired[NonNegative]
    vocabulary: VocabularyMap


def with_vocabulary(
    operation: ArchitectureOperation, vocabulary: VocabularyMap | None
) -> ArchitectureOperation | MappedGrowVocabulary:
    """The operation as it is applied to a model of these ids; ConfigError if they are the original ones."""
    if operation["op"] != "grow_vocabulary":
        return operation
    if vocabulary is None:
        raise ConfigError(
            "expected data.vocabulary.size or data.vocabulary.coverage, from which the vocabulary grows"
        )
    mapped = MappedGrowVocabulary(id=operation["id"], op="grow_vocabulary", vocabulary=vocabulary)
    return {**mapped, "noise": operation["noise"]} if "noise" in operation else mapped


def grow_vocabulary_node(operation: MappedGrowVocabulary, before: Architecture) -> Architecture:
    """The architecture with all tokens."""
    vocabulary = operation["vocabulary"]
    if before.vocab_size == vocabulary.vocab_size:
        raise ConfigError(
            f"expected a model of fewer tokens, got all {vocabulary.vocab_size}: it has grown already"
        )
    if before.vocab_size != vocabulary.size:
        raise ConfigError(
            f"expected a model of the {vocabulary.size} ids of the data, got {before.vocab_size}"
        )
    return Architecture(before.node, vocabulary.vocab_size)


def grow_vocabulary_arrays(
    operation: MappedGrowVocabulary, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays with a row for every original id; those of rare tokens are the rare row with noise.

    The logits of kept tokens do not change, under their original ids.
    """
    vocabulary = operation["vocabulary"]
    fills: Arrays = {}
    for path, array in arrays.items():
        if TABLE.fullmatch(path):
            shape = (vocabulary.vocab_size, *array.shape[1:])
            name, std = f"{operation['id']}.{path}", operation.get("noise", NOISE)
            noise = draw(seed, name, shape, std) if array.ndim > 1 else mx.zeros(shape)
            fills[path] = noise + array[vocabulary.rare_id]
    return gather_tokens(np.where(vocabulary.is_core, vocabulary.forward, -1), arrays, fills)
