"""Locates conf/, the conf/ of installed packages that add options, and the folder of the outputs.

An entry point in the group `mlxlab.plugins` names a package with a conf/:

    [project.entry-points."mlxlab.plugins"]
    reviews = "reviews"

Its options can be chosen like those of mlxlab, and the classes and functions of the package that they name may be
built. Whoever installs a package registers it; a run folder or config can register nothing.
"""

import logging
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from mlxlab.config.schema.source import source_file
from mlxlab.errors import InputNotFoundError

GROUP = "mlxlab.plugins"

# Folders of config files that the command line names, by provider.
typed_folders: dict[str, Path] = {}

_PACKAGE = Path(__file__).resolve().parents[1]  # src/mlxlab, or site-packages/mlxlab
_CHECKOUT = _PACKAGE.parents[1]
# An editable installation runs in the checkout too.
_IN_CHECKOUT = (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "conf").is_dir()

logger = logging.getLogger(__name__)


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


def search_folders() -> dict[str, Path]:
    """The folders of config files by provider, in the order of their precedence."""
    folders = {"mlxlab": conf_dir(), **plugins(), **typed_folders}
    own = Path.cwd() / "conf"
    if own.is_dir() and own not in folders.values():
        folders["working directory"] = own
    return folders


@cache
def plugins() -> dict[str, Path]:
    """Package -> its folder conf/, for every registered package; none of them is imported."""
    if not _any_declared():
        return {}
    from importlib.metadata import entry_points  # 20 ms, for nearly nobody

    folders = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.value):
        source = source_file(entry.value)
        if source is not None and (source.parent / "conf").is_dir():
            folders[entry.value] = source.parent / "conf"
        else:
            logger.warning(
                f"the plugin {entry.name} is ignored: expected a package {entry.value} with a folder conf/"
            )
    return folders


def _any_declared() -> bool:
    """Whether the metadata of any installed distribution mentions the group."""
    for folder in sys.path:
        for file in Path(folder).glob("*-info/entry_points.txt"):
            with suppress(OSError):
                if GROUP.encode() in file.read_bytes():
                    return True
    return False
