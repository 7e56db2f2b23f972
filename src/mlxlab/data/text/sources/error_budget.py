"""What becomes of a malformed record: the end of the run, or a count that may not pass 1 %."""

import logging
from collections.abc import Callable, Hashable
from typing import Literal

from mlxlab.errors import DataError

OnError = Literal["strict", "skip"]
SHARE = 0.01  # of the records that may be skipped
ENOUGH = 1000  # records from which on the share is judged; it is judged at the end of each epoch too
KNOWN = 100_000  # skipped records that are known again; further ones count each time
NAMED = 5  # skipped records that are named in the log
log = logging.getLogger(__name__)


class ErrorBudget:
    """Counts sound and skipped records of a source; thread-safe for one reader and one writer."""

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error
        self.skipped_records = 0  # malformed records, each counted once however often it is met
        self.sound, self.malformed = 0, 0  # records, as often as they were met
        self.first = ""
        self._known: set[Hashable] = set()

    def fault(self, key: Hashable, describe: Callable[[], str]) -> None:
        """Notes a malformed record.

        Args:
            key: of the record within its source.
            describe: says place and fault; it is only called where that is told.

        Raises:
            DataError: `on_error` is strict.
        """
        if self.on_error == "strict":
            raise DataError(f"{describe()} (data.on_error=skip passes over such)")
        self.malformed += 1
        if key in self._known:
            return
        if len(self._known) < KNOWN:
            self._known.add(key)
        self.skipped_records += 1
        if self.skipped_records <= NAMED:
            line = describe()
            self.first = self.first or line
            more = "; further ones are only counted" if self.skipped_records == NAMED else ""
            log.warning("skipped %s%s", line, more)

    def judge(self, at_end: bool = False) -> None:
        """Called after each window.

        Raises:
            DataError: more than 1 % of the records were skipped.
        """
        count = self.sound + self.malformed
        if self.malformed > SHARE * count and (at_end or count >= ENOUGH):
            raise DataError(
                f"{self.malformed} of {count} records are malformed, more than 1 %; the first: {self.first}"
            )
