"""Errors and other texts as one line, without passwords."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from mlxlab.errors import ConfigError, ServiceUnavailableError, UserError
from mlxlab.terminal import wording
from mlxlab.terminal.redact import redact
from mlxlab.tracking.records import utf8

MAX_LINE = 300  # characters
# Variables with keys of accounts, which a client may name in an error.
SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "TRACKIO_WRITE_TOKEN", "MLFLOW_TRACKING_PASSWORD")
REFUSED = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


@contextmanager
def mlflow_errors(store: str) -> Iterator[None]:
    """Inside, errors of MLflow are one line: ConfigError for a name or filter that it refuses, else ServiceUnavailableError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Errors of MLflow, of databases and of HTTP have no common base.
        is_refused = getattr(error, "error_code", "") in REFUSED
        kind = ConfigError if is_refused else ServiceUnavailableError
        raise kind(f"{store}: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """An error in one line; the message of the system or of SQLite if one of them is its cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno:
            where = f": {cause.filename}" if cause.filename else ""
            return utf8(redact(f"{cause.strerror}{where}"))
        cause = cause.__cause__ or cause.__context__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[0] if lines else type(error).__name__)


def printable(text: str) -> str:
    """Up to MAX_LINE characters of text, without line breaks, control characters and passwords."""
    for name in SECRETS:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, "***")
    return wording.one_line(redact(utf8(text)), MAX_LINE)
