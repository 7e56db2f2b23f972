"""Locates conf/ and the folder of the outputs."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]  # src/mlxlab, or site-packages/mlxlab
_CHECKOUT = _PACKAGE.parents[1]
_IN_CHECKOUT = (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "conf").is_dir()  # also if it is editable


def shipped_conf() -> Path:
    """The conf/ that belongs to this code, and defines which targets may be built."""
    if _IN_CHECKOUT:
        return _CHECKOUT / "conf"
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parent / "conf"  # the code of a logged model: the two side by side


def conf_dir() -> Path:
    """The conf/ to compose from: `MLXLAB_CONF` if it is set, else the shipped one."""
    override = os.environ.get("MLXLAB_CONF")
    return Path(override).resolve() if override else shipped_conf()


def project_root() -> Path:
    """The folder of outputs/, multirun/, mlruns/ and .cache/: the checkout inside of it, else the current folder."""
    folder = Path.cwd()
    return _CHECKOUT if _IN_CHECKOUT and folder.is_relative_to(_CHECKOUT) else folder


def display_path(path: Path | str) -> str:
    """A path as a user would write it: relative if it lies in the current folder."""
    path, folder = Path(path), Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
