"""Chooses a vocabulary size: the minimum of what the text and the model support and where growth gains little.

Byte-pair encoding is nested: the first k merges of a longer training are those of a training to k merges, and undoing
the later merges gives the tokens of the smaller vocabulary. So one training and one encoding give every size, exactly.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np

from mlxlab.constraints import Count, Ge, Size
from mlxlab.data.tokenizers.tokenizer import Tokenizer

BASE_SIZE = 260  # four special tokens and the bytes, in every vocabulary
STEP, MIN_SIZE = 64, 512
OCCURRENCES, RARE_PERCENT = (
    100,
    5,
)  # Gowda and May 2020: all but 5 % of the learned tokens occur 100 times
ELBOW = 0.05  # doubling the vocabulary gains less than that in bytes per token
CHUNK = 1000  # texts that are encoded at a time

TokenizerFile = dict[str, Any]  # a tokenizer.json


class SizeStatistics(TypedDict):
    """Measurements of each size of `vocabulary_sizes`, and the rest of what a size is chosen by."""

    bytes_per_token: list[Annotated[float, Ge(0)]]  # of texts that the tokenizer was not trained on
    occurrences: list[
        Count
    ]  # in the training texts, of all but the rarest 5 % of the learned tokens
    train_bytes: Size
    by_length: Size  # the size by the mean length of a text


@dataclass(frozen=True)
class VocabSizeCurve:
    """The measured curve, the chosen size and the reason; saved as vocabulary.json in the run folder."""

    sizes: list[int]
    bytes_per_token: list[float]
    chosen: int
    reason: str
    limits: dict[str, int | None]  # data, model, elbow; None sets no limit

    def describe(self) -> str:
        """The chosen size and the reason, for the log; the curve is in `vocabulary.json` and in a plot."""
        return f"vocabulary: {self.chosen:,} tokens, {self.reason}"

    def save(self, folder: Path) -> None:
        (folder / "vocabulary.json").write_text(
            json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8"
        )


def vocabulary_sizes(full_size: int) -> list[int]:
    """The multiples of 64 from 512, and the full size."""
    return [*range(MIN_SIZE, full_size, STEP), full_size]


def measure(tokenizer: Tokenizer, seen: Sequence[str], held: Sequence[str]) -> SizeStatistics:
    """Statistics of a trained byte-level BPE on the texts that it was trained on, and on others."""
    parents = merge_parents(json.loads(tokenizer.inner.to_str()))
    learned = [
        np.sort(counts[BASE_SIZE:]) for counts in shrink(count_tokens(tokenizer, seen), parents)
    ]
    totals = [int(counts.sum()) for counts in shrink(count_tokens(tokenizer, held), parents)]
    train_bytes, held_bytes = (sum(len(text.encode()) for text in texts) for texts in (seen, held))
    return {
        "bytes_per_token": [held_bytes / max(total, 1) for total in totals],
        "occurrences": [
            int(counts[len(counts) * RARE_PERCENT // 100]) if len(counts) else 0
            for counts in learned
        ],
        "train_bytes": train_bytes,
        "by_length": size_by_length(seen),
    }


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """(V,) occurrences of each token."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for start in range(0, len(texts), CHUNK):
        for ids in tokenizer.encode_documents(texts[start : start + CHUNK]):
            counts += np.bincount(ids, minlength=len(counts))
    return counts


def shrink(counts: np.ndarray, parents: np.ndarray) -> list[np.ndarray]:
    """The counts (size,) under every vocabulary of `vocabulary_sizes`, from those (V,) under the full one."""
    counts, size, shrunk = counts.copy(), len(counts), []
    for smaller in reversed(vocabulary_sizes(size)):
        for token in range(size - 1, smaller - 1, -1):
            np.add.at(
                counts, parents[token], counts[token]
            )  # a token merged with itself counts twice
        shrunk.append(counts[:smaller].copy())
        size = smaller
    return shrunk[::-1]


def truncate_bpe(file: TokenizerFile, size: int) -> TokenizerFile:
    """The tokenizer.json of a byte-level BPE truncated to `size` tokens, as training to that size would give it."""
    model = file["model"]
    vocabulary = {piece: token for piece, token in model["vocab"].items() if token < size}
    merges = []
    reached = max((token for token in vocabulary.values() if token < BASE_SIZE), default=-1) + 1
    for first, second in model["merges"]:
        if reached >= size:
            break
        reached = max(reached, model["vocab"][first + second] + 1)
        merges.append([first, second])
    return file | {"model": model | {"vocab": vocabulary, "merges": merges}}


def merge_parents(file: TokenizerFile) -> np.ndarray:
    """(V, 2) the tokens that each was merged from, by its first merge; -1 for tokens that are not merges."""
    vocabulary = file["model"]["vocab"]
    parents = np.full((max(vocabulary.values()) + 1, 2), -1)
    for first, second in file["model"]["merges"]:
        token = vocabulary[first + second]
        if parents[token][0] < 0:
            parents[token] = vocabulary[first], vocabulary[second]
    return parents


def size_by_model(parameters: int, width: int) -> int:
    """Tao et al. 2024: 1e8 (N / 3e9)^0.83 / d, anchored at their model of 3 B; extrapolated below 33 M."""
    return int(1e8 * (parameters / 3e9) ** 0.83 / width)


def size_by_length(texts: Sequence[str]) -> int:
    """A size by the mean characters of a text, 1.5 times as large for more than 1,000 distinct characters."""
    mean = sum(map(len, texts)) / len(texts)
    size = 8_000 if mean < 100 else 16_000 if mean < 500 else 32_000
    return size * 3 // 2 if len(set().union(*texts)) > 1000 else size


def size_by_data(
    statistics: SizeStatistics, full_size: int, planned_bytes: int | None
) -> int | None:
    """Gowda and May 2020: the largest of whose learned tokens 95 in 100 occur 100 times in the planned text."""
    if planned_bytes is None:
        return None
    expected = OCCURRENCES * statistics["train_bytes"] / planned_bytes  # occurrences in the sample
    supported = zip(vocabulary_sizes(full_size), statistics["occurrences"], strict=True)
    return max(
        (size for size, occurrences in supported if occurrences >= expected), default=MIN_SIZE
    )


def size_by_elbow(per_token: dict[int, float]) -> int | None:
    """The smallest vocabulary whose double has less than 5 % more bytes per token; None if there is none."""
    flat = [
        size
        for size, value in per_token.items()
        if per_token.get(2 * size, 9e9) < (1 + ELBOW) * value
    ]
    return min(flat, default=None)
