"""Copies of a model's trained matrices."""

import re
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

EMBEDDING_PATH = re.compile(r"(?:^|\.)embedding(?:\.base)?\.weight$")
MATRIX_PATH = re.compile(
    r"(?:^|\.)(?:layers|blocks|h)\.(\d+)\.(.+?)(?:\.base)?(?:\.weight|\.(lora_[ab]))$"
)


@dataclass(frozen=True)
class Snapshot:
    """Float32 matrices at an optimizer step.

    Args:
        model: identifies the model. Those of another one cannot be compared with it: there, a layer
            of the same number may be another layer.
        embedding: sampled rows.
        layers: matrices by layer, and by path in the layer.
    """

    step: int
    model: object
    embedding: np.ndarray | None
    layers: dict[int, dict[str, np.ndarray]]


def take_snapshot(model: nn.Module, step: int, max_rows: int, identity: object) -> Snapshot:
    """Copies the matrices that are trained, without frozen and quantised ones.

    Args:
        max_rows: rows of the embedding that are copied, sampled as a function of its size.
        identity: `Snapshot.model`.
    """
    embedding = None
    layers: dict[int, dict[str, np.ndarray]] = {}
    leaves = cast(list[tuple[str, mx.array]], tree_flatten(model.trainable_parameters()))
    for path, array in leaves:
        if array.ndim != 2 or not mx.issubdtype(array.dtype, mx.floating):
            continue
        match = MATRIX_PATH.search(path)
        if match:
            number, *names = match.groups()
            matrices = layers.setdefault(int(number), {})
            matrices[".".join(filter(None, names))] = np.array(array.astype(mx.float32))
        elif EMBEDDING_PATH.search(path):
            shuffled = np.random.default_rng(0).permutation(len(array))
            rows = array[mx.array(np.sort(shuffled[:max_rows]))]
            embedding = np.array(rows.astype(mx.float32))
    return Snapshot(step, identity, embedding, dict(sorted(layers.items())))
