"""Creates a folder as a whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlxlab.errors import CannotCreateError


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder next to `path`, which it becomes at the end; raises as `refuse_existing`, and OSError."""
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
        folder = Path(temporary) / "new"
        folder.mkdir()
        yield folder
        folder.rename(path)


def refuse_existing(path: Path) -> None:
    """CannotCreateError if there is anything at this path."""
    if os.path.lexists(path):
        raise CannotCreateError(f"out={path}: exists already; expected the name of a new one")
