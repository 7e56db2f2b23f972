"""What the small programs share: help on request, faults as lines, an exit code."""

import logging
import sys
from collections.abc import Callable, Sequence

from mlxlab.config.findings import one_line
from mlxlab.errors import NotAllowedError, UserError
from mlxlab.redact import CREDENTIALS, has_credentials, redact


def refuse_credentials(words: Sequence[str]) -> None:
    """Refuses URLs with a password or token among the words typed: configs and commands are printed and stored."""
    for word in words:
        if has_credentials(word):
            raise NotAllowedError(f"{one_line(redact(word), 120)}: {CREDENTIALS}")


def run_program(heading: str | None, argv: Sequence[str] | None, act: Callable[[list[str]], None]) -> int:
    """Calls `act` with the words of the command line, or prints the heading; returns the exit code."""
    configure_logging()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help", "help"} & set(words):
        print((heading or "").strip())
        return 0
    try:
        refuse_credentials(words)
        act(words)
    except UserError as fault:
        print(redact(str(fault)), file=sys.stderr)
        return fault.exit_code
    return 0


def configure_logging() -> None:
    """Sends what the package logs to standard error, one plain line each; results go to standard output by `print`."""
    logger = logging.getLogger("mlxlab")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        logger.addHandler(StderrHandler())


class StderrHandler(logging.Handler):
    """Writes to `sys.stderr` as it is at the moment of the message: worker processes redirect it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)
