"""Errors raised while uploading a journal, and any error as one line."""

import sqlite3
from collections.abc import Iterator

from mlxlab.errors import UserError
from mlxlab.redact import redact
from mlxlab.tracking.records import utf8

_LOCK_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class StoreUnavailableError(Exception):
    """The store cannot be used now; a later attempt may succeed. One line."""


class StoreReplacedError(StoreUnavailableError):
    """The database file was removed or replaced: it must be reopened, as writes would go to the deleted file."""


class StoreLockedError(StoreUnavailableError):
    """Another process holds the lock of the database."""


class JournalRejectedError(Exception):
    """This journal cannot be uploaded; others can. One line."""


class RunNotFoundError(Exception):
    """The store does not have the run, or no longer: the journal must be uploaded from its first line."""


def one_line(error: BaseException) -> str:
    """An error in one line, without passwords; the message of the system or of SQLite if one of them is its cause."""
    for cause in _causes(error):
        if isinstance(cause, sqlite3.Error):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno:
            return utf8(
                redact(f"{cause.strerror}{f': {cause.filename}' if cause.filename else ''}")
            )
    return printable(
        next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    )


def printable(text: str) -> str:
    """Up to 300 characters of text, without line breaks, control characters and passwords."""
    visible = "".join(char if char.isprintable() else " " for char in utf8(text))
    return redact(" ".join(visible.split()))[:300]


def classify_error(error: Exception) -> Exception:
    """Maps an error of MLflow's client to one of the errors above."""
    if isinstance(error, StoreUnavailableError | JournalRejectedError | RunNotFoundError):
        return error
    code = getattr(error, "error_code", "")
    if code == "RESOURCE_DOES_NOT_EXIST":
        return RunNotFoundError(one_line(error))
    if isinstance(error, UserError) or code in ("INVALID_PARAMETER_VALUE", "INVALID_STATE"):
        return JournalRejectedError(one_line(error))
    of_a_value = isinstance(
        error, ArithmeticError | AttributeError | LookupError | TypeError | ValueError
    )
    if of_a_value and not isinstance(error, OSError):  # requests' InvalidURL is both
        return JournalRejectedError(f"{type(error).__name__}: {one_line(error)}")
    causes = [cause for cause in _causes(error) if isinstance(cause, sqlite3.OperationalError)]
    locked = any(cause.sqlite_errorcode & 0xFF in _LOCK_CODES for cause in causes)
    return (StoreLockedError if locked else StoreUnavailableError)(one_line(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its cause, the cause of that one, ..."""
    while error is not None:
        yield error
        cause = error.__cause__ or error.__context__
        error = (
            None if cause is error else cause
        )  # `raise classify_error(error) from error` may make it its own cause
