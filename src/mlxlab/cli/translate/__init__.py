"""Translates command lines of older training programs into those of mlxlab.

    mlxlab translate 'python mlx_bert_cli.py train --train t.csv --epochs 5' [defaults=true]
    mlxlab translate table='The streaming trainer'

The new command goes to standard output; flags without a counterpart, with the reason, and differences in meaning go to
standard error. Configuration files that the line names are read: JSON, and Python without executing it. The new
command is checked before it is printed: one with a wrong value is an error, and a missing option is named.
docs/how_to/migration.md is the guide.
"""

import shlex
import sys

from mlxlab import program
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError


def _translate(
    defaults: bool = False, table: str | None = None, json: bool = False, *, args: list[str]
) -> None:
    """Prints the new command.

    Args:
        defaults: also write what the old program used without a flag.
        table: instead of a command print the flags of an old program, as Markdown.
        json: prints JSON instead: the command as a list of arguments, and the notes.
    """
    from mlxlab.cli.translate.tables import flag_table
    from mlxlab.cli.translate.translation import translate

    if table is not None:
        print(flag_table(table))
        return
    if not args:
        raise ConfigError("expected the old command line, in quotation marks")
    translation = translate(args[0] if len(args) == 1 else shlex.join(args), defaults=defaults)
    try:
        if translation.to in ("train", "launch"):
            check(translation.overrides, multirun="-m" in translation.args)
        else:
            check_options(translation.to, translation.args)
    except ConfigError as error:
        raise ConfigError(translation.as_typed(str(error))) from None
    is_python = translation.to.startswith("python ")
    command = translation.to if is_python else f"mlxlab {translation.to}"
    if json:
        print_json(
            {
                "command": [*shlex.split(command), *translation.args],
                "notes": list(translation.notes),
            }
        )
        return
    for note in translation.notes:
        print(note, file=sys.stderr)
    print(" ".join([command, program.join(translation.args)]).rstrip())


def check(overrides: list[str], *, multirun: bool = False) -> None:
    """Composes and checks the config of a new command; raises the errors of `Composer.checked`."""
    from mlxlab.config.hydra.compose import Composer

    Composer(conf_dir(), overrides, multirun=multirun).checked()


def check_options(command: str, args: list[str]) -> None:
    """Checks the options of a command that composes no config, except for those that are missing."""
    from mlxlab.cli.args import parse_args
    from mlxlab.cli.generate import REQUEST, SAMPLING
    from mlxlab.config.schema.signature import signature

    targets = {
        "predict": ("mlxlab.cli.predict._predict",),
        "generate": ("mlxlab.cli.generate._generate", REQUEST, SAMPLING),
        "export hf": ("mlxlab.cli.export.published.export_hf",),
    }.get(command, ())
    given = {arg.partition("=")[0] for arg in args}
    keys = [
        item for target in targets if (known := signature(target)) for item in known.keys.items()
    ]
    missing = [f"{name}=..." for name, key in keys if key.required and name not in given]
    if targets:
        parse_args([*args, *missing], targets)


main = build_main(__doc__, Subcommand(_translate, forward_prefix=""))
