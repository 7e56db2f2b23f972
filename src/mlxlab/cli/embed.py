"""Writes a vector for each text of a file, by a pretrained encoder or a trained run.

    mlxlab embed model=minilm input=texts.csv column=text output=vectors.npy
    mlxlab embed model=RUN_FOLDER input=texts.csv output=vectors.npy

The output is an array of NumPy, float32: a row for each row of the input, in its order, of length 1, so that the dot
product of two of them is their similarity. It appears whole or not at all.
"""

import logging
from pathlib import Path

from mlxlab.cli.app import prepare_inference, print_result
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Size
from mlxlab.terminal.wording import counted

log = logging.getLogger(__name__)


def embed(
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
    prepare_inference()
    from mlxlab.inference.embed import load_vectors, write_vectors

    vectors = load_vectors(model, column)
    count = write_vectors(vectors, input, output, batch_size)
    log.info(f"{counted(count, 'vector')} of {vectors.size} numbers")
    print_result({"output": str(output), "rows": count, "size": vectors.size}, str(output), json)
