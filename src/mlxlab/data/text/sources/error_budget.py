"""Handles malformed records: ends the run, or skips and counts them up to 1 % of all records."""

import logging
from collections.abc import Callable, Hashable
from typing import Literal

from mlxlab.data.text.document import Windows
from mlxlab.errors import DataError

OnError = Literal["strict", "skip"]
MAX_MALFORMED_FRACTION = 0.01
MIN_RECORDS = 1000  # before the fraction is checked within an epoch; it is always checked at the end
MAX_KNOWN_KEYS = 100_000  # skipped records that are remembered; further ones are counted in every epoch
MAX_LOGGED = 5
BOMB_MIN_BYTES, BOMB_MIN_RATIO = 2**26, 250  # above both, a file is a decompression bomb, not text
log = logging.getLogger(__name__)


def refuse_bomb(decoded: int, stored: int) -> None:
    """Raises OSError if the stored bytes are too few for the decoded bytes."""
    if decoded > BOMB_MIN_BYTES and decoded > BOMB_MIN_RATIO * stored:
        raise OSError(f"{decoded} bytes out of {stored}: a decompression bomb")


class ErrorBudget:
    """Counts valid and skipped records of a source; thread-safe for one reader and one writer."""

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error
        self.skipped_records = 0  # malformed records, each counted once
        self.valid_records, self.malformed_records = 0, 0  # once per read
        self.first_error = ""
        self._known_keys: set[Hashable] = set()

    def skip(self, key: Hashable, message: str | Callable[[], str]) -> None:
        """Records a malformed record.

        Args:
            key: identifies the record within its source.
            message: its location and the error; a function is called only when they are reported.

        Raises:
            DataError: `on_error` is strict.
        """
        if self.on_error == "strict":
            raise DataError(
                f"{message() if callable(message) else message} (data.on_error=skip skips malformed records)"
            )
        self.malformed_records += 1
        if key in self._known_keys:
            return
        if len(self._known_keys) < MAX_KNOWN_KEYS:
            self._known_keys.add(key)
        self.skipped_records += 1
        if self.skipped_records <= MAX_LOGGED:
            line = message() if callable(message) else message
            self.first_error = self.first_error or line
            more = "; further ones are only counted" if self.skipped_records == MAX_LOGGED else ""
            log.warning("skipped %s%s", line, more)

    def checked(self, windows: Windows, name: str, whole_epoch: bool) -> Windows:
        """The windows that have documents.

        Raises:
            DataError: more than 1 % of the records were skipped, or a whole epoch has no document.
        """
        empty = whole_epoch
        for position, documents in windows:
            self.valid_records += len(documents)
            self._check_fraction(MIN_RECORDS)
            if documents:
                empty = False
                yield position, documents
        self._check_fraction(0)
        if empty:
            raise DataError(f"{name}: contains no text, only empty records")

    def _check_fraction(self, min_records: int) -> None:
        count = self.valid_records + self.malformed_records
        if self.malformed_records > MAX_MALFORMED_FRACTION * count and count >= min_records:
            raise DataError(
                f"{self.malformed_records} of {count} records are malformed, more than 1 %;"
                f" the first: {self.first_error}"
            )
