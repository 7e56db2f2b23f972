"""Rows served from a pool of candidates in the order of their scores; counts the tokens served.

Every pool is the next rows of the text. A position is that of the pool in the text, the counts
when it was filled, and the number of rows drawn from it: from these the order of a pool is
computed again, so nothing else is saved.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypedDict, cast

import numpy as np

from mlxlab.data.batch import NO_CURRICULUM, load_position, stack
from mlxlab.data.text.batches import RowOrder
from mlxlab.data.text.order import TokenCounts
from mlxlab.data.text.packing import Row, RowLayout, Take, TextCursor, epoch_start
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.atomic import pack_bytes
from mlxlab.files.untrusted import unpack_bytes
from mlxlab.schema.constraints import Count, Fraction

MALFORMED = "the saved position is malformed"
MAX_COUNT = 10**15  # Sums and shares of counts stay exact in 64 bits.
REPEATS = 5  # The second measure of coverage counts tokens that were served so often.
EPSILON = 1e-9  # Added to the served share, so that the weight of a new token is finite.
# Weights are integers in units of 1 / SCALE, so that sums depend on no machine and no order.
SCALE = 2.0**16
MAX_SCORE = 2**62
RARE_SHARE = 0.01  # The rarest tokens that make up at most this share of the corpus are rare.


class TokenDistribution:
    """The shares of the tokens of a corpus, and which of its tokens are rare.

    Counts of a sample are smoothed by one (Laplace), so that every token has a share.
    """

    def __init__(self, corpus: TokenCounts) -> None:
        counts = corpus.counts if corpus.exact else corpus.counts + 1
        self.share = counts / max(counts.sum(), 1)  # (V,) float64
        self.rare = rare_tokens(corpus.counts)

    def target(self, alpha: float) -> np.ndarray:
        """(V,): (1 - alpha) corpus + alpha uniform."""
        return (1 - alpha) * self.share + alpha / len(self.share)

    def weights(self, served: np.ndarray, alpha: float, length: int) -> np.ndarray:
        """(V,) int64: target / (served share + epsilon).

        They are limited so that the sum over `length` tokens fits 64 bits.

        Args:
            served: (V,) times that each token was served.
        """
        share = served / max(served.sum(), 1)
        ratio = self.target(alpha) / (share + EPSILON)
        return np.minimum(ratio * SCALE, MAX_SCORE // length).astype(np.int64)

    def measure(self, served: np.ndarray, alpha: float) -> dict[str, float]:
        """The metrics of docs/reference/metrics.md; empty before the first token."""
        if not served.any():
            return {}
        rare = served[self.rare]
        return {
            "data/curriculum_alpha": alpha,
            "data/kl_target": kl_divergence(served, self.target(alpha)),
            "data/kl_uniform": kl_divergence(served, self.target(1.0)),
            "data/rare_coverage": float((rare >= 1).mean()),
            f"data/rare_coverage_{REPEATS}": float((rare >= REPEATS).mean()),
        }


def rare_tokens(counts: np.ndarray) -> np.ndarray:
    """Ids of the rarest tokens that occur and make up at most 1 % of all; at least one."""
    used = np.flatnonzero(counts)
    rarest_first = used[np.argsort(counts[used], kind="stable")]
    total = np.cumsum(counts[rarest_first])
    number = int(np.searchsorted(total, RARE_SHARE * counts.sum(), side="right"))
    return np.sort(rarest_first[: max(number, 1)])


def kl_divergence(served: np.ndarray, target: np.ndarray) -> float:
    """KL(served || target) in nats, of counts (V,) and probabilities (V,)."""
    used = np.flatnonzero(served)
    share = served[used] / served.sum()
    # The corpus was counted earlier, so that a served token may have no share in it.
    floor = np.finfo(np.float64).tiny
    return float(np.sum(share * np.log(share / np.maximum(target[used], floor))))


class AlphaChange(TypedDict):
    """The pool was ranked with another alpha after `row` of its rows were drawn."""

    row: Count
    alpha: Fraction


class ServedState(TypedDict):
    """What the order of a pool depends on, as JSON."""

    counts: str  # written by `encode_counts`: how often each token was served before the pool
    alphas: list[AlphaChange]  # changes within the pool, the first one at row 0
    step: Count  # batches drawn since the start of the run
    alpha: Fraction | None  # set during the run; null follows the schedule


class ServedCursor(TextCursor):
    """The position of the next row in a pool."""

    served: ServedState


class Pool(NamedTuple):
    """R candidate rows."""

    tokens: np.ndarray  # (R, T) int32; V is padding
    numbers: np.ndarray  # (R,) the number of each row in the epoch
    epoch: int
    row: int  # number of the first row


@dataclass(frozen=True)
class Ranking:
    """Ranks the rows of a pool.

    Args:
        pool_rows: rows of a pool.
        rescore_every: rows drawn between two rankings of a pool; None ranks it once.
        rows_served: how many of the rows of a pool are served, at least one.
        rank: takes a pool, indices of its rows that are not served yet, the times that each token
            was served (V,), and alpha; returns the indices in the order in which they are served.
        starts: (P,) batches of the run from which each of `alphas` holds, rising from 0.
    """

    pool_rows: int
    rescore_every: int | None
    rows_served: Callable[[int], int]
    rank: Callable[[Pool, np.ndarray, np.ndarray, float], np.ndarray]
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1))
    alphas: Sequence[float] = (0.0,)

    def alpha(self, step: int) -> float:
        """The alpha of the curriculum at a batch of the run."""
        return self.alphas[int(np.searchsorted(self.starts, step, side="right")) - 1]


@dataclass
class ServedOrder(RowOrder):
    """Serves the rows of pools by rank, and measures the tokens served.

    Attributes:
        override: the alpha that was set during the run, instead of the schedule.
        rows: those opened last.
    """

    ranking: Ranking
    distribution: TokenDistribution
    layout: RowLayout
    override: float | None = field(default=None, init=False)
    rows: "ServedRows | None" = field(default=None, init=False)

    @property
    def vocab_size(self) -> int:
        return len(self.distribution.share)

    def first(self, fingerprint: str) -> ServedCursor:
        counts = encode_counts(np.zeros(self.vocab_size, np.int64))
        served = ServedState(counts=counts, alphas=[], step=0, alpha=None)
        return {**epoch_start(0, fingerprint), "served": served}

    def load(self, state: Mapping[str, object], fingerprint: str) -> ServedCursor:
        cursor = load_position(state, ServedCursor, fingerprint)
        served = cursor["served"]
        decode_counts(served["counts"], self.vocab_size, f"{MALFORMED}: served.counts")
        _check_alphas(served["alphas"], cursor["rows_drawn"])
        self.override = served["alpha"]
        self.rows = None
        return cursor

    def open(self, rows: Iterator[Row], cursor: TextCursor) -> Take:
        self.rows = ServedRows(rows, cast(ServedCursor, cursor), self)
        return self.rows.take

    def set_alpha(self, cursor: TextCursor, alpha: float) -> ServedCursor:
        """`cursor` with alpha from now on; the pool is ranked again before the next batch."""
        if self.ranking.rescore_every is None:
            raise ConfigError(NO_CURRICULUM)
        self.override = alpha
        position = cast(ServedCursor, cursor)
        return {**position, "served": {**position["served"], "alpha": alpha}}

    def metrics(self) -> dict[str, float]:
        """Metrics of the tokens served since the run began; empty before the first batch."""
        if self.rows is None:
            return {}
        return self.distribution.measure(self.rows.counts, self.rows.alpha)


def _check_alphas(alphas: list[AlphaChange], drawn: int) -> None:
    """Raises DataError unless they begin at row 0, if any row was drawn, and rise up to `drawn`."""
    rows = [change["row"] for change in alphas]
    begins = [0] if drawn or rows else []
    if rows[:1] != begins or rows != sorted(set(rows)) or max(rows, default=0) > drawn:
        raise DataError(f"{MALFORMED}: alphas at rows {str(rows)[:60]} of {drawn}")


class ServedRows:
    """Draws rows of the text from a position on.

    Args:
        text: the rows, in pools.
    """

    def __init__(self, text: Iterator[Row], cursor: ServedCursor, order: ServedOrder) -> None:
        served = cursor["served"]
        drawn = cursor["rows_drawn"]
        self.text = text
        self.order = order
        self.counts = decode_counts(served["counts"], order.vocab_size, "served.counts")  # (V,)
        self.counts_before = served["counts"]
        self.step = served["step"]
        self.alpha = 0.0
        self._fill(cursor)
        if drawn and drawn >= self.limit:
            raise DataError(f"{MALFORMED}: row {drawn} of a pool of {self.limit}")
        # The first rows of the pool are drawn again, with the recorded alphas.
        for change in served["alphas"]:
            self._draw_until(change["row"])
            self._rank(change["alpha"])
        self._draw_until(drawn)

    @property
    def more(self) -> bool:
        """True if rows are left in the epoch."""
        return self.drawn < self.limit or self.following["epoch"] == self.start["epoch"]

    @property
    def cursor(self) -> ServedCursor:
        """The position of the next row; at the end that of the next epoch."""
        in_pool = self.drawn < self.limit
        served = ServedState(
            counts=self.counts_before,
            alphas=[*self.alphas] if in_pool else [],
            step=self.step,
            alpha=self.order.override,
        )
        if in_pool:
            return {**self.start, "rows_drawn": self.drawn, "served": served}
        return {**self.following, "served": served}

    def take(self, max_rows: int) -> list[Row]:
        """Up to `max_rows` rows; fewer only at the end of the epoch. See `Take`."""
        override = self.order.override
        if self.alphas and override not in (None, self.alpha):
            self.until_ranking = 0
        taken: list[Row] = []
        while len(taken) < max_rows and self.more:
            if self.drawn >= self.limit:
                self._fill(self.following)
            if self.until_ranking == 0:
                self._rank(self.order.ranking.alpha(self.step) if override is None else override)
            taken += [self.rows[index] for index in self._draw(max_rows - len(taken))]
        if taken:
            self.step += 1
            taken[-1] = taken[-1]._replace(after=self.cursor)
        return taken

    def _fill(self, start: TextCursor) -> None:
        ranking = self.order.ranking
        layout = self.order.layout
        rows = list(islice(self.text, ranking.pool_rows))
        inputs = [row.tokens[: len(row.tokens) - layout.target_shift] for row in rows]
        tokens = stack(inputs, layout.length, self.order.vocab_size)
        numbers = np.array([row.number for row in rows])
        self.start = start
        self.following = rows[-1].after
        self.rows = rows
        self.pool = Pool(tokens, numbers, start["epoch"], start["row"])
        self.remaining = np.arange(len(tokens))  # numbers in the pool, sorted by the last ranking
        self.limit = ranking.rows_served(len(tokens))
        self.alphas: list[AlphaChange] = []
        self.drawn = 0
        self.until_ranking = 0

    def _rank(self, alpha: float) -> None:
        ranking = self.order.ranking
        if not self.alphas or alpha != self.alpha:
            self.alphas.append(AlphaChange(row=self.drawn, alpha=alpha))
        self.alpha = alpha
        self.remaining = ranking.rank(self.pool, self.remaining, self.counts, alpha)
        self.until_ranking = ranking.rescore_every or len(self.remaining)

    def _draw(self, max_rows: int) -> np.ndarray:
        """Indices of the next rows, up to the next ranking or the end of the pool."""
        count = min(max_rows, self.until_ranking, self.limit - self.drawn)
        index = self.remaining[:count]
        tokens = self.pool.tokens[index].reshape(-1)
        with_padding = np.bincount(tokens, minlength=self.order.vocab_size + 1)
        self.counts += with_padding[:-1]
        self.remaining = self.remaining[count:]
        self.drawn += count
        self.until_ranking -= count
        if self.drawn == self.limit:
            self.counts_before = encode_counts(self.counts)
        return index

    def _draw_until(self, drawn: int) -> None:
        while self.drawn < drawn:
            if self.until_ranking == 0:
                self._rank(self.alpha)
            self._draw(drawn - self.drawn)


def encode_counts(counts: np.ndarray) -> str:
    """Counts (V,) as text, exactly; about a byte per token of the vocabulary."""
    by_token = counts.astype("<u8").view(np.uint8).reshape(-1, 8)  # (V, 8)
    # The high bytes are mostly 0: they compress when they stand together.
    return pack_bytes(by_token.T.tobytes())


def decode_counts(text: str, vocab_size: int, name: str) -> np.ndarray:
    """Reverses `encode_counts`, as int64; raises DataError, naming `name`, for other texts."""
    unpacked = unpack_bytes(text, 8 * vocab_size, name)
    by_byte = np.frombuffer(unpacked, np.uint8).reshape(8, vocab_size)
    counts = np.ascontiguousarray(by_byte.T).view("<u8").reshape(-1)
    if counts.max(initial=0) > MAX_COUNT or counts.sum(dtype=np.float64) > MAX_COUNT:
        raise DataError(f"{name}: expected at most {MAX_COUNT} tokens in all")
    return counts.astype(np.int64)
