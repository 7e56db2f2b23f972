"""Runs a command: help on request, logging, errors in one line, and the exit code."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from mlxlab.cli.args import describe_args
from mlxlab.config.issues import one_line
from mlxlab.errors import NotAllowedError, UserError
from mlxlab.program import command
from mlxlab.redact import CREDENTIALS, has_credentials, redact

_INTERNAL_ERROR = 70


class StderrHandler(logging.Handler):
    """Plain messages on the current `sys.stderr`; results are printed to stdout.

    A message that cannot be written, to a file on a full disk or a closed pipe, is lost; the run continues.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            print(redact(self.format(record)), file=sys.stderr, flush=True)


def configure_logging() -> None:
    """Sends the messages of `mlxlab` loggers, from level INFO, to stderr."""
    logger = logging.getLogger("mlxlab")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        logger.addHandler(StderrHandler())


def run_command(
    doc: str | Callable[[list[str]], str] | None,
    argv: Sequence[str] | None,
    act: Callable[[list[str]], int | None],
    *,
    options: Sequence[str] = (),
    needs_args: bool = True,
) -> int:
    """Calls `act` with the arguments of the command line, or prints its help; returns the exit code.

    Args:
        doc: the help text, or a function that makes it of the arguments; in a text
            `mlxlab VERB` becomes what the user typed.
        options: dotted names of the dataclasses of options that the help lists.
        needs_args: a command line without arguments asks for help.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if (needs_args and not args) or {"-h", "--help", "help"} & set(args):
            print(doc(args) if callable(doc) else _help(doc or "", options))
            return 0
        configure_logging()
        refuse_credentials(args)
        code = act(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `mlxlab runs list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except Exception as error:
        return report(error)


def report(error: BaseException) -> int:
    """Prints a user's error as one line, an internal error as a traceback; returns the exit code."""
    if isinstance(error, UserError):
        print(redact(str(error)), file=sys.stderr)
        return error.exit_code
    traceback.print_exception(error)
    return _INTERNAL_ERROR


def refuse_credentials(args: Sequence[str]) -> None:
    """Refuses URLs with a password or token among the arguments typed: configs and commands are printed and stored."""
    for word in args:
        if has_credentials(word):
            raise NotAllowedError(f"{one_line(redact(word), 120)}: {CREDENTIALS}")


def _help(doc: str, options: Sequence[str]) -> str:
    lines = []
    for line in doc.strip().splitlines():
        head, called, verb = line.partition("mlxlab ")
        name, space, rest = verb.partition(" ")
        lines.append(f"{head}{command(name)}{space}{rest}" if called and line.startswith(" ") else line)
    return "\n".join([*lines, *(["", "Options", "", describe_args(options)] if options else [])])
