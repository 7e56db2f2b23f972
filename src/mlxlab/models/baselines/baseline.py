"""The predictions of a baseline."""

from typing import NamedTuple

import numpy as np


class Baseline(NamedTuple):
    """Predictions of a method without a neural network.

    Probabilities (N, C) of a classification or (N, L) of labels, values (N,) of a regression as they stand in the data.
    """

    name: str
    valid: np.ndarray  # ordered like the validation batches
    test: np.ndarray  # ordered like the test batches
