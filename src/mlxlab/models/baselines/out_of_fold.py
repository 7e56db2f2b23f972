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
    targets: np.ndarray  # encoded like those of a `Batch`
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
    if not _is_consistent(rows, num_outputs):
        raise DataError(f"{path}: expected {num_outputs} numbers of each row")
    return rows


def _is_consistent(rows: OutOfFold, num_outputs: int) -> bool:
    """Whether a mixture of so many outputs could have said it of targets that it has."""
    ids, targets, outputs = rows
    if ids.ndim != 1 or ids.dtype != np.int64 or outputs.dtype != np.float32:
        return False
    if outputs.shape != (len(ids), num_outputs) or targets.shape[:1] != ids.shape:
        return False
    if not np.isfinite(outputs).all() or not np.isfinite(targets).all():
        return False
    is_class = targets.dtype.kind == "i"
    return not is_class or bool(((targets >= 0) & (targets < num_outputs)).all())
