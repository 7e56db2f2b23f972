"""From the tokens that `data.vocabulary` keeps to all tokens: rows move to original ids."""

from typing import Literal, NotRequired, TypedDict

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.constraints import NonNegative
from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Sources, draw
from mlxlab.extensions.growth.operations.resize_vocabulary import NOISE, gather_tokens
from mlxlab.extensions.growth.operations.schema import ArchitectureOperation
from mlxlab.models.build import Architecture


class MappedGrowVocabulary(TypedDict):
    """`GrowVocabulary` with the vocabulary of the data, of which the config knows the size only."""

    id: str
    op: Literal["grow_vocabulary"]
    noise: NotRequired[NonNegative]
    vocabulary: VocabularyMap


def with_vocabulary(
    operation: ArchitectureOperation, vocabulary: VocabularyMap | None
) -> ArchitectureOperation | MappedGrowVocabulary:
    """The operation as it is applied to a model of these ids; None if they are the original ones."""
    if operation["op"] != "grow_vocabulary":
        return operation
    if vocabulary is None:
        raise ConfigError("expected data.vocabulary.size or data.vocabulary.coverage")
    return MappedGrowVocabulary(
        id=operation["id"],
        op="grow_vocabulary",
        noise=operation.get("noise", NOISE),
        vocabulary=vocabulary,
    )


def grow_vocabulary_node(operation: MappedGrowVocabulary, before: Architecture) -> Architecture:
    """The architecture with all tokens."""
    vocabulary = operation["vocabulary"]
    if before.vocab_size != vocabulary.size:
        raise ConfigError(f"expected a model of {vocabulary.size} tokens, got {before.vocab_size}")
    return Architecture(before.node, vocabulary.vocab_size)


def grow_vocabulary_arrays(
    operation: MappedGrowVocabulary, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays with a row for every original id; those of rare tokens are the rare row with noise.

    The logits of kept tokens do not change, under their original ids.
    """
    vocabulary = operation["vocabulary"]

    def new_rows(path: str, array: mx.array) -> mx.array:
        shape = (vocabulary.vocab_size, *array.shape[1:])
        std = operation.get("noise", NOISE) if array.ndim > 1 else 0.0
        return draw(seed, f"{operation['id']}.{path}", shape, std) + array[vocabulary.rare_id]

    index = np.where(vocabulary.is_core, vocabulary.forward, -1)
    return gather_tokens(index, arrays, new_rows)
