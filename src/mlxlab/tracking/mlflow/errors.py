"""What can go wrong between a journal and the store, and an error in one line."""

import sqlite3

from mlxlab.tracking.mlflow.address import redact


class StoreUnavailableError(Exception):
    """The store does not serve us now. One line; trying again later is right."""


class StoreReplacedError(StoreUnavailableError):
    """The database file was removed or exchanged: writes would go to a file without a name. Open the store anew."""


class JournalRejectedError(Exception):
    """The store refuses this one journal. One line; other journals are not concerned."""


class RunNotFoundError(Exception):
    """The store does not know the run (any more): it has to be carried again from its first line."""


def one_line(error: BaseException) -> str:
    """An error in one line, without passwords. The system's own word for it where it has one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno:
            return redact(f"{cause.strerror}{f': {cause.filename}' if cause.filename else ''}")
        cause = cause.__cause__ or cause.__context__
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return redact(" ".join(text.split()))[:300]


def classify_error(error: Exception) -> Exception:
    """What an error of the client means to us."""
    if isinstance(error, StoreUnavailableError | JournalRejectedError | RunNotFoundError):
        return error
    code = getattr(error, "error_code", "")
    if code == "RESOURCE_DOES_NOT_EXIST":
        return RunNotFoundError(one_line(error))
    if code in ("INVALID_PARAMETER_VALUE", "INVALID_STATE"):
        return JournalRejectedError(one_line(error))
    if isinstance(error, ArithmeticError | AttributeError | LookupError | TypeError) or type(error) is ValueError:
        return JournalRejectedError(f"{type(error).__name__}: {one_line(error)}")  # a line that none of us wrote
    return StoreUnavailableError(one_line(error))
