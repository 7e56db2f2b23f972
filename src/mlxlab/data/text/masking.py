"""Hidden tokens, which a masked language model predicts."""

import numpy as np

from mlxlab.data.rng import Stream, uniform
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError

# 80 % of the hidden tokens become the mask token, 10 % another one, 10 % stay.
MASK_UP_TO = 0.8
REPLACE_UP_TO = 0.9


class Masker:
    """Hides tokens for masked language modelling (Devlin et al. 2019).

    Draws are a function of (seed, epoch, position): a resumed run hides the same tokens.

    Args:
        tokenizer: raises ConfigError if it has no mask token.
        probability: of a token to be hidden; special ones never are.
    """

    def __init__(self, tokenizer: Tokenizer, probability: float, seed: int) -> None:
        if tokenizer.mask_id is None:
            raise ConfigError("the tokenizer has no mask token, which a masked model needs")
        self.mask_id = tokenizer.mask_id
        self.probability = probability
        self.seed = seed
        special = {tokenizer.mask_id, tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}
        tokens = range(tokenizer.vocab_size)
        self.is_maskable = np.array([token not in special for token in tokens])
        self.maskable = np.flatnonzero(self.is_maskable).astype(np.int32)

    def mask_tokens(
        self, tokens: np.ndarray, real: np.ndarray, epoch: int, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens with some hidden (B, T), and which (B, T) bool.

        At least one is hidden in each row that has a maskable one.

        Args:
            tokens: (B, T) int32.
            real: (B, T) bool, false for padding.
            rows: (B,) the number of each row in its epoch.
        """
        positions = rows[:, None] * tokens.shape[1] + np.arange(tokens.shape[1])
        draws = uniform(self.seed, Stream.MASKED, epoch, positions)
        draws[~(real & self.is_maskable[tokens])] = 1.0  # never hidden
        smallest = draws.min(axis=1, keepdims=True)
        is_smallest = (draws == smallest) & (smallest < 1.0)
        hidden = (draws < self.probability) | is_smallest

        kind = uniform(self.seed, Stream.MASK_KIND, epoch, positions[hidden])
        choice = uniform(self.seed, Stream.MASK_REPLACEMENT, epoch, positions[hidden])
        replacement = self.maskable[(choice * len(self.maskable)).astype(np.int64)]
        others = np.where(kind < REPLACE_UP_TO, replacement, tokens[hidden])
        masked = tokens.copy()
        masked[hidden] = np.where(kind < MASK_UP_TO, self.mask_id, others)
        return masked, hidden
