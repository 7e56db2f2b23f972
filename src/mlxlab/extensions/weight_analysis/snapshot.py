"""Copies of a model's trained matrices, in memory and in files that a resumed run compares its weights with."""

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxlab.errors import UserError
from mlxlab.files.atomic import remove_leftovers, write_atomic
from mlxlab.files.untrusted import open_regular
from mlxlab.models.build import Architecture

EMBEDDING, ROWS = "embedding", "embedding_rows"
KEPT_FILES = 2  # a run may be resumed from the checkpoint before the last one

_embedding = re.compile(r"(?:^|\.)embedding(?:\.base)?\.weight$")
_matrix = re.compile(
    r"(?:^|\.)(?:layers|blocks|h)\.(\d+)\.(.+?)(?:\.base)?(?:\.weight|\.(lora_[ab]))$"
)
_file = re.compile(r"snapshot-(\d{8})-([0-9a-f]{16})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """Float32 matrices at an optimizer step.

    Those of another `model` cannot be compared with them: there, a layer of the same number may be another layer.
    `arrays` has those of layers under `<layer>.<path in the layer>`, and sampled rows of the embedding with their ids.
    """

    step: int
    model: str  # as of `model_digest`
    arrays: dict[str, np.ndarray]

    @property
    def embedding(self) -> np.ndarray | None:
        return self.arrays.get(EMBEDDING)

    @property
    def layers(self) -> dict[int, dict[str, np.ndarray]]:
        """layer -> path in the layer -> matrix"""
        result: dict[int, dict[str, np.ndarray]] = {}
        for key, array in self.arrays.items():
            number, _, path = key.partition(".")
            if path:
                result.setdefault(int(number), {})[path] = array
        return dict(sorted(result.items()))


def model_digest(architecture: Architecture, since: int) -> str:
    """Identifies a model by its architecture and the step after which it took the place of another one."""
    text = json.dumps([*architecture, since], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def take_snapshot(model: nn.Module, step: int, max_rows: int, digest: str) -> Snapshot:
    """Copies the matrices that are trained; frozen and quantised ones, and names without a layer number, are left out.

    Args:
        max_rows: rows of the embedding that are copied, sampled as a function of its size.
        digest: of the model, as of `model_digest`.
    """
    arrays: dict[str, np.ndarray] = {}
    for path, array in named_matrices(model).items():
        if path == EMBEDDING:
            rows = np.sort(np.random.default_rng(0).permutation(array.shape[0])[:max_rows]).astype(
                np.int32
            )
            arrays[ROWS], array = rows, array[mx.array(rows)]
        arrays[path] = np.array(array.astype(mx.float32))
    return Snapshot(step, digest, arrays)


def named_matrices(model: nn.Module) -> dict[str, mx.array]:
    """The trained embedding, and the matrices of layers as `3.attention.query` or `3.attention.query.lora_a`."""
    result: dict[str, mx.array] = {}
    leaves = cast(list[tuple[str, mx.array]], tree_flatten(model.trainable_parameters()))
    for path, array in leaves:
        if array.ndim != 2 or not mx.issubdtype(array.dtype, mx.floating):
            continue
        if match := _matrix.search(path):
            result[".".join(filter(None, match.groups()))] = array
        elif _embedding.search(path):
            result[EMBEDDING] = array
    return result


def snapshot_bytes(model: nn.Module, max_rows: int) -> int:
    """Memory that `take_snapshot` needs."""
    matrices = named_matrices(model)
    size = sum(array.size for path, array in matrices.items() if path != EMBEDDING)
    if EMBEDDING in matrices:
        rows, width = matrices[EMBEDDING].shape
        size += min(rows, max_rows) * width
    return 4 * size


def save_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Writes a snapshot under a name with its checksum, and removes all but the newest; raises OSError."""
    from safetensors.numpy import save

    data = save(snapshot.arrays)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"snapshot-{snapshot.step:08d}-{snapshot.model}-{_checksum(snapshot.model, data)}.safetensors"
    write_atomic(folder / name, data, durable=True)
    for path in _files(folder)[:-KEPT_FILES]:
        path.unlink()


def load_newest(folder: Path, before: int, model: str) -> Snapshot | None:
    """The newest good snapshot of a model (its digest) from before a step; None if there is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    for path in reversed(_files(folder)):
        match = _file.fullmatch(path.name)
        if match is None or int(match[1]) >= before or match[2] != model:
            continue
        with suppress(UserError, SafetensorError, ValueError), open_regular(path) as file:
            data = file.read()
            if _checksum(model, data) == match[3]:
                return Snapshot(int(match[1]), model, load(data))
    return None


def _checksum(model: str, data: bytes) -> str:
    return hashlib.sha256(model.encode() + data).hexdigest()


def remove_newer(folder: Path, step: int) -> None:
    """Removes the snapshots after a step, which a resumed run takes again, and leftovers of a killed one."""
    remove_leftovers(folder)
    for path in _files(folder):
        if int(path.name.split("-")[1]) > step:
            path.unlink()


def _files(folder: Path) -> list[Path]:
    """In the order of their steps."""
    return (
        sorted(path for path in folder.glob("snapshot-*") if _file.fullmatch(path.name))
        if folder.is_dir()
        else []
    )
