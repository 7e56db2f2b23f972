"""Samples the next token from its logits."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np

from mlxlab.constraints import Count, Ge, Gt, Le, Lt, Positive
from mlxlab.errors import DataError


@dataclass(frozen=True)
class SamplingParams:
    """Parameters of sampling. The repetition penalty applies first, then the others in the order given here.

    Args:
        temperature: divides the logits: below 1 sharpens the distribution; 0 is greedy decoding.
        top_k: samples from the `top_k` most probable tokens; 0 from all.
        top_p: samples from the smallest set of tokens whose probability is >= top_p (Holtzman et al. 2020); 1 from all.
        min_p: drops tokens less probable than min_p times the most probable one (Nguyen et al. 2024); 0 drops none.
        repetition_penalty: divides positive logits of tokens that the text has already, and multiplies negative ones
            (Keskar et al. 2019); 1 for none.
    """

    temperature: Annotated[float, Ge(0)] = 0.8
    top_k: Count = 50
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    min_p: Annotated[float, Ge(0), Lt(1)] = 0.0
    repetition_penalty: Positive = 1.0

    def sample(self, logits: np.ndarray, seen: Sequence[int], u: float) -> int:
        """The token id by inversion of the cumulative distribution at `u`, a number in [0, 1).

        On the host, in float64: the same `u` gives the same token on every device.
        """
        tokens, probs = self.candidates(logits, seen)
        index = np.searchsorted(np.cumsum(probs), u * probs.sum(), side="right")
        return int(tokens[min(int(index), len(tokens) - 1)])

    def candidates(self, logits: np.ndarray, seen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that may come next and their probabilities, which sum to 1; of equal logits the lower id is first.

        `seen` are the tokens that the text has so far. Raises DataError if no logit (V,) is finite.
        """
        x = np.where(np.isnan(logits), -np.inf, logits).astype(np.float64)
        if not np.isfinite(x.max()):
            raise DataError("the model's logits are not finite numbers: its weights are damaged")
        if (penalty := self.repetition_penalty) != 1:
            repeated = np.asarray(seen, np.int64)
            x[repeated] = np.where(x[repeated] > 0, x[repeated] / penalty, x[repeated] * penalty)
        if self.temperature == 0:
            return np.array([x.argmax()]), np.ones(1)
        x = (x - x.max()) / self.temperature
        tokens = self._most_probable(x)
        probs = np.exp(x[tokens])
        probs /= probs.sum()
        if self.top_p < 1:  # a token stays while the more probable ones sum to less than top_p
            nucleus = np.cumsum(probs) - probs < self.top_p
            tokens = tokens[nucleus]
            probs = probs[nucleus]
        likely = (probs >= self.min_p * probs.max()) & (probs > 0)  # a logit may be -inf
        return tokens[likely], probs[likely] / probs[likely].sum()

    def _most_probable(self, x: np.ndarray) -> np.ndarray:
        """Ids of the top_k tokens, sorted if top_p needs it: sorting a vocabulary costs more than a small model."""
        count = min(self.top_k or len(x), len(x))
        if count == len(x) and self.top_p == 1:
            return np.arange(len(x))
        threshold = np.partition(x, len(x) - count)[len(x) - count]
        tokens = np.flatnonzero(x >= threshold)
        return tokens[np.argsort(-x[tokens], kind="stable")][:count]


def take_sampling(options: dict[str, Any]) -> SamplingParams:
    """The parameters that `options` holds, which are taken out of it."""
    names = [field.name for field in fields(SamplingParams) if field.name in options]
    return SamplingParams(**{name: options.pop(name) for name in names})
