"""Scaled frequencies of rotary positions."""

import math
from dataclasses import dataclass

from mlxlab.schema.constraints import Positive, Size


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's rotary positions for long contexts: low frequencies are divided, those between interpolated.

    Args:
        factor: divisor of frequencies with fewer than `low_freq_factor` turns in the original context.
        low_freq_factor: see factor.
        high_freq_factor: turns in the original context from which on a frequency stays.
        original_max_position_embeddings: context before the scaling, in tokens.
    """

    factor: Positive = 8.0
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 4.0
    original_max_position_embeddings: Size = 8192

    def periods(self, theta: float, size: int) -> tuple[float, ...]:
        """1 / frequency in radians per token, of each pair of `size` dimensions."""
        return tuple(self._scaled(theta ** (2 * i / size)) for i in range(size // 2))

    def _scaled(self, period: float) -> float:
        turns = self.original_max_position_embeddings / (2 * math.pi * period)
        if turns < self.low_freq_factor:
            return period * self.factor
        if turns > self.high_freq_factor:
            return period
        share = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return period / ((1 - share) / self.factor + share)
