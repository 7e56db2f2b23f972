"""The limit on malformed records."""

import logging
import math
from collections.abc import Callable, Hashable
from typing import Literal

from mlxlab.data.text.documents import Document, DocumentSource, Position, Windows
from mlxlab.errors import DataError

__all__ = ["Document", "DocumentSource", "ErrorBudget", "OnError", "Position", "Windows"]

OnError = Literal["strict", "skip"]
MAX_MALFORMED_FRACTION = 0.01
MIN_RECORDS = (
    1000  # before the fraction is checked within an epoch; it is always checked at the end
)
MAX_KNOWN_KEYS = (
    100_000  # skipped records that are remembered; further ones are counted in every epoch
)
MAX_LOGGED = 5
log = logging.getLogger(__name__)


class ErrorBudget:
    """Counts valid and malformed records of a source: the latter end the run, or a fraction of all is skipped.

    Thread-safe for one reader and one writer.

    Args:
        hint: after the error of a record, if none may be skipped.
        max_fraction: of the records that may be skipped.
        key: the option that sets `max_fraction`, if there is one.
        fault: of those that are skipped, in messages.
    """

    def __init__(
        self,
        on_error: OnError,
        hint: str = " (data.on_error=skip leaves out up to 1 % of the records)",
        max_fraction: float = MAX_MALFORMED_FRACTION,
        key: str = "",
        fault: str = "records are malformed",
    ) -> None:
        self.on_error, self.hint, self.max_fraction = on_error, hint, max_fraction
        self.key, self.fault = key, fault
        self.skipped_records = 0  # malformed records, each counted once
        self.valid_records, self.malformed_records = 0, 0  # once per read
        self.first_error, self.first_key = "", None  # type: str, Hashable
        self.first_is_readable = False  # with another option
        self._known_keys: set[Hashable] = set()

    def skip(
        self, key: Hashable, message: str | Callable[[], str], *, is_readable: bool = False
    ) -> None:
        """Records a malformed record; raises DataError if `on_error` is strict.

        Args:
            key: identifies the record within its source.
            message: its location and the error; a function is called only when they are reported.
            is_readable: another option reads it, which `message` names.
        """
        if self.on_error == "strict":
            line = message() if callable(message) else message
            raise DataError(f"{line}{self.hint}")
        self.malformed_records += 1
        if key in self._known_keys:
            return
        if len(self._known_keys) < MAX_KNOWN_KEYS:
            self._known_keys.add(key)
        self.skipped_records += 1
        if self.skipped_records > MAX_LOGGED:
            return
        line = message() if callable(message) else message
        if not self.first_error:
            self.first_error, self.first_key, self.first_is_readable = line, key, is_readable
        is_last = self.skipped_records == MAX_LOGGED
        log.warning("skipped %s%s", line, "; further ones are only counted" if is_last else "")

    def checked(self, windows: Windows, name: str, whole_epoch: bool) -> Windows:
        """The windows that have documents; raises DataError if too many were skipped, or a whole epoch has none."""
        empty = whole_epoch
        for position, documents in windows:
            self.valid_records += len(documents)
            self.check_fraction()
            if documents:
                empty = False
                yield position, documents
        self.check_fraction(0)
        if empty:
            raise DataError(f"{name}: contains no text, only empty records")

    def check_fraction(self, min_records: int = MIN_RECORDS) -> None:
        """Raises DataError if too many of at least `min_records` were skipped."""
        malformed, count = self.malformed_records, self.valid_records + self.malformed_records
        if malformed > self.max_fraction * count and count >= min_records:
            fraction = (
                f"{malformed:,} of {count:,} {self.fault}, more than {100 * self.max_fraction:g} %"
            )
            needed = math.ceil(100 * malformed / count - 1e-9) / 100
            can_be_left_out = self.key and needed < 1 and not self.first_is_readable
            way_out = f"; {self.key}={needed:g} leaves them out" if can_be_left_out else ""
            raise DataError(f"{fraction}{way_out}; the first: {self.first_error}")
