"""Declares and runs a command: help on request, logging, errors in one line, and the exit code."""

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from mlxlab import program
from mlxlab.cli.args import describe_options, dotted_name, parse_args
from mlxlab.config.issues import one_line
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, NotAllowedError, UserError
from mlxlab.redact import CREDENTIALS, has_credentials, redact

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_INTERNAL_ERROR = 70


@dataclass(frozen=True)
class Action(Generic[T]):
    """A function of options and further arguments, and how these are parsed; `names`, `forward`: see `parse_args`."""

    run: Callable[[T, list[str]], int | None]
    options: type[T]
    names: tuple[int, int] = (0, 0)
    forward: str | None = None

    def __call__(self, args: list[str]) -> int | None:
        return self.run(*parse_args(args, self.options, names=self.names, forward=self.forward))


def command(
    doc: str | None, action: Action | Mapping[str, Action], *, needs_args: bool = True
) -> Callable[[Sequence[str] | None], int]:
    """The `main` of a command, which returns its exit code.

    Args:
        doc: the help text, followed by that of all options.
        action: what it does, or several things it does, each named by the first argument.
        needs_args: a command line without arguments prints the help.
    """
    actions = [action] if isinstance(action, Action) else list(action.values())
    targets = [dotted_name(each.options) for each in actions]

    def act(args: list[str]) -> int | None:
        if isinstance(action, Action):
            return action(args)
        verb, *args = args
        if verb not in action:
            raise ConfigError(f"{verb}: unknown verb{suggestion(verb, action)}")
        return action[verb](args)

    def main(argv: Sequence[str] | None = None) -> int:
        return run_command(argv, act, lambda _: format_help(doc, targets), needs_args=needs_args)

    return main


def run_command(
    argv: Sequence[str] | None,
    act: Callable[[list[str]], int | None],
    show_help: Callable[[list[str]], str],
    *,
    needs_args: bool = True,
) -> int:
    """Calls `act` with the arguments of the command line, or prints its help; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if (needs_args and not args) or {"-h", "--help", "help"} & set(args):
            print(show_help(args))
            return 0
        configure_logging()
        for arg in args:  # configs and commands are printed and stored
            if has_credentials(arg):
                raise NotAllowedError(f"{one_line(redact(arg), 120)}: {CREDENTIALS}")
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


class StderrHandler(logging.Handler):
    """Messages on the current `sys.stderr`; results are printed to stdout.

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


def report(error: BaseException) -> int:
    """Prints a user's error as one line, an internal error as a traceback; returns the exit code."""
    if isinstance(error, UserError):
        print(redact(str(error)), file=sys.stderr)
        return error.exit_code
    traceback.print_exception(error)
    return _INTERNAL_ERROR


def format_help(doc: str | None, targets: Sequence[str] = ()) -> str:
    """A docstring, with `mlxlab VERB` in its indented lines as the user types it, and the options of `targets`."""
    text = re.sub(r"(?m)^( .*?)mlxlab (\S+)", lambda match: match[1] + program.command(match[2]), (doc or "").strip())
    return f"{text}\n{describe_options(targets)}" if targets else text
