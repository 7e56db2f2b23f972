"""The flags of an old program as a Markdown table, for the guide."""

from mlxlab.cli.translate.flags import Flag, Program
from mlxlab.cli.translate.translation import PROGRAMS
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, UserError
from mlxlab.markdown import markdown_table

EXAMPLE = "..."


def flag_table(title: str) -> str:
    """The flags of the programs with a title. Raises ConfigError if there are none."""
    programs = [program for program in PROGRAMS if program.title.casefold() == title.casefold()]
    if not programs:
        raise ConfigError(f"table={title}: unknown program{suggestion(title, {program.title for program in PROGRAMS})}")
    return "\n\n".join(_table(program, names) for program, names in _alike(programs))


def _alike(programs: list[Program]) -> list[tuple[Program, list[str]]]:
    """Programs with the same flags, once, with all of their names."""
    groups: list[tuple[Program, list[str]]] = []
    for program in programs:
        for other, names in groups:
            if (program.flags, program.file_flags, program.to) == (other.flags, other.file_flags, other.to):
                names.append(program.name)
                break
        else:
            groups.append((program, [program.name]))
    return groups


def _table(program: Program, names: list[str]) -> str:
    target = program.to if program.to.startswith("python") else f"scripts/{program.to.replace(' ', '.py ', 1)}"
    target = target if "." in target or not program.to else f"{target}.py"
    new = " ".join([target, *program.base]) if program.to else f"no counterpart: {program.reason}"
    heading = f"**{', '.join(f'`{name}`' for name in names)}**: {f'`{new}`' if program.to else new}"
    rows = [_row(flag, "--") for flag in program.flags]
    rows += [_row(flag, "") for flag in program.file_flags]
    return "\n\n".join(
        [heading, markdown_table(["old", "default", "here"], rows)] if rows and program.to else [heading]
    )


def _row(flag: Flag, prefix: str) -> list[str]:
    names = flag.names.split()
    here = flag.to if isinstance(flag.to, str) else _example(flag)
    shown = f"`{here.format('x', text='x')}`" if here else ""
    words = "; ".join(filter(None, [shown, flag.note, f"none: {flag.reason}" if flag.reason and not here else ""]))
    default = "" if flag.default is None else flag.default.strip("()").replace("\n", "\\n")
    spellings = ", ".join(f"`{prefix if len(name) > 1 else prefix[:1]}{name}`" for name in names)
    return [spellings, default, words.replace("|", "\\|")]


def _example(flag: Flag) -> str:
    """What a function makes of a typical value."""
    for value in (flag.default.strip("()") if flag.default else "true", "true", "1"):
        try:
            if results := [text for text in flag.overrides(value, {"model-type": "cnn_hybrid"}) if text[0] != "#"]:
                return " ".join(results).replace("{", "{{").replace("}", "}}")
        except UserError:
            continue
    return ""
