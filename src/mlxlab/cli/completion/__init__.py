"""Completes commands, options, and the groups and keys of `train` in bash, zsh and fish.

    mlxlab completion install [SHELL] [--json]
    mlxlab completion show [SHELL]

install  writes the script for the shell, and a line in the file that an interactive shell reads (.bashrc, .zshrc) to
         load it, unless it is there; fish finds the script by itself
show     prints the script

SHELL is bash, zsh or fish; by default that of the variable SHELL.
"""

import os
import shlex
import sys
from pathlib import Path

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.errors import ConfigError, WriteError
from mlxlab.files.atomic import write_atomic

SHELLS = ("bash", "zsh", "fish")
MARK = "# completion of mlxlab"


def _show(*, args: list[str]) -> None:
    """Prints the script."""
    print(script(_shell(args)), end="")


def _install(json: bool = False, *, args: list[str]) -> None:
    """Installs the script.

    Args:
        json: prints JSON instead of lines.
    """
    shell = _shell(args)
    path, rc = _script_path(shell), _rc(shell)
    quoted = shlex.quote(str(path))
    changed = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, script(shell).encode())
        if rc is not None and _add_line(rc, f"[ ! -f {quoted} ] || . {quoted}  {MARK}"):
            changed = rc
    except OSError as error:
        raise WriteError(f"{error.filename or path}: {error.strerror or error}") from None
    if json:
        print_json(
            {"shell": shell, "script": str(path), "changed": str(changed) if changed else None}
        )
        return
    print(f"script: {path}")
    if rc is not None:
        print(f"loaded by: {rc}{'' if changed else ' (as before)'}")
    print(f"it works in new shells; now: {'source' if shell == 'fish' else '.'} {quoted}")


def script(shell: str) -> str:
    return (Path(__file__).parent / f"mlxlab.{shell}").read_text(encoding="utf-8")


def _shell(args: list[str]) -> str:
    name = args[0] if args else Path(os.environ.get("SHELL", "")).name
    if name in SHELLS:
        return name
    got = name or "the variable SHELL is not set"
    raise ConfigError(
        f"{got}: expected one of {', '.join(SHELLS)}{did_you_mean(nearest(name, SHELLS))}"
    )


def _script_path(shell: str) -> Path:
    if shell == "fish":
        return _folder("XDG_CONFIG_HOME", ".config") / "fish" / "completions" / "mlxlab.fish"
    return _folder("XDG_DATA_HOME", ".local/share") / "mlxlab" / f"completion.{shell}"


def _rc(shell: str) -> Path | None:
    """The file that an interactive shell reads; Terminal on macOS starts login shells."""
    if shell == "fish":
        return None
    if shell == "zsh":
        return Path(os.environ.get("ZDOTDIR") or Path.home()) / ".zshrc"
    return Path.home() / (".bash_profile" if sys.platform == "darwin" else ".bashrc")


def _add_line(file: Path, line: str) -> bool:
    """Appends a line unless it is there. The file may be a link to another."""
    before = file.read_bytes() if file.exists() else b""
    if line.encode() in before.splitlines():
        return False
    with file.open("ab") as stream:
        stream.write(
            (b"" if not before or before.endswith(b"\n") else b"\n") + line.encode() + b"\n"
        )
    return True


def _folder(variable: str, default: str) -> Path:
    setting = os.environ.get(variable, "")
    return Path(setting) if os.path.isabs(setting) else Path.home() / default


main = build_main(
    __doc__,
    {
        "install": Subcommand(_install, num_positional=(0, 1)),
        "show": Subcommand(_show, num_positional=(0, 1)),
    },
)
