"""Results of a long benchmark, kept in a folder: one that was stopped goes on where it was."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlxlab.files.atomic import open_atomic

Arrays = dict[str, np.ndarray]


def kept(folder: str | None, name: str, measure: Callable[[], Arrays]) -> Arrays:
    """What `measure` returns, or what it returned before under this name.

    Args:
        folder: that of the results of one state of the program; None measures again.
    """
    if folder is None:
        return measure()
    path = Path(folder) / f"{name}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    arrays = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return arrays
