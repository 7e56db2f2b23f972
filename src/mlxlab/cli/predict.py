"""Predicts the labels of the rows of a file with a trained model.

    mlxlab predict run=RUN_FOLDER input=FILE output=predictions.csv [key=value ...]
    mlxlab predict run=RUN_FOLDER input=FILE output=predictions.csv keep=id,title

The input is read piece by piece, however large it is: a file, folder or glob of .csv, .tsv, .jsonl (each also .gz and
.zst) or .parquet with the columns of the training data; a label column is not needed. It is read as the training data
were, except for data.reading.KEY=VALUE (delimiter, encoding, missing). Columns that the model does not read are named
at the end.

The output has a row for each row of the input, in its order: the columns of keep=, or the number of the row (from 1,
rows that are left out count too), then `label` and `probability_<label>`; `labels`, those that hold, where several
may; `value` for a number; `predicted_label` where keep= copies a column `label`. It appears whole or not at all: a row that cannot be read ends the command, unless
on_error=skip leaves it out, as it does with up to max_left_out=0.01 of the rows. These keys may also be typed as in
training: data.on_error=, data.max_left_out=, and data.source= for input=. In CSV, a text that a spreadsheet would run
as a formula (=, +, -, @) begins with an apostrophe.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.evaluate import forget_source, override_data, read_overrides, refuse_without_effect
from mlxlab.cli.print_json import print_json
from mlxlab.config.issues import one_line
from mlxlab.constraints import Ge, Lt, Size
from mlxlab.errors import ConfigError, DataError, WriteError
from mlxlab.files.atomic import open_atomic, remove_leftovers
from mlxlab.wording import counted

if TYPE_CHECKING:
    from mlxlab.data.dataset import Table
    from mlxlab.data.labelled.rows import TextBlock
    from mlxlab.data.sources.block import ErrorBudget, Source
    from mlxlab.inference.predict import UnseenCategories
    from mlxlab.inference.prediction_file import PredictionFile
    from mlxlab.inference.restore import RestoredModel

Chunks: TypeAlias = 'Iterator[tuple["Table", list[str], list[int]]]'
HINT = "; nothing was written (on_error=skip leaves out up to max_left_out of the rows)"

log = logging.getLogger(__name__)


def _predict(
    run: Path,
    input: str,
    output: Path,
    checkpoint: str = "best",
    batch_size: Size = 64,
    keep: list[str] = [],  # noqa: B006
    format: Literal["full", "kaggle"] = "full",
    on_error: Literal["strict", "skip"] = "strict",
    max_left_out: Annotated[float, Ge(0), Lt(1)] = 0.01,
    json: bool = False,
    *,
    args: list[str],
) -> None:
    """Writes the predictions.

    Args:
        run: a run folder, that of an ensemble, or a registered model: `models:/<name>@<alias>`.
        input: the file of the rows, or `test`: the 418 test rows of the Titanic.
        output: a file that ends in .csv or .jsonl; an existing one is replaced.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        batch_size: rows that the model reads at once; changes no result beyond rounding.
        keep: columns of the input to copy to the output; [] writes the number of the row instead.
        format: full, or kaggle: the columns of keep= and the label under its own name, as Kaggle takes it.
        on_error: strict ends the command at a row that cannot be read, with its location, and writes nothing; skip
            leaves up to max_left_out of the rows out, and says how many; keep= tells which are left.
        max_left_out: the fraction of the rows that on_error=skip may leave out.
        json: prints JSON instead of the path of the output.
    """
    if format == "kaggle" and not keep:
        raise ConfigError(
            "format=kaggle: expected the column that identifies a row, such as keep=PassengerId"
        )
    from mlxlab.inference.prediction_file import PredictionFile, check_output

    check_output(output)
    from mlxlab import backend

    backend.prepare()
    from mlxlab.data.labelled.rows import text_blocks
    from mlxlab.data.sources.block import ErrorBudget
    from mlxlab.data.sources.messages import MissingColumnError
    from mlxlab.data.sources.open import open_source
    from mlxlab.inference.cells import row_reading
    from mlxlab.inference.eval_data import provided_rows
    from mlxlab.inference.predict import (
        MalformedRowError,
        UnseenCategories,
        row_encoder,
        trained_on,
    )
    from mlxlab.inference.restore import restore_model
    from mlxlab.ops.native.activation import activate_for_inference

    activate_for_inference()
    restored = restore_model(run, checkpoint)
    encoder, overrides = row_encoder(restored.encoder), read_overrides(args)
    data = override_data(restored, overrides)
    refuse_without_effect(overrides, {"reading"})
    forget_source(data, overrides)
    errors = ErrorBudget(on_error, max_left_out)
    unseen = UnseenCategories()
    if (rows := provided_rows(restored, input)) is not None:
        names = list(rows.cells)
        keep = _column_names(keep, names)
        numbers = list(range(1, len(rows) + 1))
        locations = [rows.location(row) for row in range(len(rows))]
        chunks: Chunks = iter([(rows.cells, locations, numbers)])
    else:
        reading = row_reading(data)
        source = open_source(input, reading, errors)
        names = list(source.columns())
        keep = _column_names(keep, names)
        columns = list(dict.fromkeys([*encoder.columns, *keep]))
        chunks = _chunks(source, text_blocks(source, columns, reading.missing, errors))
    file = PredictionFile(encoder, tuple(keep), format, data.get("label_delimiter"))
    _refuse_overwriting(input, output)
    replaced = "; replaced the earlier file" if output.exists() else ""
    try:
        count = _write(output, file, restored, chunks, batch_size, errors, unseen)
    except MissingColumnError as error:
        if not (own := [name for name in error.missing if name not in keep]):
            raise ConfigError(f"keep={','.join(error.missing)}: {error}") from None
        raise trained_on(error, own) from None
    except MalformedRowError as error:
        raise DataError(f"{error}{HINT}") from None
    except OSError as error:
        raise WriteError(f"output={output}: {error.strerror or error}") from None
    if unread := [
        name for name in names if name not in (*encoder.columns, encoder.label_column, *keep)
    ]:
        log.info(one_line(f"columns that the model does not read: {', '.join(unread)}", 300))
    for line in unseen.lines():
        log.warning(one_line(line, 300))
    skipped = errors.skipped
    left_out = f"; left out: {skipped}" if skipped else ""
    log.info(
        f"{counted(count, 'row')} of {input}{left_out}; step {restored.checkpoint.step} of {run}{replaced}"
    )
    if json:
        print_json({"output": str(output), "rows": count, "left_out": skipped})
    else:
        print(output)


def _column_names(keep: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The names in `keep=`, without the quotation marks that an override of `train` needs; `a,b` is two columns."""
    names: list[str] = []
    for typed in keep:
        is_quoted = len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "'\""
        name = typed[1:-1] if is_quoted else typed
        names += [name] if is_quoted or name in columns else name.split(",")
    return names


def _chunks(source: "Source", blocks: "Iterator[TextBlock]") -> Chunks:
    """The cells of each block, and the locations and numbers of its rows."""
    from mlxlab.data.labelled.rows import location_of

    for block in blocks:
        locations = [location_of(source, place) for place in block.places.tolist()]
        yield block.columns.to_pydict(), locations, block.numbers.tolist()


def _write(
    output: Path,
    file: "PredictionFile",
    restored: "RestoredModel",
    chunks: Chunks,
    batch_size: int,
    errors: "ErrorBudget",
    unseen: "UnseenCategories",
) -> int:
    """Writes the predictions for the chunks; returns the number of rows written."""
    from tqdm import tqdm

    from mlxlab.inference.predict import predict_usable
    from mlxlab.inference.prediction_file import json_lines

    count, is_first, is_csv = 0, True, output.suffix == ".csv"
    remove_leftovers(output.parent)
    with open_atomic(output) as stream, tqdm(unit=" rows", disable=None, dynamic_ncols=True) as bar:
        for table, locations, numbers in chunks:
            rows, usable, predictions = predict_usable(
                restored, table, locations, batch_size, errors
            )
            unseen.add(restored.encoder, usable)
            columns = file.columns(usable, predictions, [numbers[row] for row in rows])
            stream.write(
                file.csv_lines(columns, header=is_first) if is_csv else json_lines(columns)
            )
            count, is_first = count + len(rows), False
            bar.update(len(locations))
        errors.check()
    return count


def _refuse_overwriting(source: str, output: Path) -> None:
    from mlxlab.data.sources.files import find_files
    from mlxlab.data.sources.open import is_local

    if (
        not output.exists()
        or source == "test"
        or source.startswith("sklearn:")
        or not is_local(source)
    ):
        return
    files = find_files(source)
    if any(os.path.samefile(output, files.path(index)) for index in range(len(files))):
        raise ConfigError(f"output={output}: is a file of the input")


TRAINING_KEYS = {
    "data.source": "input",
    "data.on_error": "on_error",
    "data.max_left_out": "max_left_out",
}
main = build_main(__doc__, Subcommand(_predict, forward_prefix="data.", aliases=TRAINING_KEYS))
