"""What models that did not learn from a training row said of it, in a file of the run."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlxlab.errors import DataError
from mlxlab.files.atomic import write_atomic
from mlxlab.files.untrusted import open_regular

FILE = "out_of_fold.safetensors"
HEADER_BYTES = 2**12


class OutOfFold(NamedTuple):
    """Probabilities or standardised numbers for all training rows."""

    ids: np.ndarray  # (N,)
    targets: np.ndarray  # as in a `Batch`
    outputs: np.ndarray  # (N, O) float32


def save_out_of_fold(folder: Path, rows: OutOfFold) -> None:
    from safetensors.numpy import save

    write_atomic(folder / FILE, save(rows._asdict()))


def load_out_of_fold(folder: Path, num_outputs: int, max_rows: int) -> OutOfFold | None:
    """None without the file; DataError if `save_out_of_fold` did not write it for so many outputs and rows."""
    path = folder / FILE
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    bytes_of_row = 8 + 4 * 2 * num_outputs
    with open_regular(path) as file:
        content = file.read(HEADER_BYTES + max_rows * bytes_of_row)
    try:
        arrays = load(content)
        rows = OutOfFold(*(arrays[name] for name in OutOfFold._fields))
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{path}: {error}") from None
    num_rows = rows.ids.size
    has_shape = rows.outputs.shape == (num_rows, num_outputs) and len(rows.targets) == num_rows
    if not has_shape or not np.isfinite(rows.outputs).all():
        raise DataError(f"{path}: expected {num_outputs} numbers of each row")
    return rows
