"""Writes a package with a data set, model, loss or callback of your own.

    mlxlab new data|model|loss|callback NAME [folder=.]

The package has a class that works and can be changed, its YAML file, a test that trains two steps with it, and a
README. Once it is installed, its options can be chosen like those of mlxlab.
"""

import importlib.util
import keyword
import os
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.config.help_index import folders, groups
from mlxlab.config.paths import conf_dir
from mlxlab.config.suggest import did_you_mean, suggestion
from mlxlab.errors import CannotCreateError, ConfigError, InputNotFoundError
from mlxlab.program import display_path

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Kind:
    """A component that a package can add. `arguments` choose it on the command line, after a file for them exists."""

    title: str
    group: str
    module: str
    arguments: str


KINDS = {
    "data": Kind("data set", "data", "dataset", "data=$name data.source=$name.tsv"),
    "model": Kind("model", "model", "backbone", "model=$name model/size=none"),
    "loss": Kind("loss", "trainer/loss", "loss", "trainer/loss=$name"),
    "callback": Kind("callback", "callbacks", "callback", "callbacks=$name"),
}
_FILES = {  # path in the package -> template; `$kind/` holds those that differ
    "pyproject.toml": "pyproject.toml.tmpl",
    "README.md": "readme.md.tmpl",
    "src/$name/__init__.py": "init.py.tmpl",
    "src/$name/$module.py": "$kind/class.py.tmpl",
    "src/$name/conf/$group/$name.yaml": "$kind/conf.yaml.tmpl",
    "tests/test_$name.py": "$kind/trial.py.tmpl",
}


def new(folder: Path = Path("."), json: bool = False, *, args: list[str]) -> None:
    """Writes the package into a folder of its name.

    Args:
        folder: an existing folder, in which the one of the package is made.
        json: prints JSON instead.
    """
    kind, name = args
    if kind not in KINDS:
        raise ConfigError(f"{kind}: unknown kind{suggestion(kind, KINDS)}")
    _check_name(name, KINDS[kind].group, folder)
    path = write_package(kind, name, folder)
    shown = shlex.quote(
        display_path(path) if path.is_absolute() else f"./{path}"
    )  # a bare name is on the index to pip
    train = f"mlxlab train {Template(KINDS[kind].arguments).substitute(name=name)}"
    commands = [f"pip install -e {shown}", f"python -m pytest {shown}", train]
    if json:
        print_json({"folder": str(path), "next": commands})
    else:
        print(
            "\n    ".join(
                [f"{shown}: a package with the {KINDS[kind].title} {name}. Next:", *commands]
            )
        )


def write_package(kind: str, name: str, folder: Path) -> Path:
    """Writes the package, whole or not at all; returns its folder.

    Raises:
        InputNotFoundError: no such `folder`.
        CannotCreateError: it has an entry of that name, or cannot be written.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"folder={folder}: no such folder")
    path, temporary = folder / name, folder / f".{name}-{secrets.token_hex(4)}"
    _reject_existing(path)
    try:
        for file, text in render(kind, name).items():
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            (temporary / file).write_text(text, encoding="utf-8")
        temporary.rename(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise CannotCreateError(f"{display_path(path)}: {error.strerror or error}") from None
        raise
    return path


def render(kind: str, name: str) -> Mapping[str, str]:
    """Path within the package -> content."""
    chosen = KINDS[kind]
    values = {
        "name": name,
        "kind": kind,
        "title": chosen.title,
        "group": chosen.group,
        "module": chosen.module,
        "arguments": Template(chosen.arguments).substitute(name=name),
        "Class": "".join(word.capitalize() for word in name.split("_")),
    }

    def fill(text: str) -> str:
        return Template(text).substitute(values)

    return {
        fill(file): fill((_TEMPLATES / fill(source)).read_text("utf-8"))
        for file, source in _FILES.items()
    }


def _check_name(name: str, group: str, folder: Path) -> None:
    """ConfigError unless the package, its class and its option can have this name; CannotCreateError if it exists."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > 50:
        valid = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip(
            "_0123456789"
        )
        expected = "expected the name of a Python package: at most 50 lower-case letters, digits and underscores"
        raise ConfigError(
            f"{name}: {expected}{did_you_mean(valid[:50] if valid != name else None)}"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ConfigError(f"{name}: a keyword of Python; did you mean my_{name}?")
    _reject_existing(folder / name)  # before the options and modules, which it may have added
    if name in groups(folders(conf_dir(), [])).get(group, {}):
        raise ConfigError(f"{name}: {group}={name} exists already; did you mean my_{name}?")
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        raise ConfigError(
            f"{name}: a Python module of this name is installed; did you mean my_{name}?"
        )


def _reject_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise CannotCreateError(f"{display_path(path)}: exists already")


main = build_main(__doc__, Subcommand(new, num_positional=(2, 2)))
