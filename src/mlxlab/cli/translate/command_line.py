"""Reads the command line of an old program: which program it is, and the values of its flags."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mlxlab.cli.translate.flags import PROCESSES, Flag, Program, as_text
from mlxlab.config.issues import one_line
from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.errors import ConfigError

LAUNCHER = {  # flags of torchrun and srun, and the reason why they have no counterpart
    "nproc-per-node": "",
    "ntasks": "",
    "n": "",
    "standalone": "",
    "nnodes": "hosts=<IP addresses> starts one process on each",
    "nodes": "hosts=<IP addresses> starts one process on each",
    "node-rank": "hosts=<IP addresses> starts the processes from one machine",
    "rdzv-id": "mlx.launch connects the processes itself",
    "rdzv-backend": "mlx.launch connects the processes itself",
    "rdzv-endpoint": "mlx.launch connects the processes itself",
    "master-addr": "mlx.launch connects the processes itself",
    "master-port": "mlx.launch connects the processes itself",
}


@dataclass
class OldCommand:
    """A command line of an old program.

    Args:
        program: which one.
        values: the flags given, by the first of their names, in the order of the last mention.
        file: the configuration file without a flag.
        notes: what was read and has no counterpart.
        labels: how the user wrote each flag: `--batch_size`, or `<file>: batch_size`.
        copied: how the user wrote each override whose value is copied: `--epochs abc`.
        faults: what is wrong with values.
    """

    program: Program
    values: dict[str, str] = field(default_factory=dict)
    file: str = ""
    notes: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def overrides(self, flag: Flag, value: str) -> list[str]:
        """The overrides of a flag; none of an invalid value, which is one of the faults then."""
        try:
            overrides = flag.overrides(value, self.values)
        except ConfigError as error:
            self.faults.append(self._with_label(str(error), flag, value))
            return []
        for override in overrides:
            if override.partition("=")[2] in (value, as_text(value)):
                self.copied[override] = f"{self._label(flag)} {value}"
        return overrides

    def _label(self, flag: Flag) -> str:
        return self.labels.get(flag.name, f"--{flag.name}")

    def _with_label(self, message: str, flag: Flag, value: str) -> str:
        """A message with the label of the flag that it begins with, or else of the flag that was converted."""
        label = self._label(flag)
        name = re.split(r"[^\w.-]", message, maxsplit=1)[0]
        rest = message[len(name) :]
        if normalized(name) in self.labels:
            return self.labels[normalized(name)] + rest
        return label + rest if rest.startswith(f" {value}:") else f"{label}: {message}"


def read_command(line: str, programs: Sequence[Program]) -> OldCommand:
    """The program and flags of a line, as a shell reads it.

    Raises:
        ConfigError: unknown flags, each with the nearest one; no program of `programs`, or not all of a line.
    """
    try:
        args = shlex.split(line.replace("\\\n", " "))
    except ValueError:
        raise ConfigError("the command line ends inside a quotation") from None
    scripts = {program.script for program in programs}
    for number, arg in enumerate(args):
        is_module = number > 0 and args[number - 1] == "-m"
        if arg in ("scripts/train.py", "mlxlab"):
            raise ConfigError(f"{arg}: is a command of mlxlab already")
        if (arg.endswith(".py") or is_module) and (script := script_name(arg)) in scripts:
            command = _of_program(script, args[number + 1 :], programs)
            _read_launcher(args[:number], command)
            return command
    typed = _program_arg(args)
    near = nearest(script_name(typed), scripts)
    hint = (
        f"; did you mean {near}.py?"
        if near
        else f"; there is {', '.join(f'{name}.py' for name in sorted(scripts))}"
    )
    raise ConfigError(f"{one_line(typed, 60)}: no program that can be translated{hint}")


def _program_arg(args: list[str]) -> str:
    """What seems to name the program. Never a variable or a flag with its value: they may be secrets."""
    args = [arg for arg in args if "=" not in arg]
    modules = [arg for before, arg in pairwise(args) if before == "-m"]
    return next(
        (arg for arg in args if arg.endswith(".py")), (modules or args or ["an empty line"])[0]
    )


def script_name(arg: str) -> str:
    """`src/main.py` -> main, `src.training.train_advanced` -> train_advanced."""
    return arg.rpartition("/")[2].removesuffix(".py").rpartition(".")[2]


def normalized(name: str) -> str:
    return name.lstrip("-").replace("_", "-").lower()


def flags_by_name(flags: Iterable[Flag]) -> dict[str, Flag]:
    return {normalized(name): flag for flag in flags for name in flag.names.split()}


def _of_program(script: str, args: list[str], programs: Sequence[Program]) -> OldCommand:
    subcommands = {program.subcommand: program for program in programs if program.script == script}
    if "" in subcommands:
        return _read_flags(OldCommand(subcommands[""]), args)
    if not args or args[0] not in subcommands:
        near = did_you_mean(nearest(args[0], subcommands)) if args else ""
        raise ConfigError(f"{script}.py: expected a subcommand: {', '.join(subcommands)}{near}")
    return _read_flags(OldCommand(subcommands[args[0]]), args[1:])


def _read_flags(command: OldCommand, args: list[str]) -> OldCommand:
    """Adds the flags among the arguments. Values of unknown flags are not repeated: they may be secrets."""
    program = command.program
    known = flags_by_name(
        (
            *program.flags,
            *(program.file_flags if program.file_format == "python" else ()),
            *program.phantoms,
        )
    )
    unknown, queue = [], list(args)
    while queue:
        arg = queue.pop(0)
        if not _is_flag(arg):
            if (
                program.file_format != "python"
                or program.file_flag
                or command.file
                or not arg.endswith(".py")
            ):
                unknown.append(
                    f"{program.name}: an argument without a flag, where none is expected"
                )
            command.file = arg
            continue
        name, equals, text = arg.partition("=")
        flag = known.get(normalized(name))
        values = [text] if equals else _following(queue, flag, known)
        if flag is None and not equals and not values and queue and not queue[0].startswith("--"):
            del queue[0]  # may be a secret that begins with a dash
        if flag is None:
            unknown.append(f"{name}: unknown flag of {program.name}{_near(name, known)}")
        elif not values and flag.kind != "switch":
            unknown.append(f"{name}: expected a value")
        else:
            command.values.pop(flag.name, None)
            command.values[flag.name] = " ".join(values) or "true"
            command.labels[flag.name] = name
    if unknown:
        raise ConfigError("\n".join(dict.fromkeys(unknown[:10])))
    return command


def _near(name: str, known: dict[str, Flag]) -> str:
    near = nearest(normalized(name), known)
    return f"; did you mean --{near}?" if near else ""


def _is_flag(arg: str) -> bool:
    return re.match(r"--?[A-Za-z]", arg) is not None


def _following(queue: list[str], flag: Flag | None, known: Mapping[str, Flag]) -> list[str]:
    """Takes the values behind a flag: of a switch only true or false, of an unknown one whatever may be one.

    The first value of a known flag may begin with one dash, or with two and have blanks, unless it is a flag too.
    """
    count = len(queue) if flag is not None and flag.kind == "list" else 1
    values: list[str] = []
    while queue and len(values) < count:
        arg = queue[0]
        may_be_text = flag is not None and not values and (" " in arg or not arg.startswith("--"))
        if _is_flag(arg) and (not may_be_text or normalized(arg.partition("=")[0]) in known):
            break
        if flag is not None and flag.kind == "switch" and arg.lower() not in ("true", "false"):
            break
        values.append(queue.pop(0))
    return values


def _read_launcher(args: list[str], command: OldCommand) -> None:
    """Takes the number of processes from torchrun or srun, and a name from RUN_ALIAS."""
    starts_processes = any(arg in ("torchrun", "srun") for arg in args)
    for number, arg in enumerate(args):
        if match := re.fullmatch(r"RUN_ALIAS=(.+)", arg):
            command.values.setdefault("run-name", match[1])
        if not starts_processes or not _is_flag(arg):
            continue
        name, equals, text = arg.partition("=")
        key, value = normalized(name), text if equals else "".join(args[number + 1 : number + 2])
        if key in ("nproc-per-node", "ntasks", "n"):
            command.values[PROCESSES] = value
            command.labels[PROCESSES] = name
        elif reason := LAUNCHER.get(key):
            command.notes.append(f"{name}: no counterpart: {reason}")
