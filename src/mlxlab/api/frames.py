"""Rows of a DataFrame as a file, which a run reads and a later one finds again."""

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.config.paths import project_root
from mlxlab.errors import DataError
from mlxlab.files.atomic import write_atomic

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "outputs/frames"


def store_frame(frame: "pd.DataFrame") -> Path:
    """The file with these rows below `outputs/frames`, named by its content: equal rows are stored once.

    Raises:
        DataError: a column holds values that Parquet has no type for.
    """
    content = _as_parquet(frame)
    path = project_root() / FOLDER / f"{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    return path


def write_frame(frame: "pd.DataFrame", path: Path) -> None:
    """Writes the rows into a file; raises DataError as `store_frame`."""
    path.write_bytes(_as_parquet(frame))


def _as_parquet(frame: "pd.DataFrame") -> bytes:
    import pyarrow

    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False)
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"the DataFrame cannot be stored: {str(error)[:300]}") from None
    return buffer.getvalue()
