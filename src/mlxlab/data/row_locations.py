"""Where the rows of a data set stand."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class LocatesRows(Protocol):
    """A data set that knows where its rows stand."""

    def location(self, row: int) -> str:
        """Of the row that batches call by this id, for people: `reviews.csv:17`."""
