"""Chooses a vocabulary size: the minimum of what the text and the model support and where growth gains little.

Byte-pair encoding is nested: the first k merges of a longer training are those of a training to k merges, and undoing
the later merges gives the tokens of the smaller vocabulary. So one training and one encoding give every size, exactly.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

BASE_SIZE = 260  # four special tokens and the bytes, in every vocabulary
STEP, MIN_SIZE = 64, 512
OCCURRENCES, PERCENTILE = 100, 95  # Gowda and May 2020: 95 % of the learned tokens occur 100 times
ELBOW = 0.05  # doubling the vocabulary gains less than that in bytes per token

TokenizerFile = dict[str, Any]  # a tokenizer.json


@dataclass(frozen=True)
class VocabSizeCurve:
    """The measured curve, the chosen size and the reason; saved as vocabulary.json in the run folder."""

    sizes: list[int]
    bytes_per_token: list[float]
    chosen: int
    reason: str
    limits: dict[str, int | None] = field(default_factory=dict)  # data, model, elbow; None sets no limit

    @staticmethod
    def measured(
        per_token: dict[int, float], chosen: int, reason: str, limits: dict[str, int | None] | None = None
    ) -> "VocabSizeCurve":
        """The curve at powers of 2, the largest size and the chosen one; `per_token` has bytes per token by size."""
        powers = {2**k for k in range(9, 20)}
        sizes = sorted((powers | {max(per_token), chosen}) & per_token.keys())
        return VocabSizeCurve(sizes, [round(per_token[size], 4) for size in sizes], chosen, reason, limits or {})

    def lines(self) -> list[str]:
        """The curve and the reason, for the log."""
        points = ", ".join(f"{size} {value:.2f}" for size, value in zip(self.sizes, self.bytes_per_token, strict=True))
        return [f"vocabulary: bytes per token at {points}", f"vocabulary: {self.chosen} tokens, {self.reason}"]

    def save(self, folder: Path) -> None:
        (folder / "vocabulary.json").write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class TokenCounts:
    """Token counts of a sample under a trained vocabulary, and the two tokens that each was merged from.

    Args:
        counts: (V,) by token id.
        parents: (V, 2) token ids; -1 for bytes and special tokens.
        sample_bytes: bytes of the sample.
    """

    counts: np.ndarray
    parents: np.ndarray
    sample_bytes: int

    def shrink(self) -> dict[int, np.ndarray]:
        """Counts under every vocabulary of a multiple of 64 tokens, and the whole one: size -> (size,)."""
        counts, size = self.counts.astype(np.int64), len(self.counts)
        by_size = {size: counts.copy()}
        while size > BASE_SIZE:
            size -= 1
            counts[self.parents[size]] += [counts[size]] * 2  # a token merged with itself counts once here
            if self.parents[size][0] == self.parents[size][1]:
                counts[self.parents[size][0]] += counts[size]
            if size % STEP == 0 and size >= MIN_SIZE:
                by_size[size] = counts[:size].copy()
        return by_size

    def bytes_per_token(self) -> dict[int, float]:
        return {size: self.sample_bytes / max(counts.sum(), 1) for size, counts in self.shrink().items()}


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


def size_by_length(texts: list[str]) -> int:
    """A size by the mean characters of a text, 1.5 times as large for more than 1,000 distinct characters."""
    mean = sum(map(len, texts)) / len(texts)
    size = 8_000 if mean < 100 else 16_000 if mean < 500 else 32_000
    return size * 3 // 2 if len(set().union(*texts)) > 1000 else size


def choose(
    seen: TokenCounts,
    held: TokenCounts,
    *,
    planned_bytes: int | None,
    parameters: int,
    width: int,
    min_size: int,
    max_size: int,
) -> VocabSizeCurve:
    """The minimum of three limits, rounded down to a multiple of 64, between `min_size` and `max_size`.

    A text too small for `min_size` tokens gets as many as it supports, but at least 512.

    Args:
        seen: counts of the texts that the vocabulary was trained on.
        held: counts of other texts, for the bytes per token.
        planned_bytes: bytes of text to be trained on; None if unknown, which sets no limit.
        parameters: number of parameters of the model without its vocabulary.
        width: hidden size of the model.
    """
    per_token = held.bytes_per_token()
    limits = {
        "data": size_by_data(seen, planned_bytes),
        "model": size_by_model(parameters, width),
        "elbow": size_by_elbow(per_token),
    }
    full_size = len(seen.counts)
    smallest = min(limit for limit in [*limits.values(), full_size] if limit is not None)
    if smallest < full_size:
        smallest = smallest // STEP * STEP
    supported = min_size if limits["data"] is None else min(min_size, limits["data"])
    chosen = min(max(smallest, supported, MIN_SIZE), max_size, full_size)
    return VocabSizeCurve.measured(per_token, chosen, _reason(limits, chosen, min_size), limits)


def size_by_data(seen: TokenCounts, planned_bytes: int | None) -> int | None:
    """Gowda and May 2020: the largest of whose learned tokens 95 in 100 occur 100 times in the planned text."""
    if planned_bytes is None:
        return None
    expected = OCCURRENCES * seen.sample_bytes / planned_bytes  # occurrences in the sample
    for size, counts in sorted(seen.shrink().items(), reverse=True):
        learned = np.sort(counts[BASE_SIZE:])
        if len(learned) and learned[len(learned) * (100 - PERCENTILE) // 100] >= expected:
            return size
    return MIN_SIZE


def size_by_elbow(per_token: dict[int, float]) -> int | None:
    """The smallest vocabulary whose double has less than 5 % more bytes per token; None if there is none."""
    flat = [size for size, value in per_token.items() if per_token.get(2 * size, 9e9) < (1 + ELBOW) * value]
    return min(flat, default=None)


def _reason(limits: dict[str, int | None], chosen: int, min_size: int) -> str:
    data, model, elbow = (limits[name] for name in ("data", "model", "elbow"))
    clauses = [
        f"the text supports {data}" if data is not None else "the amount of text is unknown",
        f"the model {model}",
        f"doubling {elbow} gains less than 5 %" if elbow is not None else "each doubling gains 5 % or more",
    ]
    if chosen == min_size:
        clauses.append("raised to data.tokenizer.min_vocab_size")
    elif chosen < min_size:
        clauses.append(f"too little text for data.tokenizer.min_vocab_size={min_size}")
    return ", ".join(clauses)
