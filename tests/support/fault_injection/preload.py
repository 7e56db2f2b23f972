"""Imports everything that runs need, so that a forked process starts in tenths of a second."""

import importlib
import pkgutil
from collections.abc import Sequence


def preload(packages: Sequence[str], modules: Sequence[str]) -> None:
    """Imports all modules of the named packages of mlxlab, and further modules by their full names."""
    for name in packages:
        package = importlib.import_module(f"mlxlab.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"mlxlab.{name}."):
            importlib.import_module(module.name)
    for name in modules:
        importlib.import_module(name)
