"""Commands, arguments and paths in messages, as they are typed into a shell."""

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path


def in_notebook() -> bool:
    """Whether this process is the kernel of a Jupyter notebook."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and bool(kernel.IPKernelApp.initialized())


def install_command(extra: str = "") -> str:
    """The command that installs mlxlab with an extra: from its checkout where it runs from one, else by its name."""
    checkout = Path(__file__).resolve().parents[3]
    package = "mlxlab"
    option = ""
    if (checkout / "pyproject.toml").is_file():
        package = "." if Path.cwd() == checkout else str(checkout)
        option = "-e "
    name = f"{package}[{extra}]" if extra else package
    return f"pip install {option}'{name}'"


def display_path(path: Path | str) -> str:
    """A path as a user would write it: relative if it lies in the current folder."""
    path = Path(path)
    folder = Path.cwd()
    if path.is_relative_to(folder):
        path = path.relative_to(folder)
    return str(path)


def resume_command(folder: Path) -> str:
    """The command that continues the run in this folder."""
    return f"mlxlab train {join(resume_overrides(display_path(folder)))}"


def resume_overrides(folder: Path | str) -> list[str]:
    """The overrides that continue the run in this folder."""
    return [run_dir_override(folder), "resume=auto"]


def run_dir_override(folder: Path | str) -> str:
    """`hydra.run.dir=` with a path."""
    return path_override("hydra.run.dir", folder)


def path_override(key: str, path: Path | str) -> str:
    """`key=` with a path, which is quoted for Hydra if it would not be read as text."""
    text = str(path)
    return f"{key}={text if _is_plain(text) else text_value(text)}"


def quoted(arg: str) -> str:
    """An argument as it is typed into a shell; in double quotation marks where that is easier to read."""
    return f'"{arg}"' if "'" in arg and not set(arg) & set('"$`\\!') else shlex.quote(arg)


def join(args: Iterable[str]) -> str:
    """Arguments as they are typed into a shell."""
    return " ".join(map(quoted, args))


def command_line() -> str:
    """The command that this process runs, as it is typed into a shell."""
    return join(sys.argv)


def text_value(text: str) -> str:
    """Text as the value of an override; interpolations in it are text too."""
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return (
        "'"
        + re.sub(r"(\\*)('|\Z)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), escaped)
        + "'"
    )


def _is_plain(path: str) -> bool:
    """Whether Hydra reads the path as text without quotation marks."""
    is_number = "/" not in path and not re.match("[A-Za-z_]", path)
    is_word = path.lower() in ("null", "true", "false", "nan", "inf")
    return re.fullmatch(r"[\w./+%@:-]+( +[\w./+%@:-]+)*", path, re.ASCII) is not None and not (
        is_number or is_word
    )
