"""Declares and runs a subcommand: help on request, logging, errors in one line, and the exit code."""

import gc
import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlxlab import program, terminal
from mlxlab.cli.args import ArgumentCountError, check_overrides, describe_options, parse_args
from mlxlab.config.issues import one_line
from mlxlab.errors import ConfigError, NotAllowedError, UserError, hides_interrupt
from mlxlab.nearest import suggestion
from mlxlab.redact import has_credentials, redact, why_refused
from mlxlab.terminal.messages import configure_logging

INTERNAL_ERROR = 70


@dataclass(frozen=True)
class Subcommand:
    """A function that does what a subcommand is for; its parameters are the options.

    `run=`, or the key `first`, may be left out of the first argument. After a bare `*` the function may declare:
    `args`, the further arguments; `command_line`, all of it as a shell reads it; `more`, the values of the options of
    other targets.
    """

    run: Callable[..., int | None]
    num_positional: tuple[int, int] = (0, 0)  # see `parse_args`
    forward_prefix: str | None = None  # see `parse_args`
    forwards_overrides: bool = False  # to train; then also all that `forward_prefix=""` accepts
    first: str = "run"
    more: tuple[str, ...] = ()  # dotted names of other targets whose parameters are options too
    aliases: Mapping[str, str] = field(
        default_factory=dict
    )  # names of other commands for a key -> the key

    @property
    def targets(self) -> list[str]:
        return [f"{self.run.__module__}.{self.run.__name__}", *self.more]

    def __call__(self, typed: list[str]) -> int | None:
        parameters = inspect.signature(self.run).parameters
        if (
            self.first in parameters
            and typed
            and "=" not in typed[0]
            and not typed[0].startswith("-")
        ):
            typed = [f"{self.first}={typed[0]}", *typed[1:]]
        typed = [self._without_alias(arg) for arg in typed]
        counts, prefix = self.num_positional, "" if self.forwards_overrides else self.forward_prefix
        values, args = parse_args(typed, self.targets, num_positional=counts, forward_prefix=prefix)
        if self.forwards_overrides:
            check_overrides(args, self.targets)
        more = {name: values.pop(name) for name in list(values) if name not in parameters}
        for name, value in values.items():
            if parameters[name].annotation in (Path, Path | None) and value is not None:
                if not value:
                    raise ConfigError(f"{name}=: expected a path")
                path = Path(
                    os.path.expanduser(value)
                )  # unlike Path.expanduser, leaves `~nobody` as it is
                values[name] = _folder_of_run(value) or path if name == "run" else path
        command = f"mlxlab {self.run.__module__.rpartition('.')[2]}"
        passed = {"args": args, "more": more, "command_line": f"{command} {program.join(typed)}"}
        return self.run(
            **values, **{name: value for name, value in passed.items() if name in parameters}
        )

    def _without_alias(self, arg: str) -> str:
        name, equals, text = arg.lstrip("-").partition("=")
        return f"{self.aliases[name]}={text}" if equals and name in self.aliases else arg


@dataclass(frozen=True)
class CommandLine:
    """The `main` of a module of this package.

    Args:
        doc: the help text, followed by that of all options.
        subcommands: what it does, by the first argument that names it; by "" if there is only one.
        needs_args: a command line without arguments prints the help.
    """

    doc: str | None
    subcommands: Mapping[str, Subcommand]
    needs_args: bool = True

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        return run_subcommand(argv, act=self._act, show_help=self._help, needs_args=self.needs_args)

    def _act(self, args: list[str]) -> int | None:
        if "" in self.subcommands:
            return self.subcommands[""](args)
        name, *args = args
        if name not in self.subcommands:
            raise ConfigError(f"{name}: unknown subcommand{suggestion(name, self.subcommands)}")
        try:
            return self.subcommands[name](args)
        except ArgumentCountError as error:
            raise ConfigError(f"{error}{_usage(self.doc, name)}") from None

    def _help(self, _: list[str]) -> str:
        lines = [(self.doc or "").strip()]
        for name, each in self.subcommands.items():
            options = [line for target in each.targets for line in describe_options(target)]
            lines += (
                ["", f"Options of {name}" if name else "Options", "", *options] if options else []
            )
        return "\n".join(lines)


def build_main(
    doc: str | None,
    subcommand: Subcommand | Mapping[str, Subcommand],
    *,
    needs_args: bool = True,
) -> CommandLine:
    """The `main` of a module of this package, with one subcommand or several."""
    subcommands = {"": subcommand} if isinstance(subcommand, Subcommand) else subcommand
    return CommandLine(doc, subcommands, needs_args)


def run_subcommand(
    argv: Sequence[str] | None = None,
    *,
    act: Callable[[list[str]], int | None],
    show_help: Callable[[list[str]], str],
    needs_args: bool = True,
) -> int:
    """Calls `act` with the arguments of the command line, or prints its help; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if (needs_args and not args) or {"-h", "--help", "help"} & set(args):
            terminal.show_help(show_help(args))
            return 0
        configure_logging()
        for arg in args:  # configs and commands are printed and stored
            if has_credentials(arg):
                raise NotAllowedError(f"{one_line(redact(arg), 120)}: {why_refused(arg)}")
        code = act(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `mlxlab runs list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    finally:
        if (
            argv is None
        ):  # the process ends: its garbage need not be found first, which takes a second after a run
            gc.freeze()


def _folder_of_run(text: str) -> Path | None:
    """The folder of a run that is named by its id, or the first digits of it; None for what is a path."""
    if os.path.exists(text) or not re.fullmatch(r"[0-9a-f]{6,32}", text):
        return None
    from mlxlab.experiment.past_run.lookup import find_run_folder

    return find_run_folder(text)


def report(error: BaseException) -> int:
    """Prints a user's error as one line, an internal error as a traceback; returns the exit code."""
    if isinstance(error, UserError):
        print(terminal.styled(redact(str(error)), "red", sys.stderr), file=sys.stderr)
        return error.exit_code
    if hides_interrupt(error):
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    traceback.print_exception(error)
    return INTERNAL_ERROR


def _usage(doc: str | None, name: str) -> str:
    """`; usage: ...`, by the line of the help text that shows the subcommand; "" if there is none."""
    line = re.search(rf"(?m)^ +(.*\b{re.escape(name)}\b.*)$", doc or "")
    return f"; usage: {line[1]}" if line else ""
