"""Runs the action of a command line: help on request, logging, errors in one line, and the exit code."""

import errno
import gc
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from mlxlab import terminal
from mlxlab.errors import (
    InputNotFoundError,
    NotAllowedError,
    ServiceUnavailableError,
    UserError,
    WriteError,
    hides_interrupt,
)
from mlxlab.files.atomic import without_nonfinite
from mlxlab.terminal.messages import configure_logging
from mlxlab.terminal.redact import has_credentials, redact, why_refused
from mlxlab.terminal.wording import one_line

INTERNAL_ERROR = 70
TEMPORARY = re.compile(
    r"\.tmp-\d+-[0-9a-f]+-"
)  # What `files.atomic` puts before the name of a file.
HELP = {"-h", "--help", "help"}


def run_subcommand(
    argv: Sequence[str] | None = None,
    *,
    act: Callable[[list[str]], int | None],
    show_help: Callable[[list[str]], str],
    needs_args: bool = True,
) -> int:
    """Calls `act` with the arguments of the command line, or prints its help; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    open_closed_streams()
    try:
        if (needs_args and not args) or HELP & set(args):
            print(show_help(args), flush=True)
            return 0
        configure_logging()
        for arg in args:  # configs and commands are printed and stored
            if has_credentials(arg):
                raise NotAllowedError(f"{one_line(redact(arg), 120)}: {why_refused(arg)}")
        code = act(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `mlxlab runs list | head`
        discard_output()
        return 0
    except SystemExit as stop:
        if isinstance(stop.code, int):
            return stop.code
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    finally:
        if (
            argv is None
        ):  # the process ends: its garbage need not be found first, which takes a second after a run
            gc.freeze()


def open_closed_streams() -> None:
    """Python sets a standard stream to None that was closed (`2>&-`); libraries expect a file."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115


def discard_output() -> None:
    """Sends the rest of standard output to nowhere, also what is in its buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def report(error: BaseException) -> int:
    """Prints an error as one line, or a traceback where it is ours; returns the exit code."""
    if isinstance(error, UserError):
        print(terminal.styled(redact(str(error)), "red", sys.stderr), file=sys.stderr)
        return error.exit_code
    if hides_interrupt(error):
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    if isinstance(error, MemoryError):
        print("out of memory", file=sys.stderr)
        return ServiceUnavailableError.exit_code
    if isinstance(error, OSError) and error.strerror:  # The disk may be full.
        try:
            sys.stdout.flush()
        except OSError:
            discard_output()
        place = TEMPORARY.sub("", str(error.filename or "standard output"))
        print(f"{one_line(place, 300)}: {error.strerror}", file=sys.stderr)
        if error.errno == errno.ENAMETOOLONG:
            return InputNotFoundError.exit_code
        return WriteError.exit_code
    if isinstance(error, ModuleNotFoundError):
        package = error.name
        if package and package.partition(".")[0] != "mlxlab":
            print(f"the package {package} is not installed; see mlxlab doctor", file=sys.stderr)
            return ServiceUnavailableError.exit_code
    traceback.print_exception(error)
    return INTERNAL_ERROR


def prepare_inference() -> None:
    """Prepares MLX and its kernels; call it before a module that uses them is imported."""
    from mlxlab import backend

    backend.prepare()
    from mlxlab.backend.ops.native.activation import activate_for_inference

    activate_for_inference()


def print_json(value: object) -> None:
    """Null stands for NaN and infinities, which JSON does not have."""
    print(json.dumps(without_nonfinite(value), allow_nan=False, indent=1))


def print_result(value: object, text: str, json: bool) -> None:
    """Prints the text, or with `json` the value."""
    if json:
        print_json(value)
    else:
        terminal.show(text)
