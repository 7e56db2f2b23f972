"""Locates conf/ and the folder of the outputs."""

from pathlib import Path

from mlxlab.errors import InputNotFoundError

_PACKAGE = Path(__file__).resolve().parents[1]  # src/mlxlab, or site-packages/mlxlab
_CHECKOUT = _PACKAGE.parents[1]
# An editable installation runs in the checkout too.
_IN_CHECKOUT = (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "conf").is_dir()


def conf_dir() -> Path:
    """The conf/ that belongs to this code, and defines which targets may be built.

    Raises InputNotFoundError if the code was copied without it.
    """
    if _IN_CHECKOUT:
        return _CHECKOUT / "conf"
    # A wheel holds conf/ in the package, the code of a logged model next to it.
    roots = (_PACKAGE, _PACKAGE.parent)
    for root in roots:
        if (root / "conf").is_dir():
            return root / "conf"
    looked = (
        f"{_CHECKOUT / 'conf'} (only with pyproject.toml next to it), {roots[0]} and {roots[1]}"
    )
    raise InputNotFoundError(f"no config files: looked in {looked}")


def project_root() -> Path:
    """The folder of outputs/, multirun/, mlruns/ and .cache/: the checkout inside of it, else the current folder."""
    folder = Path.cwd()
    if _IN_CHECKOUT and folder.is_relative_to(_CHECKOUT):
        return _CHECKOUT
    return folder
