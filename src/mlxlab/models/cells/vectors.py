"""Vectors of texts by a pretrained encoder, each computed once."""

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from mlxlab.data.cache import HEADER_BYTES, cached, content_key
from mlxlab.errors import DataError

MAX_SIZE = 2**13  # numbers of a vector

Embed = Callable[[Sequence[str]], np.ndarray]  # N texts -> (N, E) float32, each of length 1


class Embedder(Protocol):
    """A pretrained encoder of texts."""

    @property
    def size(self) -> int:
        """E, the numbers of a vector."""

    @property
    def fingerprint(self) -> str:
        """Changes with any vector."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(N, E) float32, each of length 1."""

    def save(self, folder: Path) -> None:
        """Writes what restores the encoder."""


def known_vectors(embedder: Embedder, texts: Sequence[str], cache: Path) -> Embed:
    """The encoder for these texts alone, whose vectors are read from a file of the cache."""
    rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}

    def write(file: BinaryIO) -> None:
        file.write(embedder(list(rows)).tobytes())

    def read(data: mmap.mmap) -> np.ndarray:
        values = np.frombuffer(data, np.float32, offset=HEADER_BYTES)
        if values.size != len(rows) * embedder.size or not np.isfinite(values).all():
            raise DataError("expected the vectors of other texts")
        return values.reshape(len(rows), embedder.size)

    key = content_key(encoder=embedder.fingerprint, texts=list(rows))
    vectors, _ = cached(cache / f"vectors-{key}", write, read)

    def embed(texts: Sequence[str]) -> np.ndarray:
        return vectors[[rows[text] for text in texts]]

    return embed
