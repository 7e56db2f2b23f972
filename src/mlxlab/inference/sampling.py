"""Samples the next token from its logits."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mlxlab.constraints import Count, Ge, Gt, Le, Lt, Positive
from mlxlab.errors import DataError


@dataclass(frozen=True)
class SamplingParams:
    """Parameters of sampling. The repetition penalty applies first, then the others in the order given here.

    Args:
        temperature: divides the logits: below 1 the probable gets likelier; 0 always takes the most probable token.
        top_k: samples from this many most probable tokens; 0 keeps all.
        top_p: only the most probable tokens that together reach this share (Holtzman et al. 2020); 1 keeps all.
        min_p: only tokens at least this share as probable as the most probable one (Nguyen et al. 2024); 0 keeps all.
        repetition_penalty: tokens that the text has already get their logit divided by it where positive, multiplied
            where negative (Keskar et al. 2019); 1 changes nothing.
    """

    temperature: Annotated[float, Ge(0)] = 0.8
    top_k: Count = 50
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    min_p: Annotated[float, Ge(0), Lt(1)] = 0.0
    repetition_penalty: Positive = 1.0

    def sample(self, logits: np.ndarray, seen: np.ndarray, chance: float) -> int:
        """The token id by inversion of the cumulative distribution at `chance`, a number in [0, 1).

        On the host, in float64: the same chance gives the same token on every device.
        """
        tokens, shares = self.candidates(logits, seen)
        place = np.searchsorted(np.cumsum(shares), chance * shares.sum(), side="right")
        return int(tokens[min(int(place), len(tokens) - 1)])

    def candidates(self, logits: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that may come next and their probabilities, which sum to 1; of equal logits the lower id is first.

        Args:
            logits: (V,) numbers.
            seen: ids of the tokens that the text has so far.

        Raises:
            DataError: no logit is a finite number.
        """
        x = self._penalised(logits, seen)
        if self.temperature == 0:
            return np.array([x.argmax()]), np.ones(1)
        x = (x - x.max()) / self.temperature
        tokens = self._most_probable(x)
        shares = np.exp(x[tokens])
        shares /= shares.sum()
        if self.top_p < 1:  # kept is what the more probable ones leave short of top_p
            kept = np.cumsum(shares) - shares < self.top_p
            tokens, shares = tokens[kept], shares[kept]
        kept = shares >= self.min_p * shares.max()
        return tokens[kept], shares[kept] / shares[kept].sum()

    def _penalised(self, logits: np.ndarray, seen: np.ndarray) -> np.ndarray:
        x = np.where(np.isnan(logits), -np.inf, logits).astype(np.float64)
        if not np.isfinite(x.max()):
            raise DataError("the model's logits are not finite numbers: its weights are damaged")
        if self.repetition_penalty != 1 and len(seen):
            old = x[seen]
            x[seen] = np.where(old > 0, old / self.repetition_penalty, old * self.repetition_penalty)
        return x

    def _most_probable(self, x: np.ndarray) -> np.ndarray:
        """Ids, the most probable first where it matters: sorting a whole vocabulary costs more than a small model."""
        count = min(self.top_k or len(x), len(x))
        if count == len(x) and self.top_p == 1:
            return np.arange(len(x))
        least = np.partition(x, len(x) - count)[len(x) - count]
        tokens = np.flatnonzero(x >= least)
        return tokens[np.argsort(-x[tokens], kind="stable")][:count]


PRESETS = {  # by what is expected: temperature, top_k, top_p
    "factual": SamplingParams(0.3, 30, 0.8),
    "balanced": SamplingParams(0.8, 50, 0.9),
    "creative": SamplingParams(1.2, 60, 0.95),
    "widest": SamplingParams(1.5, 0, 1.0),
}
