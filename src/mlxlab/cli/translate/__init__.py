"""Translates command lines of older training programs into those of mlxlab.

    mlxlab translate 'python mlx_bert_cli.py train --train t.csv --epochs 5' [defaults=true]
    mlxlab translate table='The streaming trainer'

The new command goes to standard output; flags without a counterpart, with the reason, and differences in meaning go to
standard error. Configuration files that the line names are read: JSON, and Python without executing it. The new
command is composed before it is printed: one that could not start is an error. docs/migration.md is the guide.
"""

import shlex
import sys

from mlxlab import program
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError


def _translate(defaults: bool = False, table: str | None = None, *, args: list[str]) -> None:
    """Prints the new command.

    Args:
        defaults: also write what the old program used without a flag.
        table: instead of a command print the flags of an old program, as Markdown.
    """
    from mlxlab.cli.translate.tables import flag_table
    from mlxlab.cli.translate.translation import translate

    if table is not None:
        print(flag_table(table))
        return
    if not args:
        raise ConfigError("expected the old command line, in quotation marks")
    translation = translate(args[0] if len(args) == 1 else shlex.join(args), defaults=defaults)
    if translation.to in ("train", "launch"):
        check(translation.overrides, multirun="-m" in translation.args)
    for note in translation.notes:
        print(note, file=sys.stderr)
    command = translation.to if translation.to.startswith("python ") else program.command(translation.to)
    print(" ".join([command, *map(quoted, translation.args)]))


def quoted(arg: str) -> str:
    """An argument as it is typed into a shell; in double quotation marks where that is easier to read."""
    return f'"{arg}"' if "'" in arg and not set(arg) & set('"$`\\!') else shlex.quote(arg)


def check(overrides: list[str], *, multirun: bool = False) -> None:
    """Composes and checks the config of a new command; raises the errors of `Composer.checked`."""
    from mlxlab.config.hydra.compose import Composer

    Composer(conf_dir(), overrides, multirun=multirun).checked()


main = build_main(__doc__, Subcommand(_translate, forward_prefix=""))
