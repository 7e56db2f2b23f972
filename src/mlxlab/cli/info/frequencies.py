"""Frequencies of tokens by rank: which are outliers, and their plot."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlxlab.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FENCE = 1.5  # Interquartile ranges (Tukey 1977).


class TokenFrequencies(NamedTuple):
    """The tokens that occur, the most frequent first.

    Outliers lie outside Tukey's fences of the logarithms of the counts: more than 1.5
    interquartile ranges above the upper or below the lower quartile of the tokens that occur.

    Args:
        ids: (N,) int64.
        counts: (N,) int64, falling.
        lower, upper: a token that occurs less, or more, often is an outlier.
        unused: tokens of the vocabulary that do not occur.
    """

    ids: np.ndarray
    counts: np.ndarray
    lower: float
    upper: float
    unused: int

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
    return TokenFrequencies(ids, counts[ids], lower, upper, unused)


def plot_token_frequencies(frequencies: TokenFrequencies) -> "Figure":
    """Counts by rank on logarithmic axes, with the outliers and their limits."""
    figure = new_figure(5.4, 4.0)
    axis = figure.subplots()
    ranks = np.arange(1, len(frequencies.ids) + 1)
    axis.plot(ranks, frequencies.counts, linewidth=1.2, label=f"{len(ranks)} tokens that occur")
    groups = {"frequent": frequencies.frequent_outliers, "rare": frequencies.rare_outliers}
    for name, index in groups.items():
        label = f"{len(index)} {name} outliers"
        axis.plot(ranks[index], frequencies.counts[index], ".", label=label)
    for limit in (frequencies.lower, frequencies.upper):
        if frequencies.counts[-1] <= limit <= frequencies.counts[0]:
            axis.axhline(limit, color="gray", linewidth=0.8, linestyle=":")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="rank",
        ylabel="occurrences",
        title="frequencies of tokens",
    )
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure
