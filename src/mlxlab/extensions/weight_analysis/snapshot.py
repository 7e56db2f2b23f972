"""Copies of a model's trained matrices."""

import re
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

EMBEDDING = "embedding"
ROWS = "embedding_rows"
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
        arrays: matrices by `<layer>.<path in the layer>`, and sampled rows of the embedding with
            their ids.
    """

    step: int
    model: object
    arrays: dict[str, np.ndarray]

    @property
    def embedding(self) -> np.ndarray | None:
        return self.arrays.get(EMBEDDING)

    @property
    def layers(self) -> dict[int, dict[str, np.ndarray]]:
        """Matrices by layer and by path in the layer."""
        result: dict[int, dict[str, np.ndarray]] = {}
        for key, array in self.arrays.items():
            number, _, path = key.partition(".")
            if path:
                result.setdefault(int(number), {})[path] = array
        return dict(sorted(result.items()))


def take_snapshot(model: nn.Module, step: int, max_rows: int, identity: object) -> Snapshot:
    """Copies the matrices that are trained, without frozen and quantised ones.

    Args:
        max_rows: rows of the embedding that are copied, sampled as a function of its size.
        identity: `Snapshot.model`.
    """
    arrays: dict[str, np.ndarray] = {}
    for path, array in named_matrices(model).items():
        if path == EMBEDDING:
            shuffled = np.random.default_rng(0).permutation(len(array))
            arrays[ROWS] = np.sort(shuffled[:max_rows])
            array = array[mx.array(arrays[ROWS])]
        arrays[path] = np.array(array.astype(mx.float32))
    return Snapshot(step, identity, arrays)


def named_matrices(model: nn.Module) -> dict[str, mx.array]:
    """The trained embedding, and the matrices of layers as `3.attention.query`."""
    result: dict[str, mx.array] = {}
    leaves = cast(list[tuple[str, mx.array]], tree_flatten(model.trainable_parameters()))
    for path, array in leaves:
        if array.ndim != 2 or not mx.issubdtype(array.dtype, mx.floating):
            continue
        if match := MATRIX_PATH.search(path):
            result[".".join(filter(None, match.groups()))] = array
        elif EMBEDDING_PATH.search(path):
            result[EMBEDDING] = array
    return result
