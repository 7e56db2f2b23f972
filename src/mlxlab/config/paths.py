"""Locates conf/, the folder of the outputs, and the source of modules without importing them."""

import importlib.util
import os
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]  # src/mlxlab, or site-packages/mlxlab
_CHECKOUT = _PACKAGE.parents[1]


def in_checkout() -> bool:
    """Whether this code belongs to a checkout (also installed as editable) and not to a wheel."""
    return (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "conf").is_dir()


def shipped_conf() -> Path:
    """The conf/ that belongs to this code, and defines which targets may be built."""
    if in_checkout():
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
    return _CHECKOUT if in_checkout() and folder.is_relative_to(_CHECKOUT) else folder


@cache
def source_file(module: str) -> Path | None:
    """The source of `module`, found without importing it or its parents; None without a source file."""
    root, *rest = module.split(".")
    for folder in _package_folders(root):
        path = folder.joinpath(*rest)
        for candidate in (path / "__init__.py", path.with_name(path.name + ".py")):
            if candidate.is_file():
                return candidate
    return None


@cache
def _package_folders(root: str) -> tuple[Path, ...]:
    if root == "mlxlab":
        return (_PACKAGE,)
    try:
        spec = importlib.util.find_spec(root)  # a top-level name: finds, does not import
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    if spec.submodule_search_locations is None:  # a single-file module: `folder/name.py`
        return (Path(spec.origin).with_suffix(""),) if spec.origin else ()
    return tuple(Path(folder) for folder in spec.submodule_search_locations)


def display_path(path: Path | str) -> str:
    """A path as a user would write it: relative if it lies in the current folder."""
    path = Path(path)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
