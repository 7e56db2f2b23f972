"""Documents in a random order; the tokens served can be measured."""

from dataclasses import dataclass

from mlxlab.data.text.order.data_order import DataOrder


@dataclass(frozen=True)
class ShuffleOrder(DataOrder):
    """Documents in a random order, another one in each epoch.

    Args:
        measure: log how far the tokens served are from those of the corpus, and how many of its rare tokens were.
    """

    measure: bool
