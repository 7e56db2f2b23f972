"""Masked language modelling: which tokens are hidden, and what replaces them (Devlin et al. 2019)."""

from typing import NamedTuple

import numpy as np

from mlxlab.data.rng import Stream, uniform
from mlxlab.errors import ConfigError

MASK_UP_TO, REPLACE_UP_TO = 0.8, 0.9  # 80 % become the mask token, 10 % another token, 10 % stay


class Masker(NamedTuple):
    """Hides tokens by draws that are a function of (seed, epoch, position): a resumed run hides the same ones.

    Args:
        mask_id: the mask token.
        maskable: ids (V',) of the tokens that may be hidden, and that replace hidden ones.
        is_maskable: (V,) bool.
        probability: of a maskable token to be hidden.
    """

    mask_id: int
    maskable: np.ndarray
    is_maskable: np.ndarray
    probability: float
    seed: int

    def mask_tokens(
        self, tokens: np.ndarray, real: np.ndarray, epoch: int, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens with some hidden (B, T), and which (B, T) bool; at least one in each row that has a maskable one.

        Args:
            tokens: (B, T) int32.
            real: (B, T) bool, false for padding.
            rows: (B,) the number of each row in its epoch.
        """
        positions = rows[:, None] * tokens.shape[1] + np.arange(tokens.shape[1])
        draws = uniform(self.seed, Stream.MASKED, epoch, positions)
        draws[~(real & self.is_maskable[tokens])] = 1.0  # never hidden
        smallest = draws.min(axis=1, keepdims=True)
        hidden = (draws < self.probability) | ((draws == smallest) & (smallest < 1.0))

        kind = uniform(self.seed, Stream.MASK_KIND, epoch, positions[hidden])
        choice = uniform(self.seed, Stream.MASK_REPLACEMENT, epoch, positions[hidden])
        replacement = self.maskable[(choice * len(self.maskable)).astype(np.int64)]
        masked = tokens.copy()
        unmasked = np.where(kind < REPLACE_UP_TO, replacement, tokens[hidden])
        masked[hidden] = np.where(kind < MASK_UP_TO, self.mask_id, unmasked)
        return masked, hidden


def new_masker(
    vocab_size: int, mask_id: int | None, special: list[int | None], probability: float, seed: int
) -> Masker:
    """A masker that never hides special tokens.

    Raises:
        ConfigError: there is no mask token.
    """
    if mask_id is None:
        raise ConfigError("the tokenizer has no mask token, which a masked language model needs")
    is_maskable = np.ones(vocab_size, bool)
    is_maskable[[mask_id, *(token for token in special if token is not None)]] = False
    return Masker(mask_id, np.flatnonzero(is_maskable).astype(np.int32), is_maskable, probability, seed)
