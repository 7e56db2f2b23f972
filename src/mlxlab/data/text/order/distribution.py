"""The distribution of served tokens compared with a target between the corpus and the uniform distribution."""

import numpy as np

from mlxlab.data.text.order.token_counts import TokenCounts

RARE_SHARE = (
    0.01  # of the tokens of the corpus: the rarest tokens that make up no more than this are rare
)
REPEATS = 5  # times served, for the second measure of coverage
EPSILON = 1e-9  # added to the share of a token that was served, so that the weight of a new token is finite
SCALE = (
    2.0**16
)  # weights are integers in units of 1 / SCALE: sums do not depend on machine or order
MAX_SCORE = 2**62


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
        """(V,) int64: target / (served share + epsilon), limited so that the sum over `length` tokens fits 64 bits.

        Args:
            served: (V,) times that each token was served.
        """
        ratio = self.target(alpha) / (served / max(served.sum(), 1) + EPSILON)
        return np.minimum(ratio * SCALE, MAX_SCORE // length).astype(np.int64)

    def measure(self, served: np.ndarray, alpha: float) -> dict[str, float]:
        """Metrics of the tokens served, as docs/reference/metrics.md defines them. Empty before the first token."""
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


def rare_tokens(counts: np.ndarray, share: float = RARE_SHARE) -> np.ndarray:
    """Ids of the rarest tokens that occur and that together make up at most `share` of all; at least one."""
    used = np.flatnonzero(counts)
    rarest_first = used[np.argsort(counts[used], kind="stable")]
    number = np.searchsorted(np.cumsum(counts[rarest_first]), share * counts.sum(), side="right")
    return np.sort(rarest_first[: max(int(number), 1)])


def kl_divergence(served: np.ndarray, target: np.ndarray) -> float:
    """KL(served || target) in nats, of counts (V,) and probabilities (V,)."""
    used = np.flatnonzero(served)
    share = served[used] / served.sum()
    floor = np.finfo(
        np.float64
    ).tiny  # a token that no target has, as the corpus was counted before
    return float(np.sum(share * np.log(share / np.maximum(target[used], floor))))
