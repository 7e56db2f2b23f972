"""The distribution of served tokens compared with a target between corpus and uniform."""

import numpy as np

from mlxlab.data.text.order import TokenCounts

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
