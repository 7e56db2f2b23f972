"""Runs a command: a plain function whose signature, type hints and docstring are its options, checks and help.

A module of this package, or of `extensions/*/commands/`, is a command. It has a function of its own name, or the
table `ACTIONS`: first argument -> function of the module; that of "" is the default. Nothing but source text is read
before the options are valid.

    def predict(run: Path, batch_size: Size = 64, *names: str, json: bool = False, **data: str) -> None:

An option is `batch_size=64`; `--json` is short for `json=true`. Arguments without `=` are those of `*names`, or the
required options in their order. `**data` takes all `data.KEY=VALUE`. `ALIASES` has other names of options.
"""

import ast
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mlxlab.cli.app import run_subcommand
from mlxlab.config.issues import ConfigIssue, format_issues
from mlxlab.config.schema.root import TARGET as ROOT
from mlxlab.config.schema.signature import Signature, read_signature
from mlxlab.config.schema.source import find_statement, read_source
from mlxlab.config.schema.validate import Checker, describe, kinds_of, read_value
from mlxlab.errors import ConfigError
from mlxlab.terminal.nearest import did_you_mean, nearest, suggestion
from mlxlab.terminal.redact import issue_line
from mlxlab.terminal.tables import hang
from mlxlab.terminal.wording import one_line, shown

WIDTH = 120
COLUMN = 30  # The meanings of options begin here.


def run_command(module: str, argv: Sequence[str] | None = None) -> int:
    """Runs the command of a module; returns the exit code. One that needs arguments prints its help without any."""
    known = _signatures(module)
    needs_args = "" not in known or any(key.required for key in known[""].keys.values())
    return run_subcommand(
        argv,
        act=partial(_act, module),
        show_help=lambda args: command_help(module),
        needs_args=needs_args,
    )


def command_help(module: str) -> str:
    """What a command does, and the options of its actions."""
    lines = [ast.get_docstring(ast.parse(read_source(module))) or ""]
    for action, known in _signatures(module).items():
        lines += ["", f"Options of {action}" if action else "Options", ""]
        for name, key in known.keys.items():
            default = "..." if key.required else _shown_default(key.default)
            lines += hang(f"{name}={default}", f"{describe(key.hint)}; {key.doc}", COLUMN, WIDTH)
    return "\n".join(lines)


def _shown_default(text: str) -> str:
    """A default as one types it; in the source that of a path is `Path('name')`, and of a list a factory."""
    if "default_factory" in text:
        return "[]"
    if text.startswith("Path("):
        text = text[len("Path(") : -1]
    with suppress(ValueError):
        return shown(ast.literal_eval(text))
    return text


def _signatures(module: str) -> dict[str, Signature]:
    """The signature of each action."""
    return {action: _signature(target) for action, target in _actions(module).items()}


def _signature(target: str) -> Signature:
    known = read_signature(target)
    assert known is not None, target
    return known


def _actions(module: str) -> dict[str, str]:
    """Action -> dotted name of its function; "" alone for a command without actions."""
    actions = _table("ACTIONS", module) or {"": module.rpartition(".")[2]}
    return {action: f"{module}.{function}" for action, function in actions.items()}


def _table(name: str, module: str) -> dict[str, str]:
    """A mapping that the source of a module names; empty if it has none."""
    statement = find_statement(name, module)
    if not isinstance(statement, ast.Assign):
        return {}
    return dict(ast.literal_eval(statement.value))


def _act(module: str, args: Sequence[str]) -> int | None:
    sys.argv = ["mlxlab", module.rpartition(".")[2], *args]  # `program.command_line` joins it.
    actions = _actions(module)
    action = ""
    if args and args[0] in actions:
        action, *args = args
    elif "" not in actions or (len(actions) > 1 and args and _is_name(args[0])):
        names = [name for name in actions if name]
        raise ConfigError(f"{args[0]}: unknown subcommand{suggestion(args[0], names)}")
    target = actions[action]
    names, values = parse_args(args, target, _table("ALIASES", module))
    function: Callable[..., int | None]
    function = getattr(importlib.import_module(module), target.rpartition(".")[2])
    return function(*names, **values)


def _is_name(arg: str) -> bool:
    return "=" not in arg and not arg.startswith("-") and not os.path.exists(arg)


def parse_args(
    args: Sequence[str], target: str, aliases: dict[str, str] | None = None
) -> tuple[list[str], dict[str, Any]]:
    """The arguments of `*names`, and the values of the options, with which a function is called.

    Raises:
        ConfigError: a line for every unknown, missing and invalid option.
    """
    known = _signature(target)
    typed = sort_args(args, known, aliases or {})
    refuse_misspelt(typed, known)
    return typed.names, check_options(typed, known)


@dataclass
class TypedArgs:
    """A command line: the texts of options, arguments of `*names`, and lines on what is neither."""

    texts: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def sort_args(args: Sequence[str], known: Signature, aliases: dict[str, str]) -> TypedArgs:
    """Tells options, other arguments and faults apart."""
    typed = TypedArgs()
    for arg in args:
        name, equals, text = arg.lstrip("-").partition("=")
        name = aliases.get(name, name)
        is_prefixed = bool(known.prefix) and name.startswith(f"{known.prefix}.")
        is_flag = arg.startswith("--") and not equals and name in known.keys
        is_path = os.path.exists(arg)  # A folder may be named a=b.
        if is_flag or (equals and (name in known.keys or is_prefixed)):
            if name in typed.texts:
                typed.faults.append(f"{one_line(arg, 300)}: {name} is given twice")
            typed.texts[name] = "true" if is_flag else text
        elif known.variadic or is_path or not (equals or arg.startswith("-")):
            typed.names.append(arg)
        else:
            hint = suggestion(name, known.keys)
            typed.faults.append(issue_line(one_line(arg, 300), f"unknown key{hint}"))
    if not known.variadic:
        _name_options(typed, known)
    return typed


def _name_options(typed: TypedArgs, known: Signature) -> None:
    """Takes arguments without `=` as the required options in their order, or as the first option."""
    required = [name for name, key in known.keys.items() if key.required]
    names = typed.names
    typed.names = []
    for name in required or [*known.keys][:1]:
        if names and name not in typed.texts:
            typed.texts[name] = names.pop(0)
    for arg in names:
        expected = f"{arg}=..." if arg in known.keys else "key=value"
        typed.faults.append(f"{one_line(arg, 300)}: expected {expected}")


def check_options(typed: TypedArgs, known: Signature) -> dict[str, Any]:
    """The values of the options; ConfigError with a line for each fault."""
    values = {}
    rest = {}
    for name, text in typed.texts.items():
        if name in known.keys:
            values[name] = read_value(known.keys[name].hint, text)
        else:
            rest[name.removeprefix(f"{known.prefix}.")] = text

    issues = list(Checker(values).check_arguments(values, known))
    if typed.faults:  # A missing option is probably one of those that were mistyped.
        issues = [issue for issue in issues if issue.path in values]
    labels = {name: f"{name}={shown(value)}" for name, value in values.items()}
    labelled = [
        ConfigIssue(labels.get(issue.path, f"{issue.path}=..."), issue.message) for issue in issues
    ]
    lines = format_issues(labelled).splitlines()
    if typed.faults or lines:
        raise ConfigError("\n".join([*typed.faults, *lines]))

    for name, value in values.items():
        if isinstance(value, str) and Path in kinds_of(known.keys[name].hint):
            values[name] = _read_path(name, value)
    return values | rest


def _read_path(name: str, text: str) -> Path:
    if not text:
        raise ConfigError(f"{name}=: expected a path")
    if name == "run" and re.fullmatch(r"[0-9a-f]{6,32}", text) and not os.path.exists(text):
        from mlxlab.past_runs.lookup import find_run_folder

        return find_run_folder(text)
    return Path(os.path.expanduser(text))  # Unlike Path.expanduser, leaves `~nobody` as it is.


def refuse_misspelt(typed: TypedArgs, known: Signature) -> None:
    """Raises ConfigError for one of the arguments of `*names` that looks like a mistyped option.

    Those of `*overrides` are keys of train.
    """
    keys = set()
    if known.variadic == "overrides":
        from mlxlab.config.option_files import GLOBAL_GROUPS

        keys = {*_signature(ROOT).keys, *GLOBAL_GROUPS}
    for arg in typed.names:
        name, equals, text = arg.lstrip("-").partition("=")
        near = nearest(name, [*known.keys, *keys])
        is_typed = (equals or arg.startswith("--")) and name.isidentifier() and name not in keys
        is_path = os.path.exists(os.path.expanduser(text.partition(",")[0]))
        if is_typed and near in known.keys and not is_path:
            raise ConfigError(issue_line(one_line(arg, 120), f"unknown key{did_you_mean(near)}"))
