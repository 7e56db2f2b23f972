"""The warnings of a run, for its record."""

import logging

from mlxlab.redact import redact
from mlxlab.wording import one_line

MAX_WARNINGS = 50


class WarningList(logging.Handler):
    """Collects warnings, each once, up to a limit."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = redact(one_line(record.getMessage(), 500))
        if line not in self.lines and len(self.lines) < MAX_WARNINGS:
            self.lines.append(line)
