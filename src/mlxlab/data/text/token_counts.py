"""How often each token occurs in the training text, and the frequencies by rank."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from mlxlab.constraints import Count
from mlxlab.data.cache import cached_json, content_key
from mlxlab.data.text.packing import EPOCH_START, TokenizedDocument, TokenStream
from mlxlab.errors import DataError

MAX_TOKENS = 20_000_000  # More are not counted: the first ones in a random order are a sample.
MAX_COUNT = 10**15  # Sums and shares of counts stay exact in 64 bits.
FENCE = 1.5  # Interquartile ranges (Tukey 1977).
RARE_SHARE = 0.01  # The rarest tokens that make up at most this share of the corpus are rare.


class TokenCounts(NamedTuple):
    """Occurrences of each token, (V,) int64."""

    counts: np.ndarray
    exact: bool  # false: of a sample of the corpus

    @property
    def line(self) -> str:
        """What was counted, for the log."""
        extent = "all" if self.exact else "a sample"
        used = f"{np.count_nonzero(self.counts):,} of {len(self.counts):,} tokens"
        total = f"{self.counts.sum():,} tokens ({extent} of the training text)"
        return f"token counts: {total}; {used} of the vocabulary occur"


class _Cached(TypedDict):
    exact: bool
    counts: list[Count]


def corpus_counts(stream: TokenStream, vocab_size: int, tokenizer: str, cache: Path) -> TokenCounts:
    """The cached counts of the documents of `stream`; a sample does not depend on its seed.

    Args:
        tokenizer: its fingerprint.
    """
    if stream.limit is None:  # With a limit the seed determines which documents there are.
        stream = replace(stream, seed=0)
    key = content_key(
        source=stream.source.fingerprint,
        tokenizer=tokenizer,
        order=[stream.seed, stream.limit],
        chosen=None if stream.chosen is None else stream.chosen.tolist(),
        max_tokens=MAX_TOKENS,
        format=3,
    )

    def count() -> _Cached:
        counts, exact = count_tokens(stream(0, EPOCH_START), vocab_size)
        return {"exact": exact, "counts": counts.tolist()}

    def check(content: _Cached) -> None:
        counts = content["counts"]
        if len(counts) != vocab_size or sum(counts) > MAX_COUNT:
            raise DataError(f"expected counts of {vocab_size} tokens")

    path = cache / "token_counts" / f"{key}.json"
    content, _ = cached_json(path, _Cached, count, check)
    return TokenCounts(np.array(content["counts"], np.int64), content["exact"])


def count_tokens(
    chunks: Iterable[list[TokenizedDocument]], vocab_size: int, max_tokens: int = MAX_TOKENS
) -> TokenCounts:
    """The counts of whole chunks until there are `max_tokens` tokens."""
    counts = np.zeros(vocab_size, np.int64)
    for chunk in chunks:
        if counts.sum() >= max_tokens:
            return TokenCounts(counts, exact=False)
        tokens = np.concatenate([document.tokens for document in chunk])
        counts += np.bincount(tokens, minlength=vocab_size)
    return TokenCounts(counts, exact=True)


class TokenFrequencies(NamedTuple):
    """The tokens that occur, the most frequent first.

    Outliers lie outside Tukey's fences of the logarithms of the counts: more than 1.5
    interquartile ranges above the upper or below the lower quartile of the tokens that occur.

    Args:
        ids: (N,) int64.
        counts: (N,) int64, falling.
        lower, upper: a token that occurs less, or more, often is an outlier.
        unused: tokens of the vocabulary that do not occur.
        rare: ids of the rarest tokens, which make up at most 1 % of all.
    """

    ids: np.ndarray
    counts: np.ndarray
    lower: float
    upper: float
    unused: int
    rare: np.ndarray

    @property
    def frequent_outliers(self) -> np.ndarray:
        """Ranks, from 0."""
        return np.flatnonzero(self.counts > self.upper)

    @property
    def rare_outliers(self) -> np.ndarray:
        """Ranks, from 0."""
        return np.flatnonzero(self.counts < self.lower)


def token_frequencies(counts: np.ndarray) -> TokenFrequencies:
    """The frequencies of counts (V,), not all 0; of equal ones the smaller id comes first."""
    ids = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    low, high = np.quantile(np.log(counts[ids]), [0.25, 0.75])
    margin = FENCE * (high - low) + 1e-9  # The addend keeps rounding from making outliers.
    lower, upper = np.exp([low - margin, high + margin]).tolist()
    unused = len(counts) - len(ids)
    return TokenFrequencies(ids, counts[ids], lower, upper, unused, rare_tokens(counts))


def rare_tokens(counts: np.ndarray) -> np.ndarray:
    """Ids of the rarest tokens that occur and make up at most 1 % of all; at least one."""
    used = np.flatnonzero(counts)
    rarest_first = used[np.argsort(counts[used], kind="stable")]
    total = np.cumsum(counts[rarest_first])
    number = int(np.searchsorted(total, RARE_SHARE * counts.sum(), side="right"))
    return np.sort(rarest_first[: max(number, 1)])
