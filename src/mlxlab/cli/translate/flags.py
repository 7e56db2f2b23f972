"""How an old program is described: its names, its flags, and the overrides that each becomes."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.errors import ConfigError
from mlxlab.program import text_value

Values = Mapping[str, str]  # the flags of a command line, by the first of their names
Convert = Callable[
    [str, Values], Iterable[str]
]  # (a value, all values) -> overrides, and notes behind "# "
BFLOAT16 = (
    "float32 is used on a Linux CPU without AVX512-BF16 or without native kernels, unless"
    " trainer.step.allow_slow_dtype=true"
)
PROCESSES = "processes"  # in `Values`: how many processes torchrun or srun started

_SAFE = re.compile(r"[A-Za-z_./][\w./:*?@+-]*", re.ASCII)  # text that Hydra reads as itself
_WORDS = frozenset({"null", "true", "false", "inf", "nan"})  # that it reads as something else


@dataclass(frozen=True)
class Flag:
    """A flag of an old program, or a key of its configuration files.

    Args:
        names: its spellings without dashes, the first of which is its name; `_` and `-` are the same.
        to: an override, with `{}` for the value as it is or `{text}` for one that is text, or several separated by
            blanks; or a function that makes overrides of it. "" if it has no counterpart.
        default: what the old program used without the flag; None for nothing, in parentheses if it is no value.
        note: what is different here.
        reason: why there is no counterpart, or none of some values.
        kind: a value, a switch without one, or several values.
        always: the new command needs it, so that the old default is written without the flag too.
        example: a value for the guide, where the default has no counterpart.
        required: the old program did not start without it.
    """

    names: str
    to: str | Convert = ""
    default: str | None = None
    note: str = ""
    reason: str = ""
    kind: Literal["value", "switch", "list"] = "value"
    always: bool = False
    example: str = ""
    required: bool = False

    @property
    def name(self) -> str:
        return self.names.split()[0]

    @property
    def is_default_a_value(self) -> bool:
        return self.default is not None and not self.default.startswith("(")

    def overrides(self, value: str, values: Values) -> list[str]:
        if not isinstance(self.to, str):
            return list(self.to(value, values))
        return [part.format(value, text=as_text(value)) for part in self.to.split()]


@dataclass(frozen=True)
class Program:
    """An old program, or one subcommand of it.

    Args:
        title: what the program was, for the guide.
        script: the name of its file or module, without a suffix.
        subcommand: its first argument, or "".
        to: the new command; "" if there is none.
        base: overrides that the program stands for.
        fixed: overrides for what no flag of it set; written with the old defaults.
        flags: all of its flags.
        file_flags: keys that only its configuration files had.
        phantoms: flags that its documents name and that it never had.
        file_format: of its configuration files.
        file_flag: the flag that names a configuration file; "" for an argument without a name.
        presets: new overrides for configuration files of these names that are not at hand.
        implied: overrides that others need, by how these begin.
        reason: why there is no new command.
    """

    title: str
    script: str
    subcommand: str = ""
    to: str = "train"
    base: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    file_flags: tuple[Flag, ...] = ()
    phantoms: tuple[Flag, ...] = ()
    file_format: Literal["", "json", "python"] = ""
    file_flag: str = ""
    presets: Mapping[str, str] = field(default_factory=dict)
    implied: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def name(self) -> str:
        return f"{self.script}.py {self.subcommand}".strip()


def as_text(value: str) -> str:
    """A value that Hydra reads as this text, whatever it looks like."""
    return value if _SAFE.fullmatch(value) and value.lower() not in _WORDS else text_value(value)


def number(text: str, name: str) -> float:
    """The value of a flag; ConfigError if it is no number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{name} {text}: expected a number")
    return value


def integer(text: str, name: str) -> int:
    """The value of a flag; ConfigError if it is no whole number."""
    value = number(text, name)
    if value != int(value):
        raise ConfigError(f"{name} {text}: expected a whole number")
    return int(value)


def count_of(values: Values, name: str, default: int) -> int:
    """A whole number >= 1 among the flags, or what the old program used without it."""
    count = integer(values[name], name) if name in values else default
    if count < 1:
        raise ConfigError(f"{name} {count}: expected a whole number >= 1")
    return count


def counted(key: str) -> Convert:
    """An option that is a whole number >= 1."""
    return lambda value, _: [f"{key}={count_of({key: value}, key, 1)}"]


def is_true(value: str) -> bool:
    return value.lower() in ("true", "1", "yes", "on")


def null_if_zero(key: str) -> Convert:
    """An option that 0 switched off."""
    return lambda value, _: [f"{key}={'null' if number(value, key) == 0 else value}"]


def items(key: str, *, text: bool = False) -> Convert:
    """Several values, separated by commas or blanks."""

    def convert(value: str, _: Values) -> list[str]:
        words = value.strip("[]() ").replace(",", " ").replace('"', " ").replace("'", " ").split()
        return [f"{key}=[{', '.join(as_text(word) if text else word for word in words)}]"]

    return convert


def when_true(*overrides: str) -> Convert:
    """Overrides of a switch that is on."""
    return lambda value, _: overrides if is_true(value) else ()


def when_false(*overrides: str) -> Convert:
    """Overrides of a switch that is off."""
    return lambda value, _: () if is_true(value) else overrides


def on_or_off(key: str, on: str, off: str) -> Convert:
    """An option with one value for a switch that is on and another for one that is off."""
    return lambda value, _: [f"{key}={on if is_true(value) else off}"]


def choice(name: str, options: Mapping[str, str]) -> Convert:
    """Overrides of the flag `name` by value, separated by blanks; ConfigError names the valid ones otherwise."""

    def convert(value: str, _: Values) -> list[str]:
        option = value.replace("-", "_")
        if option not in options:
            raise ConfigError(
                f"--{name} {value}: expected {', '.join(options)}{did_you_mean(nearest(option, options))}"
            )
        return options[option].split()

    return convert


def steps_of_micro_batches(key: str, accumulation: str, default: int = 1) -> Convert:
    """A number of micro-batches as one of optimizer steps."""

    def convert(value: str, values: Values) -> list[str]:
        steps = integer(value, key) / count_of(values, accumulation, default)
        return [f"{key}={max(1, round(steps))}"]

    return convert


@dataclass(frozen=True)
class BatchFlags:
    """The flags that make a batch: rows of a micro-batch, and how many of these make an optimizer step.

    Args:
        rows: the flag of the rows of a micro-batch, of one process.
        default_rows: without that flag.
        micro_batches: the flag of the number of micro-batches; "" if the program had none.
        default_micro_batches: without that flag.
        per_process: whether this number is that of one process, not of all together.
    """

    rows: str
    default_rows: int
    micro_batches: str = ""
    default_micro_batches: int = 1
    per_process: bool = True

    def __call__(self, value: str, values: Values) -> list[str]:
        """`data.batch_size`, which here counts the rows of an optimizer step, and into how many parts it is divided."""
        integer(value, "")  # its own fault before that of another flag
        rows, processes = (
            count_of(values, self.rows, self.default_rows),
            count_of(values, PROCESSES, 1),
        )
        total = count_of(values, self.micro_batches, self.default_micro_batches)
        own = total if self.per_process else max(1, round(total / processes))
        divided = self.micro_batches in values or self.default_micro_batches > 1
        return [
            f"data.batch_size={rows * own * processes}",
            *([f"trainer.step.accumulate={own}"] if divided else []),
        ]
