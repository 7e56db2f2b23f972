"""Writes a vector for each text of a file, by a pretrained encoder or a trained run.

    mlxlab embed model=minilm input=texts.csv column=text output=vectors.npy
    mlxlab embed model=RUN_FOLDER input=texts.csv output=vectors.npy

The output is an array of NumPy, float32: a row for each row of the input, in its order, of length 1, so that the dot
product of two of them is their similarity. It appears whole or not at all.
"""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.constraints import Size
from mlxlab.errors import ConfigError, WriteError
from mlxlab.files.atomic import open_atomic
from mlxlab.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from mlxlab.data.sources.block import Source
    from mlxlab.inference.embed import RowVectors

log = logging.getLogger(__name__)


def _embed(
    model: str,
    input: str,
    output: Path,
    column: str = "text",
    batch_size: Size = 256,
    json: bool = False,
) -> None:
    """Writes the vectors.

    Args:
        model: a run folder of a classifier of texts, `minilm`, or the folder or hub id of a pretrained encoder.
        input: a file, folder or glob of .csv, .tsv, .jsonl, .txt (each also .gz and .zst) or .parquet.
        output: a file that ends in .npy; an existing one is replaced.
        column: the column of the texts; a run reads the columns that it was trained on.
        batch_size: rows that are read at once; changes no result beyond rounding.
        json: prints JSON instead of the path of the output.
    """
    if output.suffix != ".npy":
        raise ConfigError(f"output={output}: expected a name that ends in .npy")
    from mlxlab import backend

    backend.prepare()
    from mlxlab.inference.embed import load_vectors
    from mlxlab.ops.native.activation import activate_for_inference

    activate_for_inference()
    vectors = load_vectors(model, column)
    try:
        count = _write(vectors, input, output, batch_size)
    except OSError as error:
        raise WriteError(f"output={output}: {error.strerror or error}") from None
    log.info(f"{counted(count, 'vector')} of {vectors.size} numbers")
    if json:
        print_json({"output": str(output), "rows": count, "size": vectors.size})
    else:
        print(output)


def _write(vectors: "RowVectors", source: str, output: Path, batch_size: int) -> int:
    """Writes the vectors of all rows; returns their number."""
    import numpy as np
    from tqdm import tqdm

    from mlxlab.data.labelled.rows import text_blocks
    from mlxlab.data.sources.block import ErrorBudget
    from mlxlab.data.sources.messages import require_columns
    from mlxlab.data.sources.open import Reading, open_source

    errors = ErrorBudget("strict")
    opened = open_source(source, Reading(document_unit="line"), errors)
    if opened.columns():
        require_columns(vectors.columns, opened.columns(), opened.name)
    count = 0
    with open_atomic(output) as file, tqdm(unit=" rows", disable=None, dynamic_ncols=True) as bar:

        def write_header() -> None:
            file.seek(0)
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, vectors.size)}
            np.lib.format.write_array_header_1_0(file, header)

        write_header()
        for block in text_blocks(opened, vectors.columns, (), errors):
            for start in range(0, len(block.places), batch_size):
                table = block.columns.slice(start, batch_size).to_pydict()
                made = vectors.embed(table, partial(_location, opened, block.places[start:]))
                file.write(made.astype("<f4").tobytes())
                count += len(made)
                bar.update(len(made))
        write_header()  # NumPy leaves room for any number of rows.
    return count


def _location(source: "Source", places: "np.ndarray", row: int) -> str:
    from mlxlab.data.labelled.rows import location_of

    return location_of(source, int(places[row]))


main = build_main(__doc__, Subcommand(_embed, first="model"))
