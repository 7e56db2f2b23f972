"""Chooses a vocabulary size: the minimum of what text and model support and where growth pays.

Byte-pair encoding is nested: the first k merges of a longer training are those of a training to k
merges, and undoing the later merges gives the tokens of the smaller vocabulary. So one training
and one encoding give every size, exactly.
"""

import json
from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from mlxlab.data.tokenizers.tokenizer import Tokenizer

BASE_SIZE = 260  # four special tokens and the bytes, in every vocabulary
STEP = 64
MIN_SIZE = 512
MIN_OCCURRENCES = 64  # The mean of the tokens of a text; see docs/explanation/log.md.
ELBOW = 0.05  # Doubling the vocabulary gains less than that in bytes per token.

TokenizerFile = dict[str, Any]  # a tokenizer.json


def vocabulary_sizes(full_size: int) -> list[int]:
    """The multiples of 64 from 512, and the full size."""
    return [*range(MIN_SIZE, full_size, STEP), full_size]


def measure(tokenizer: Tokenizer, held: Sequence[str]) -> list[float]:
    """Bytes per token of each size of a byte-level BPE, on texts that it was not trained on."""
    num_bytes = sum(len(text.encode()) for text in held)
    parents = merge_parents(json.loads(tokenizer.inner.to_str()))
    tokens = np.concatenate(tokenizer.encode_documents(held))
    totals = tokens_by_size(np.bincount(tokens, minlength=len(parents)), parents)
    return [num_bytes / max(totals[size], 1) for size in vocabulary_sizes(len(parents))]


def tokens_by_size(counts: np.ndarray, parents: np.ndarray) -> dict[int, int]:
    """How many tokens the texts have under each size down to 512.

    Args:
        counts: (V,) occurrences under the full vocabulary.
        parents: (V, 2) as `merge_parents`.
    """
    counts = counts.copy()
    total = int(counts.sum())
    totals = {len(counts): total}
    for token in reversed(range(MIN_SIZE, len(counts))):
        total += int(counts[token])
        # `add.at` counts a token that was merged with itself twice.
        np.add.at(counts, parents[token], counts[token])
        totals[token] = total
    return totals


def truncate_bpe(file: TokenizerFile, size: int) -> TokenizerFile:
    """The tokenizer.json of a byte-level BPE of `size` tokens, as training to it would give."""
    model = file["model"]
    vocabulary = {piece: token for piece, token in model["vocab"].items() if token < size}
    merges = []
    if size > BASE_SIZE:
        merged = [model["vocab"][first + second] for first, second in model["merges"]]
        merges = model["merges"][: merged.index(size - 1) + 1]
    return file | {"model": model | {"vocab": vocabulary, "merges": merges}}


def merge_parents(file: TokenizerFile) -> np.ndarray:
    """(V, 2) the tokens that each was first merged from; -1 for tokens that are not merges."""
    vocabulary = file["model"]["vocab"]
    parents = np.full((max(vocabulary.values()) + 1, 2), -1)
    for first, second in reversed(file["model"]["merges"]):
        parents[vocabulary[first + second]] = vocabulary[first], vocabulary[second]
    return parents


def find_limits(
    per_token: dict[int, float], parameters: int, width: int, planned_bytes: int | None
) -> dict[str, int]:
    """The largest useful sizes: by the model, and by the data and the elbow as far as these set one."""
    limits = {"model": size_by_model(parameters, width)}
    if planned_bytes is not None:
        limits["data"] = size_by_data(per_token, planned_bytes)
    elbow = size_by_elbow(per_token)
    if elbow is not None:
        limits["elbow"] = elbow
    return limits


def size_by_model(parameters: int, width: int) -> int:
    """Tao et al. 2024: 1e8 (N / 3e9)^0.83 / d, anchored at 3 B; extrapolated below 33 M."""
    return int(1e8 * (parameters / 3e9) ** 0.83 / width)


def size_by_data(per_token: dict[int, float], planned_bytes: int) -> int:
    """The largest size whose tokens occur 64 times in the text of an epoch, on average."""
    tokens = planned_bytes / MIN_OCCURRENCES
    sizes = [size for size in per_token if size * per_token[size] <= tokens]
    return max([MIN_SIZE, *sizes])


def size_by_elbow(per_token: dict[int, float]) -> int | None:
    """The smallest size whose double has under 5 % more bytes per token; None if there is none."""
    for size, value in sorted(per_token.items()):
        if per_token.get(2 * size, inf) < (1 + ELBOW) * value:
            return size
    return None
