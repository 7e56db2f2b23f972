"""Rows of a pretrained model for the tokens that are kept of its vocabulary."""

import mlx.core as mx
import numpy as np

from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.models.backbone import Backbone
from mlxlab.models.model import CausalHead, Head, MaskedHead


def keep_rows(backbone: Backbone, head: Head, vocabulary: VocabularyMap) -> None:
    """Restricts embedding and head of a language model to the ids of `vocabulary`."""
    backbone.embedding.weight = select_rows(backbone.embedding.weight, vocabulary)
    if isinstance(head, CausalHead) and "out" in head:
        head.out.weight = select_rows(head.out.weight, vocabulary)
    if isinstance(head, MaskedHead):
        head.bias = select_rows(head.bias, vocabulary)


def select_rows(weight: mx.array, vocabulary: VocabularyMap) -> mx.array:
    """The rows of the kept tokens, then that of the rare id: the weighted mean of the others.

    The weights are one more than how often they occur in the training text.

    Args:
        weight: a row for each original id, and possibly more.
    """
    rare = np.flatnonzero(~vocabulary.is_core)
    counts = np.ones(len(rare)) if vocabulary.counts is None else vocabulary.counts[rare] + 1.0
    rows = np.array(weight.astype(mx.float32), np.float64)
    mean = (rows[rare] * (counts / counts.sum()).reshape(-1, *[1] * (rows.ndim - 1))).sum(
        axis=0, keepdims=True
    )
    return mx.array(np.concatenate([rows[vocabulary.core_ids], mean]).astype(np.float32)).astype(
        weight.dtype
    )
