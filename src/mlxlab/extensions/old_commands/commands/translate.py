"""Translates command lines of older training programs into those of mlxlab.

    mlxlab translate 'python mlx_bert_cli.py train --train t.csv --epochs 5' [defaults=true]

The new command goes to standard output, notes to standard error; docs/how_to/migration.md is the guide.
"""

import ast
import re
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from mlxlab import program
from mlxlab.cli.print_json import print_json
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import read_json, read_text
from mlxlab.files.yaml_file import parse_yaml
from mlxlab.nearest import suggestion
from mlxlab.redact import redact

ACTIONS = {"": "print_translation"}
ASSIGNMENT = re.compile(r"^(?: {4})?(\w+)(?: *:[^=\n]*)? *= *([^#\n]+)", re.MULTILINE)
PROCESSES = re.compile(r"(?:torchrun|srun) .*?(?:--nproc[-_]per[-_]node|--ntasks|-n)[ =]?(\d+)")
FLAG = re.compile(r"--[A-Za-z][\w-]*|-[A-Za-z]")
FIELD = re.compile(r"\{([\w*/-]*)\}")
WORD = re.compile(r"""[^\s,"'()\[\]]+""")
MAX_BYTES = 2**20  # of a file

Flag = dict[str, Any]


@dataclass
class Translation:
    """A new command: its arguments by key, notes on what differs, and the values of all flags."""

    command: str
    values: dict[str, str]
    notes: list[str]
    args: dict[str, str] = field(default_factory=dict)

    def add(self, args: list[str]) -> None:
        self.args |= {arg.partition("=")[0]: arg for arg in args}

    def expand(self, name: str, flag: Flag, value: str) -> list[str]:
        """The arguments, or options of growth operations, that a flag with a value stands for."""
        if "note" in flag:
            self.notes.append(f"{name}: {flag['note']}")
        subject = self.fill(flag.get("of", "{}"), [value])
        for expression, template in flag["to"].items():
            match = re.fullmatch(str(expression), subject, re.I | re.S)
            if match is None:
                continue
            if template is None:
                self.notes.append(f"{name}: no counterpart")
                return []
            if template == "growth":
                return [self._growth_override(value)]
            templates = template.split() if isinstance(template, str) else template
            return [self.fill(each, [value, *match.groups("")]) for each in templates]
        raise ConfigError(f"{name} {value}: expected one of {', '.join(map(str, flag['to']))}")

    def fill(self, template: str, groups: list[str]) -> str:
        text = FIELD.sub(lambda match: self._field(match[1] or "0", groups), template)
        key, is_text, _ = template.partition('="')
        return program.path_override(key, text[len(key) + 2 : -1]) if is_text else text

    def _field(self, expression: str, groups: list[str]) -> str:
        if expression.isdigit():
            return groups[int(expression)]
        if expression == "list":
            return ", ".join(WORD.findall(groups[0]))
        if expression in self.values:
            return self.values[expression]
        result = 1.0
        try:
            for operator, name in re.findall(r"(//|/|\*)([^*/]+)", f"*{expression}"):
                operand = float(self.values.get(name, name))
                result = result * operand if operator == "*" else result / operand
                if operator == "//":
                    result = max(1, round(result))
        except (ValueError, ArithmeticError):
            raise ConfigError(f"{expression}: expected numbers, got {groups[0]}") from None
        return f"{result:.12g}"

    def _growth_override(self, schedule: str) -> str:
        """The override for a growth schedule: a list in Python, or a JSON or YAML file with one."""
        table = read_tables()["growth schedule"]["flags"]
        operations: list[str] = []
        try:
            for entry in read_schedule(schedule):
                if entry["name"] not in table:
                    nearest = suggestion(entry["name"], table)
                    raise ConfigError(f"{entry['name']}: unknown operation{nearest}")
                operations += self._operations(entry, table[entry["name"]], len(operations))
        except (LookupError, TypeError, ValueError, SyntaxError) as error:
            raise DataError(f"growth schedule: malformed entry ({error})") from None
        braced = ", ".join(f"{{{operation}}}" for operation in operations)
        return f"callbacks.growth.operations=[{braced}]"

    def _operations(self, entry: dict[str, Any], flag: Flag, count: int) -> list[str]:
        """The operations of an entry, of which `count` come before it."""
        value = as_text(entry["value"])
        self.values["value"] = value
        if "sets" in flag:
            changed, _, template = flag["sets"].partition("=")
            self.values[changed] = self.fill(template, [value])
        limits = {"metric_below": entry["trigger_loss"], "or_steps": entry["max_wait_iters"]}
        limits = {key: limit for key, limit in limits.items() if limit is not None}
        operations = []
        for number, options in enumerate(self.expand(entry["name"], flag, value), count + 1):
            limits = limits or {"or_steps": 1}
            when = ", ".join(f"{key}: {limit}" for key, limit in limits.items())
            operations.append(f"id: {entry['name']}_{number}, {options}, when: {{{when}}}")
            limits["or_steps"] = 1  # Further operations of an entry follow at once.
        if entry["reevaluate"] and operations:
            operations[-1] += ", then: evaluate"
        return operations


def translate(line: str, *, defaults: bool = False) -> Translation:
    """The new command for an old line.

    Args:
        defaults: also what the old program used without a flag.
    """
    table, launcher, args = find_program(line)
    flags = {names.split()[0]: flag for names, flag in table["flags"].items()}
    spellings = {each: names.split()[0] for names in table["flags"] for each in names.split()}
    typed = read_flags(args, spellings)
    notes = [table["note"]] if "note" in table else []
    path = Path(typed.get("config", ""))
    if path.suffix in (".json", ".py") and path.is_file():
        del typed["config"]
        known = {}
        for key, value in read_config(path).items():
            if key in spellings:
                known[spellings[key]] = value
            else:
                notes.append(f"{path}: {key}: unknown key")
        typed = typed | known if path.suffix == ".json" else known | typed
    typed = {name: value for name, value in typed.items() if value not in ("", "None")}
    values = {name: str(flag.get("default", "")) for name, flag in flags.items()}
    processes = next(iter(PROCESSES.findall(launcher)), "1")
    result = Translation(table["command"], values | {"processes": processes} | typed, notes)
    result.add(table.get("base", "").split())
    if defaults:
        result.add(table.get("fixed", "").split())
    for name, flag in flags.items():
        if name in typed or flag.get("always") or (defaults and "default" in flag):
            result.add(result.expand(name, flag, result.values[name]))
    if processes != "1":
        result.command = result.command.replace("train", f"launch nproc={processes}")
    return result


def find_program(line: str) -> tuple[dict[str, Any], str, list[str]]:
    """The table of the program in a line, the launcher in front of it, and its arguments."""
    tables = read_tables()
    try:
        words = shlex.split(line.replace("\\\n", " "))
    except ValueError:
        raise ConfigError("the command line ends inside a quotation") from None
    for number, word in enumerate(words):
        if word.endswith((".py", ".sh")):
            script = Path(word).stem
        elif words[number - 1 : number] == ["-m"]:
            script = word.rpartition(".")[2]
        else:
            continue
        with_command = " ".join([script, *words[number + 1 : number + 2]])
        name = with_command if with_command in tables else script
        if name in tables:
            if "command" not in tables[name]:
                raise ConfigError(f"{name}: no counterpart: {tables[name]['note']}")
            return tables[name], " ".join(words[:number]), words[number + len(name.split()) :]
    scripts = ", ".join(name for name in sorted(tables) if " " not in name)
    raise ConfigError(f"no old program in this line; expected one of {scripts}")


def read_flags(args: list[str], spellings: dict[str, str]) -> dict[str, str]:
    """The values of flags by their first names, several joined by blanks.

    A file without a flag is `config`.
    """
    values: dict[str, list[str]] = {}
    name = "config"
    for arg in args:
        flag, equals, text = arg.partition("=")
        if FLAG.fullmatch(flag):
            spelling = normalized(flag)
            if spelling not in spellings:
                raise ConfigError(f"{flag}: unknown flag{suggestion(spelling, spellings)}")
            name = spellings[spelling]
            values[name] = [text] if equals else []
            name = "config" if equals else name
        elif name in spellings.values():
            values.setdefault(name, []).append(arg)
        else:
            raise ConfigError("an argument without a flag, where none is expected")
    return {name: " ".join(words) if words else "true" for name, words in values.items()}


def read_config(path: Path) -> dict[str, str]:
    """The keys of a JSON object, or the literals assigned in a Python file, which is not run."""
    if path.suffix == ".json":
        values = read_json(path, dict[str, object])
        return {normalized(key): as_text(value) for key, value in values.items()}
    settings = {}
    for name, literal in ASSIGNMENT.findall(read_text(path, max_bytes=MAX_BYTES)):
        with suppress(ValueError, SyntaxError):
            settings[normalized(name)] = as_text(ast.literal_eval(literal))
    return settings


def read_schedule(schedule: str) -> Any:
    if schedule.startswith("["):
        return ast.literal_eval(schedule)
    path = Path(schedule)
    text = indent(read_text(path, max_bytes=MAX_BYTES), "  ")
    return parse_yaml(path, f"schedule:\n{text}").values["schedule"]


def read_tables() -> dict[str, Any]:
    """All programs; each flag has `to`, by expressions of its value."""
    tables: dict[str, Any] = {}
    for file in Path(__file__).parents[1].glob("*.yaml"):
        tables |= yaml.safe_load(file.read_text("utf-8"))
    for table in tables.values():
        table["flags"] = {name: _read_flag(flag) for name, flag in table.get("flags", {}).items()}
    return tables


def _read_flag(entry: object) -> Flag:
    flag = entry if isinstance(entry, dict) else {"to": entry}
    to = flag.get("to")
    if isinstance(to, dict):
        return flag
    turned_off = {} if "{" in str(to) else {"false": ""}
    return flag | {"to": {**turned_off, ".*": to}}


def as_text(value: object) -> str:
    """A value of a file as it stands on a command line."""
    if isinstance(value, list | tuple) and not any(isinstance(each, dict) for each in value):
        return " ".join(map(str, value))
    return str(value)


def normalized(name: str) -> str:
    return name.lstrip("-").replace("_", "-").lower()


def print_translation(*words: str, defaults: bool = False, json: bool = False) -> None:
    """Prints the new command.

    Args:
        defaults: also write what the old program used without a flag.
        json: prints JSON instead: the command as a list of arguments, and the notes.
    """
    result = translate(words[0] if len(words) == 1 else shlex.join(words), defaults=defaults)
    args = sorted(map(redact, result.args.values()), key=lambda arg: "." in arg.partition("=")[0])
    if json:
        print_json({"command": [*result.command.split(), *args], "notes": result.notes})
        return
    for note in result.notes:
        print(note, file=sys.stderr)
    print(f"{result.command} {program.join(args)}".rstrip())
