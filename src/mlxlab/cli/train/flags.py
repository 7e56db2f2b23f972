"""Hydra's flags and `--dry-run`, read before Hydra is imported: a mistyped one is refused in one line."""

import argparse
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.terminal.nearest import did_you_mean, nearest
from mlxlab.terminal.wording import one_line

_SWITCHES = (
    "--version",
    "--hydra-help",
    "--resolve",
    "--dry-run",
    "-r --run",
    "-m --multirun",
    "-sc --shell-completion",
)
_VALUES = (
    "--experimental-rerun",
    "-p --package",
    "-cn --config-name",
    "-cp --config-path",
    "-cd --config-dir",
)
# Hydra does not know `--dry-run`; config_dir is in our search path instead, so that its files are read within limits.
_NOT_FOR_HYDRA = ("overrides", "dry_run", "config_dir")
_MAX_CHARACTERS = 10_000
_MAX_DEPTH = 30
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        if not unknown:
            raise ConfigError(f"{one_line(message)}; see --help")
        flag = unknown.partition("=")[0]
        near = did_you_mean(nearest(flag, self._option_string_actions))
        raise ConfigError(f"{flag}: unknown flag{near or '; expected key=value, without dashes'}")


def read_flags(args: Sequence[str]) -> argparse.Namespace:
    """The flags and the overrides of a command line, which may stand in any order.

    Raises:
        ConfigError: a flag is unknown, or does not go with the others.
        NotAllowedError: a pickle was to be run.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for names in _SWITCHES:
        parser.add_argument(*names.split(), action="store_true")
    for names in _VALUES:
        parser.add_argument(*names.split())
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=_INFO)
    flags = parser.parse_intermixed_args(args)
    _check(flags)
    return flags


def _check(flags: argparse.Namespace) -> None:
    if flags.experimental_rerun is not None:
        raise NotAllowedError(
            "--experimental-rerun: runs code from a pickle; resume=<run folder> resumes a run"
        )
    for name in ("config_path", "config_dir"):
        folder = getattr(flags, name)
        if folder is None:
            continue
        path = Path(os.path.realpath(os.path.expanduser(folder)))
        if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long.
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} {one_line(folder, 120)}: not a folder of config files")
        setattr(flags, name, path)


def check_limits(text: str) -> None:
    """ConfigError for what no override may hold."""
    depths = accumulate((character in "[{(") - (character in "]})") for character in text)
    fault = None
    if not text.isprintable():
        fault = "a control character in an override"
    elif len(text) > _MAX_CHARACTERS:
        fault = f"{len(text):,} characters; an override may have {_MAX_CHARACTERS:,}"
    elif max(depths, default=0) > _MAX_DEPTH:
        fault = f"nested more than {_MAX_DEPTH} deep"
    if fault is not None:
        raise ConfigError(f"{one_line(text, 80)}: {fault}")


def to_args(flags: argparse.Namespace) -> list[str]:
    """The arguments of these flags that Hydra reads."""
    args = []
    for name, value in vars(flags).items():
        flag = f"--{name.replace('_', '-')}"
        if not value or name in _NOT_FOR_HYDRA:
            continue
        args.append(flag if value is True else f"{flag}={value}")
    return [*args, *flags.overrides]
