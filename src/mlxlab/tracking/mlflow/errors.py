"""Errors raised while uploading a journal, and any error as one line."""

import sqlite3

from mlxlab.errors import UserError
from mlxlab.redact import redact
from mlxlab.tracking.records import utf8

_LOCK_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class StoreUnavailableError(Exception):
    """The store cannot be used now. One line; trying again later is right."""


class StoreReplacedError(StoreUnavailableError):
    """The database file was removed or exchanged: writes would go to a file without a name. It must be reopened."""


class StoreLockedError(StoreUnavailableError):
    """Another process holds the database's lock, for a while."""


class JournalRejectedError(Exception):
    """This one journal cannot be uploaded. One line; other journals are not concerned."""


class RunNotFoundError(Exception):
    """The store does not have the run (any more): it has to be uploaded from its first line."""


def one_line(error: BaseException) -> str:
    """An error in one line, without passwords; the message of the system or of SQLite if one of them is its cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno:
            return utf8(redact(f"{cause.strerror}{f': {cause.filename}' if cause.filename else ''}"))
        cause = cause.__cause__ or cause.__context__
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return utf8(redact(" ".join(text.split()))[:300])


def classify_error(error: Exception) -> Exception:
    """The error of ours that an error of MLflow's client stands for."""
    if isinstance(error, StoreUnavailableError | JournalRejectedError | RunNotFoundError):
        return error
    if isinstance(error, UserError):
        return JournalRejectedError(one_line(error))
    code = getattr(error, "error_code", "")
    if code == "RESOURCE_DOES_NOT_EXIST":
        return RunNotFoundError(one_line(error))
    if code in ("INVALID_PARAMETER_VALUE", "INVALID_STATE"):
        return JournalRejectedError(one_line(error))
    of_a_value = isinstance(error, ArithmeticError | AttributeError | LookupError | TypeError | ValueError)
    if of_a_value and not isinstance(error, OSError):  # requests' InvalidURL is both
        return JournalRejectedError(f"{type(error).__name__}: {one_line(error)}")
    kind = StoreLockedError if _is_lock(error) else StoreUnavailableError
    return kind(one_line(error))


def _is_lock(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _LOCK_CODES:
            return True
        error = error.__cause__ or error.__context__
    return False
