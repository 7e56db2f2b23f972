"""Training examples of the Titanic: every row several times an epoch, each time with a newly drawn template."""

from collections.abc import Sequence

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.data.titanic.encoder import PassengerEncoder
from mlxlab.data.titanic.passenger import Passenger


class TrainingSentences:
    """Example e of an epoch is row `shown[e % N]` of N rows in its copy number `e // N`.

    Args:
        tokens: every sentence of every row: row by row, one per template.
        shown: (N,) indices of the rows to train on.
    """

    def __init__(
        self,
        encoder: PassengerEncoder,
        rows: Sequence[Passenger],
        tokens: Sequence[np.ndarray],
        shown: np.ndarray,
        copies: int,
    ) -> None:
        self._encoder, self._rows, self._tokens, self._shown, self._copies = encoder, rows, tokens, shown, copies
        self._ids = np.array([row.id for row in rows])
        self.all_lengths = np.array([len(sentence) for sentence in tokens])  # of every sentence, drawn or not

    def lengths(self, epoch: int) -> np.ndarray:
        """Tokens of each example of an epoch."""
        return self.all_lengths[self._draw(epoch, np.arange(len(self._shown) * self._copies))[1]]

    def batch(self, epoch: int, examples: np.ndarray, length: int | None) -> Batch:
        """The batch of some examples of an epoch, padded to `length` tokens."""
        rows, sentences = self._draw(epoch, examples)
        return self._encoder.collate([self._rows[i] for i in rows], [self._tokens[i] for i in sentences], length)

    def _draw(self, epoch: int, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The row of each example, and the index in `tokens` of its sentence."""
        copies, positions = np.divmod(examples, len(self._shown))
        rows = self._shown[positions]
        templates = self._encoder.choose(self._ids[rows], epoch, copies + 1)  # copy 0 is that for evaluation
        return rows, rows * len(self._encoder.templates) + templates
