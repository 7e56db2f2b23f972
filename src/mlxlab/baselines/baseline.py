"""The predictions of a baseline, and the interface of a data set that has baselines of its own."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


class Baseline(NamedTuple):
    """Predictions of a method without a neural network.

    Probabilities (N, C) of a classification or (N, L) of labels, values (N,) of a regression as they stand in the data.
    """

    name: str
    valid: np.ndarray  # in the order of the validation batches
    test: np.ndarray  # in the order of the test batches


@runtime_checkable
class ProvidesBaselines(Protocol):
    """A data set with methods of its own to compare a model with."""

    def baselines(self) -> Sequence[Baseline]:
        """Their predictions for the validation and test rows."""
