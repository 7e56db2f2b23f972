"""Texts as vectors: the mean of the states of a pretrained encoder (Reimers and Gurevych 2019)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from mlxlab.checkpoint.arrays import FLOATS, digest, evaluate_finite, write_safetensors
from mlxlab.data.batch import pad
from mlxlab.data.cache import content_key
from mlxlab.data.tokenizers.tokenizer import load_tokenizer
from mlxlab.files.atomic import write_json
from mlxlab.models.build import build_backbone
from mlxlab.models.layers import named_parameters
from mlxlab.models.pretrained.config import read_config
from mlxlab.models.pretrained.load import read_shape, target_of
from mlxlab.models.pretrained.weights import load_weights, read_arrays

MAX_TOKENS = 64  # the rest of a text is not read
BATCH_TOKENS = 4096


class SentenceEncoder:
    """A published encoder, whose weights are rounded to float16: an `Embedder`.

    Args:
        path: its folder.

    Raises:
        InputNotFoundError, DataError, NotAllowedError, ConfigError: it cannot be read, or is of no supported kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tokenizer = load_tokenizer(path)
        vocab_size = self._tokenizer.vocab_size
        node = {"_target_": target_of(path), "dropout": 0.0}
        shape = {"vocab_size": vocab_size, **read_shape(path, node, vocab_size)}
        vocab_size = int(str(shape.pop("vocab_size")))
        backbone = build_backbone({**node, **shape}, vocab_size)
        load_weights(backbone, path)
        self.size = backbone.output_size
        self._max_tokens = min(MAX_TOKENS, backbone.position_limit or MAX_TOKENS)
        self._backbone = backbone
        assert isinstance(backbone, nn.Module)
        backbone.update(tree_map(_round, backbone.parameters()))
        backbone.eval()
        weights = named_parameters(backbone)
        evaluate_finite(weights, str(path))
        self.fingerprint = content_key(
            architecture={**node, **shape},
            vocab_size=vocab_size,
            weights=digest(weights),
            tokenizer=self._tokenizer.fingerprint,
            max_tokens=self._max_tokens,
        )

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder`."""
        tokens = self._tokenizer.encode_batch(texts, self._max_tokens)
        vectors = np.zeros((len(texts), self.size), np.float32)
        for rows in _batches(tokens):
            vectors[rows] = self._embed([tokens[row] for row in rows])
        return vectors

    def save(self, folder: Path) -> None:
        """Writes a folder that `SentenceEncoder` reads, with the same vectors; does nothing to its own."""
        if folder.resolve() == self.path.resolve():
            return
        folder.mkdir(exist_ok=True)
        arrays = {name: _shorten(array) for name, array in read_arrays(self.path).items()}
        write_json(folder / "config.json", dict(read_config(self.path)))
        self._tokenizer.save(folder)
        write_safetensors(folder / "model.safetensors", arrays)

    def _embed(self, tokens: Sequence[np.ndarray]) -> np.ndarray:
        padded, mask = pad(tokens, self._tokenizer.pad_id, self._max_tokens)
        segment_ids = mx.array(mask)
        states = self._backbone(mx.array(padded), segment_ids)
        total = (states * segment_ids[:, :, None]).sum(axis=1)
        vectors = np.array(total.astype(mx.float32))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def _batches(tokens: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Rows of about equal length, of which a batch has `BATCH_TOKENS` tokens."""
    order = np.argsort([len(each) for each in tokens], kind="stable")[::-1].tolist()
    start = 0
    while start < len(order):
        size = max(1, BATCH_TOKENS // max(1, len(tokens[order[start]])))
        yield order[start : start + size]
        start += size


def _shorten(array: mx.array) -> mx.array:
    if array.dtype in FLOATS:
        array = array.astype(mx.float16)
    return array


def _round(array: mx.array) -> mx.array:
    return _shorten(array).astype(array.dtype)
