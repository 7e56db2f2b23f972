"""Translates a command of an old program into one of mlxlab."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlxlab.cli.translate import (
    bert_trainer,
    distillation_trainer,
    earlier_scripts,
    gpt_trainer,
    streaming_trainer,
)
from mlxlab.cli.translate.command_line import OldCommand, flags_by_name, normalized, read_command
from mlxlab.cli.translate.config_files import read_json_config, read_python_config
from mlxlab.cli.translate.flags import PROCESSES, Flag, Program, count_of
from mlxlab.config.issues import one_line
from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.errors import ConfigError
from mlxlab.redact import has_credentials

PROGRAMS: tuple[Program, ...] = (
    *bert_trainer.PROGRAMS,
    *earlier_scripts.PROGRAMS,
    *distillation_trainer.PROGRAMS,
    *gpt_trainer.PROGRAMS,
    *streaming_trainer.PROGRAMS,
)
_LAUNCHED = Flag(PROCESSES, lambda _, values: [f"nproc={count_of(values, PROCESSES, 1)}"])
_TOP_LEVEL = ("seed", "name", "resume")  # keys without a dot that are no groups


@dataclass
class Translation:
    """A new command line, and what there is to say about it.

    Args:
        to: the new command: `train`, `launch`, `export hf`, or one that begins with `python`.
        args: its arguments.
        notes: flags without a counterpart, and differences, one line each.
        copied: as in `OldCommand`.
    """

    to: str
    args: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    copied: dict[str, str] = field(default_factory=dict)

    def as_typed(self, message: str) -> str:
        """The lines of a message about the new command, with the old flag in place of an override that it became."""
        lines = [line.partition(": ") for line in message.splitlines()]
        return "\n".join(
            f"{self.copied.get(override, override)}{colon}{rest}" for override, colon, rest in lines
        )

    @property
    def overrides(self) -> list[str]:
        """The arguments that compose a config."""
        return [
            arg
            for arg in self.args
            if "=" in arg and not (self.to == "launch" and arg.startswith("nproc="))
        ]


def translate(line: str, *, defaults: bool = False) -> Translation:
    """The new command for an old line.

    Args:
        line: as it was typed into a shell.
        defaults: also write what the old program used without a flag.

    Raises:
        ConfigError: the program or a flag is unknown, or there is no counterpart of the program.
        InputNotFoundError, DataError: of the configuration file that the line names.
    """
    command = read_command(line, PROGRAMS)
    program = command.program
    if not program.to:
        raise ConfigError(f"{program.name}: no counterpart: {program.reason}")
    typed = dict.fromkeys(command.values)
    extra = _read_config_file(command)
    args: dict[str, str] = {}
    if defaults:
        for override in program.fixed:
            _add(args, override)
    for flag in (*program.flags, *program.file_flags):
        is_added = flag.always or (defaults and flag.is_default_a_value)
        if flag.default is not None and is_added and flag.name not in command.values:
            _add_all(args, command, command.overrides(flag, flag.default))
    for override in extra:
        _add(args, override)
    known = flags_by_name((*program.flags, *program.file_flags, *program.phantoms))
    for name, value in command.values.items():
        if name == PROCESSES:
            command.overrides(_LAUNCHED, value)
        elif normalized(name) in known:
            _add_flag(args, command, known[normalized(name)], value, is_typed=name in typed)
    if command.faults:
        raise ConfigError("\n".join(list(dict.fromkeys(command.faults))[:10]))
    command.notes += [
        f"--{flag.name}: required by {program.name}, and missing: add {flag.overrides('...', {})[0]}"
        for flag in program.flags
        if flag.required and flag.name not in command.values
    ]
    return _compose(command, args)


def _add(args: dict[str, str], override: str) -> None:
    """Adds an override; a later one of the same key wins."""
    args[override.partition("=")[0]] = override


def _add_all(args: dict[str, str], command: OldCommand, results: Sequence[str]) -> int:
    """Adds overrides, and the notes among them to those of the command; returns the number of overrides."""
    overrides = [result for result in results if not result.startswith("# ")]
    command.notes += [result.removeprefix("# ") for result in results if result.startswith("# ")]
    for override in overrides:
        _add(args, override)
    return len(overrides)


def _add_flag(
    args: dict[str, str], command: OldCommand, flag: Flag, value: str, *, is_typed: bool
) -> None:
    """Adds the overrides of a flag, and says what is different, or why there are none."""
    label = f"--{flag.name}" if is_typed else flag.name
    program = command.program
    if flag.name == program.file_flag:
        return
    if has_credentials(value):
        command.notes.append(
            f"{label}: not repeated: a URL with credentials; set them in the environment"
        )
        return
    results = command.overrides(flag, value)
    if _add_all(args, command, results) and flag.note:
        command.notes.append(f"{label}: {flag.note}")
    if not results and flag.reason:
        command.notes.append(f"{label}: no counterpart: {flag.reason}")


def _compose(command: OldCommand, args: Mapping[str, str]) -> Translation:
    """Groups first, with those that other overrides need; several processes are launched."""
    program = command.program
    chosen: dict[str, str] = {}
    for override in program.base:
        _add(chosen, override)
    for prefix, override in program.implied.items():
        if any(key.startswith(prefix) and not text.endswith("=null") for key, text in args.items()):
            _add(chosen, override)
    for override in args.values():
        _add(chosen, override)
    if chosen.get("tracking") == "tracking=none":
        untracked = [key for key in chosen if key.startswith("tracking.")]
        command.notes += [f"{chosen.pop(key)}: left out: nothing is tracked" for key in untracked]
    ordered = sorted(chosen.values(), key=lambda text: _rank(text.partition("=")[0]))
    notes = list(dict.fromkeys(command.notes))
    if program.to == "train" and (processes := count_of(command.values, PROCESSES, 1)) > 1:
        return Translation("launch", [f"nproc={processes}", *ordered], notes, command.copied)
    return Translation(program.to, ordered, notes, command.copied)


def _rank(key: str) -> int:
    """Experiments, then groups, then keys."""
    if key in ("-m", "experiment", "run", "suite"):
        return 0
    return 1 if "." not in key and key not in _TOP_LEVEL else 2


def _read_config_file(command: OldCommand) -> Sequence[str]:
    """Adds the values of the configuration file; returns the overrides of one that is known by its name only."""
    program = command.program
    name = command.file or (command.values.get(program.file_flag, "") if program.file_flag else "")
    if not name or not program.file_format:
        return ()
    path = Path(name)
    if program.file_format == "json" and path.suffix in (".yaml", ".yml"):
        command.notes.append(f"{name}: the old program read JSON only, and needed --train too")
    if path.stem in program.presets and not path.exists():
        command.notes.append(f"{name}: not found here; translated by its name")
        return program.presets[path.stem].split()
    if program.file_format == "json":
        _add_json(command, path)
    else:
        _add_python(command, path)
    return ()


def _add_json(command: OldCommand, path: Path) -> None:
    """Adds the keys of a JSON file, which win over flags."""
    known = flags_by_name((*command.program.flags, *command.program.file_flags))
    for key, value in read_json_config(path).items():
        flag = known.get(normalized(key))
        if flag is None:
            command.notes.append(_unknown(f"{path}: {key}", key, known))
            continue
        if flag.name in command.values:
            command.notes.append(f"{path}: {key} wins over --{flag.name}, as it did there")
        command.values[flag.name] = value
        command.labels[flag.name] = f"{path}: {key}"


def _add_python(command: OldCommand, path: Path) -> None:
    """Adds the assignments of a Python file, over which flags win."""
    known = flags_by_name((*command.program.flags, *command.program.file_flags))
    values, skipped = read_python_config(path)
    typed = dict(command.values)
    for key, value in values.items():
        flag = known.get(normalized(key))
        if flag is None:
            command.notes.append(_unknown(f"{path}: {key}", key, known))
        else:
            command.values[flag.name] = value
            command.labels.setdefault(flag.name, f"{path}: {key}")
    command.values.update(typed)
    if skipped:
        command.notes.append(
            one_line(f"{path}: not read, only literals are: {', '.join(dict.fromkeys(skipped))}")
        )


def _unknown(label: str, key: str, known: Mapping[str, Flag]) -> str:
    return f"{label}: unknown key, left out{did_you_mean(nearest(normalized(key), known))}"
