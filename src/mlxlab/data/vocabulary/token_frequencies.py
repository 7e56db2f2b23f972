"""The frequencies of tokens by rank: outliers at both ends, and the rarest tokens."""

from typing import NamedTuple

import numpy as np

FENCE = 1.5  # Interquartile ranges (Tukey 1977).
RARE_SHARE = 0.01  # The rarest tokens that make up at most this share of the corpus are rare.


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
