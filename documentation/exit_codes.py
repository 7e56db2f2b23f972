"""The page of exit codes, made from the classes of errors and the signals that a run handles."""

from documentation.tables import table
from mlxlab import errors
from mlxlab.analysis.trial.record import EXIT_CODES
from mlxlab.cli.app import INTERNAL_ERROR
from mlxlab.experiment.signals import STOP_SIGNALS

HEAD = """# Exit codes

An error that the user can correct is one line for each issue, at most ten, on standard error: what, where, what was
expected, and the nearest valid name. Its class decides the exit code, as in `sysexits.h`. A traceback is a bug.
"""


def exit_codes() -> dict[int, str]:
    """Every exit code of the commands, and what it means."""
    codes = {code: f"The verdict of `trial` is {verdict}." for verdict, code in EXIT_CODES.items()}
    codes |= {
        0: "Done.",
        1: "A job of a sweep failed; the others are done.",
        INTERNAL_ERROR: "A bug, with its traceback. Please report it.",
    }
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.UserError)
    ]
    for kind in kinds:
        codes.setdefault(kind.exit_code, " ".join((kind.__doc__ or "").split()))
    for number in STOP_SIGNALS:
        codes[128 + number] = (
            f"Stopped by {number.name}; the run is saved, and `resume=auto` continues it."
        )
    return dict(sorted(codes.items()))


def exit_code_page() -> str:
    return f"{HEAD}\n{table(['exit code', 'meaning'], [[str(code), text] for code, text in exit_codes().items()])}\n"
