"""How many rows of a data set are longer than `data.seq_len`, and which length would hold nearly all of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlxlab.record.run_record import TOO_LONG
from mlxlab.terminal.wording import percent

MANY = 0.05  # share of rows that is worth a warning
QUANTILE = 1 - MANY
NO_LIMIT = 2**30  # tokens of a row
NEARLY_ALL = 0.99
SHORTEST = 128
LONGEST = 512  # the positions of most pretrained encoders
MAX_MEASURED = 1024  # rows at the limit whose full length is measured


class RowLengths(NamedTuple):
    """Rows by their number of tokens, before truncation."""

    seq_len: int  # the limit
    rows: int
    too_long: int  # rows above the limit
    needed: int  # `data.seq_len` that holds 95 % of the rows, a multiple of 8
    action: str = "truncated"  # what happens to those above the limit

    @property
    def share(self) -> float:
        return self.too_long / max(self.rows, 1)

    def describe(self) -> str:
        count = f"{self.too_long:,} of {self.rows:,} rows ({percent(self.share)})"
        return f"{count} {TOO_LONG}{self.seq_len} tokens and are {self.action}"


def measure_lengths(
    lengths: np.ndarray, seq_len: int, full_lengths: Callable[[np.ndarray], Sequence[int]]
) -> RowLengths:
    """Measures rows that may be truncated already.

    Args:
        lengths: (N,) tokens of each row; at most `seq_len` where it is truncated.
        full_lengths: tokens of the rows of these numbers without truncation; called for a sample of them.
    """
    at_limit = np.flatnonzero(lengths >= seq_len)
    if not len(at_limit):
        return RowLengths(seq_len, len(lengths), 0, seq_len)
    spread = np.linspace(0, len(at_limit) - 1, min(len(at_limit), MAX_MEASURED))
    full = np.asarray(full_lengths(at_limit[spread.astype(np.int64)]))
    too_long = round(float(np.mean(full > seq_len)) * len(at_limit))
    # The shortest rows are below the limit; the quantile of all is another one of those at it.
    position = max(0.0, 1 - (1 - QUANTILE) * len(lengths) / len(at_limit))
    needed = round_up(float(np.quantile(full, position, method="higher")))
    return RowLengths(seq_len, len(lengths), too_long, needed)


def fitting_length(lengths: Sequence[int]) -> int:
    """A limit that holds nearly all rows of these lengths whole, if they are of a usual length."""
    nearly_all = float(np.quantile(lengths, NEARLY_ALL, method="higher"))
    return min(max(round_up(nearly_all), SHORTEST), LONGEST)


def round_up(length: float) -> int:
    return -(-int(length) // 8) * 8
