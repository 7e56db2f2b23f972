"""Masked language modelling: which tokens are hidden, and by what (Devlin et al. 2019)."""

from typing import NamedTuple

import numpy as np

from mlxlab.data.rng import counter_hash
from mlxlab.errors import ConfigError

HIDDEN = 0x3A5C  # keeps these draws apart from others of the same seed
BY_MASK, BY_ANY = 0.8, 0.9  # 80 % become the mask token, 10 % some token, 10 % stay


class Masker(NamedTuple):
    """Hides tokens by draws that are a function of (seed, epoch, place): a resumed run hides the same ones.

    Args:
        mask_id: the mask token.
        ordinary: ids (V',) of the tokens that may be hidden, and stand in for hidden ones.
        is_ordinary: (V,) bool.
        fraction: of the ordinary tokens that are hidden.
    """

    mask_id: int
    ordinary: np.ndarray
    is_ordinary: np.ndarray
    fraction: float
    seed: int

    def hide(self, tokens: np.ndarray, real: np.ndarray, epoch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens with some hidden (B, T), and where (B, T) bool; in each row at least one, if any may be.

        Args:
            tokens: (B, T) int32.
            real: (B, T) bool, false where there is padding.
            rows: (B,) the number of each row in its epoch.
        """
        places = rows[:, None] * tokens.shape[1] + np.arange(tokens.shape[1])
        draw = uniform(self.seed, HIDDEN, epoch, places)
        draw[~(real & self.is_ordinary[tokens])] = 1.0  # never
        least = draw.min(axis=1, keepdims=True)
        hidden = (draw < self.fraction) | ((draw == least) & (least < 1.0))

        here = places[hidden]
        how, which = uniform(self.seed, HIDDEN + 1, epoch, here), uniform(self.seed, HIDDEN + 2, epoch, here)
        other = self.ordinary[(which * len(self.ordinary)).astype(np.int64)]
        given = tokens.copy()
        given[hidden] = np.where(how < BY_MASK, self.mask_id, np.where(how < BY_ANY, other, tokens[hidden]))
        return given, hidden


def new_masker(vocab_size: int, mask_id: int | None, special: list[int | None], fraction: float, seed: int) -> Masker:
    """A masker that leaves the special tokens alone.

    Raises:
        ConfigError: there is no mask token.
    """
    if mask_id is None:
        raise ConfigError("the tokenizer has no mask token, and this model learns by guessing hidden tokens")
    ordinary = np.ones(vocab_size, bool)
    ordinary[[mask_id, *(token for token in special if token is not None)]] = False
    return Masker(mask_id, np.flatnonzero(ordinary).astype(np.int32), ordinary, fraction, seed)


def uniform(seed: int, *numbers: int | np.ndarray) -> np.ndarray:
    """Draws from [0, 1), float64, a function of the numbers."""
    return (counter_hash(seed, *numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53
