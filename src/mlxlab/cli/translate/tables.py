"""The flags of an old program as a Markdown table, for the guide."""

from contextlib import suppress
from itertools import product

from mlxlab.cli.translate.flags import Flag, Program
from mlxlab.cli.translate.translation import PROGRAMS
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, UserError

EXAMPLES = {  # other flags, without which some have no effect
    "model-type": "cnn_hybrid",
    "no-swiglu": "true",
    "use-lora": "true",
    "attn-lora-rank": "8",
    "optimizer": "sgd",
    "cloud-provider": "s3",
    "wandb-log": "True",
}

NONE: dict[str, str] = {}


def flag_table(title: str) -> str:
    """The flags of the programs with a title. Raises ConfigError if there are none."""
    programs = [program for program in PROGRAMS if program.title.casefold() == title.casefold()]
    if not programs:
        raise ConfigError(
            f"table={title}: unknown program{suggestion(title, {program.title for program in PROGRAMS})}"
        )
    return "\n\n".join(_table(program, names) for program, names in _alike(programs))


def _alike(programs: list[Program]) -> list[tuple[Program, list[str]]]:
    """Programs with the same flags, once, with all of their names."""
    groups: list[tuple[Program, list[str]]] = []
    for program in programs:
        for other, names in groups:
            if (program.flags, program.file_flags, program.to) == (
                other.flags,
                other.file_flags,
                other.to,
            ):
                names.append(program.name)
                break
        else:
            groups.append((program, [program.name]))
    return groups


def _table(program: Program, names: list[str]) -> str:
    target = program.to if program.to.startswith("python") else f"mlxlab {program.to}"
    new = " ".join([target, *program.base]) if program.to else f"no counterpart: {program.reason}"
    heading = f"**{', '.join(f'`{name}`' for name in names)}**: {f'`{new}`' if program.to else new}"
    rows = [_row(flag, "--") for flag in program.flags]
    rows += [_row(flag, "") for flag in program.file_flags]
    table = ["", "| old | default | here |", "|---|---|---|", *rows] if rows and program.to else []
    return "\n".join([heading, *table])


def _row(flag: Flag, prefix: str) -> str:
    spellings = [
        f"`{prefix if len(name) > 1 else prefix[:1]}{name}`" for name in flag.names.split()
    ]
    default = "" if flag.default is None else flag.default.strip("()").replace("\n", "line break")
    example = example_of(flag)
    none = f"none: {flag.reason}" if flag.reason and not example else ""
    here = "; ".join(filter(None, [f"`{example}`" if example else "", flag.note, none]))
    return "| " + " | ".join([", ".join(spellings), default, here.replace("|", "\\|")]) + " |"


def example_of(flag: Flag) -> str:
    """The overrides of a flag: with `...` for a value that is copied, else of a typical value."""
    if isinstance(flag.to, str):
        return flag.to.format("...", text="...")
    examples = filter(None, [flag.example, (flag.default or "").strip("()"), "true", "1"])
    for value, others in product(examples, (EXAMPLES, NONE)):
        with suppress(UserError):
            if results := [
                text for text in flag.overrides(value, others) if not text.startswith("# ")
            ]:
                return " ".join(results)
    return ""
