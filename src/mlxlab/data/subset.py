"""The interface of `data.select`: which examples are trained on."""

from typing import Protocol

import numpy as np


class ExampleSelection(Protocol):
    """Selects training examples."""

    def chosen(self, seed: int, known: np.ndarray | None = None) -> np.ndarray | None:
        """The ids to train on, ascending, of those that are `known`; None for all.

        Raises:
            InputNotFoundError, DataError: the selection has no valid source.
            ConfigError: nothing says which ids there are.
        """


class AllExamples:
    """Selects all. Implements `ExampleSelection`."""

    def chosen(self, seed: int, known: np.ndarray | None = None) -> None:
        return None
