"""Messages of `mlxlab` loggers, on standard error."""

import logging
import sys
from contextlib import suppress

from mlxlab.redact import redact


class StderrHandler(logging.Handler):
    """Messages on the current `sys.stderr`. One that cannot be written, on a full disk or a closed pipe, is lost."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            print(redact(self.format(record)), file=sys.stderr, flush=True)


def configure_logging() -> None:
    """Sends the messages of `mlxlab` loggers, from level INFO, to stderr."""
    logger = logging.getLogger("mlxlab")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        logger.addHandler(StderrHandler())
