"""Frequencies of tokens by rank: which are outliers."""

from typing import Any, NamedTuple

import numpy as np

from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.markdown import markdown_table
from mlxlab.wording import counted, percent

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

    def share(self, ranks: np.ndarray | int) -> float:
        """The part of all tokens that these make up."""
        return float(self.counts[ranks].sum() / self.counts.sum())

    def outliers(self, tokenizer: Tokenizer, count: int) -> list[dict[str, Any]]:
        """The first outliers of both ends."""
        ends = {"frequent": self.frequent_outliers, "rare": self.rare_outliers[::-1]}
        rows: list[dict[str, Any]] = []
        for name, ranks in ends.items():
            for rank in ranks[:count].tolist():
                token = int(self.ids[rank])
                row = {"outlier": name, "token": _shown(tokenizer, token), "rank": rank + 1}
                row |= {"id": token, "count": int(self.counts[rank]), "share": self.share(rank)}
                rows.append(row)
        return rows

    def summary(self) -> list[str]:
        """A line on each group of tokens."""
        frequent = counted(len(self.frequent_outliers), "frequent outlier")
        rare = counted(len(self.rare_outliers), "rare outlier")
        shares = [
            f"make up {percent(self.share(ranks), 2)} of all tokens"
            for ranks in (self.frequent_outliers, self.rare_outliers)
        ]
        return [
            f"{frequent} (more than {self.upper:.6g} times) {shares[0]}",
            f"{rare} (fewer than {self.lower:.6g} times) {shares[1]}",
            f"{len(self.ids):,} tokens of the vocabulary occur, {self.unused:,} do not",
        ]


def outlier_table(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        values = row | {"share": percent(row["share"], 4)}
        cells.append([str(value).replace("|", "\\|") for value in values.values()])
    return markdown_table(["outlier", "token", "rank", "id", "count", "share"], cells, "llr")


def token_frequencies(counts: np.ndarray) -> TokenFrequencies:
    """The frequencies of counts (V,), not all 0; of equal ones the smaller id comes first."""
    ids = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    low, high = np.quantile(np.log(counts[ids]), [0.25, 0.75])
    margin = FENCE * (high - low) + 1e-9  # The addend keeps rounding from making outliers.
    lower, upper = np.exp([low - margin, high + margin]).tolist()
    unused = len(counts) - len(ids)
    return TokenFrequencies(ids, counts[ids], lower, upper, unused)


def _shown(tokenizer: Tokenizer, token: int) -> str:
    """A token as text, or as the vocabulary writes it if it is special or only part of a character."""
    text = tokenizer.decode([token])
    if text and "\ufffd" not in text:
        return repr(text)
    return ascii(tokenizer.inner.id_to_token(token))
