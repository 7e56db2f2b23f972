"""The frequencies of tokens by rank, and which of them are outliers."""

from typing import NamedTuple

import numpy as np

from mlxlab.data.text.order.distribution import rare_tokens

FENCE = 1.5  # interquartile ranges (Tukey 1977)


class TokenFrequencies(NamedTuple):
    """The tokens that occur, the most frequent first.

    Outliers lie outside Tukey's fences of the logarithms of the counts: more than 1.5 interquartile ranges above the
    upper or below the lower quartile of the tokens that occur.
    """

    ids: np.ndarray  # (N,) int64
    counts: np.ndarray  # (N,) int64, falling
    lower: float  # a token that occurs less often is an outlier
    upper: float  # a token that occurs more often is an outlier
    unused: int  # tokens of the vocabulary that do not occur
    rare: np.ndarray  # ids of the rarest tokens, which make up at most 1 % of all

    @property
    def frequent_outliers(self) -> np.ndarray:
        """Ranks, from 0."""
        return np.flatnonzero(self.counts > self.upper)

    @property
    def rare_outliers(self) -> np.ndarray:
        """Ranks, from 0."""
        return np.flatnonzero(self.counts < self.lower)


def token_frequencies(counts: np.ndarray) -> TokenFrequencies:
    """The frequencies of counts (V,), at least one of which is not 0; of equal ones the smaller id first."""
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    low, high = np.quantile(np.log(counts[order]), [0.25, 0.75])
    margin = FENCE * (high - low) + 1e-9  # rounding makes no token an outlier
    lower, upper = float(np.exp(low - margin)), float(np.exp(high + margin))
    return TokenFrequencies(
        order, counts[order], lower, upper, len(counts) - len(order), rare_tokens(counts)
    )
