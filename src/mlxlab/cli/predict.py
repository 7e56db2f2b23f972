"""Predicts the labels of the rows of a file with a trained model.

    mlxlab predict run=RUN_FOLDER input=FILE output=predictions.csv [key=value ...]
    mlxlab predict run=RUN_FOLDER input=FILE output=predictions.csv keep=id,title
    mlxlab predict run=RUN_FOLDER text="a woman of 29, first class"
    cat texts.txt | mlxlab predict run=RUN_FOLDER

The input is read piece by piece, however large it is: a file, folder or glob of .csv, .tsv, .jsonl (each also .gz and
.zst) or .parquet with the columns of the training data; a label column is not needed. It is read as the training data
were, except for data.reading.KEY=VALUE (delimiter, encoding, missing). Columns that the model does not read are named
at the end.

The output has a row for each row of the input, in its order: the columns of keep=, or the number of the row (from 1,
rows that are left out count too), then `label` and `probability_<label>`; `labels`, those that hold, where several
may; `value` for a number; `predicted_label` where keep= copies a column `label`. It appears whole or not at all: a row that cannot be read ends the command, unless
on_error=skip leaves it out, as it does with up to max_left_out=0.01 of the rows. These keys may also be typed as in
training: data.on_error=, data.max_left_out=, and data.source= for input=. In CSV, a text that a spreadsheet would run
as a formula (=, +, -, @) begins with an apostrophe. The predictions for texts are JSON objects, a line each.
"""

import logging
import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlxlab.cli.app import prepare_inference, print_json, print_result
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Share, Size
from mlxlab.terminal.wording import counted, one_line

if TYPE_CHECKING:
    from mlxlab.inference.restore import RestoredModel

ALIASES = {
    "data.source": "input",
    "data.on_error": "on_error",
    "data.max_left_out": "max_left_out",
}
log = logging.getLogger(__name__)


def predict(
    run: Path,
    input: str | None = None,
    output: Path | None = None,
    text: str | None = None,
    checkpoint: str = "best",
    batch_size: Size = 64,
    keep: list[str] = [],  # noqa: B006
    format: Literal["full", "kaggle"] = "full",
    on_error: Literal["strict", "skip"] = "strict",
    max_left_out: Share = 0.01,
    json: bool = False,
    **data: str,
) -> None:
    """Writes the predictions for the rows of a file, or prints those for texts.

    Args:
        run: a run folder, that of an ensemble, or a registered model: `models:/<name>@<alias>`.
        input: the file of the rows, or `test`: the 418 test rows of the Titanic.
        output: a file that ends in .csv or .jsonl; an existing one is replaced.
        text: one text; without it and without input=, each line of standard input is a text.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        batch_size: rows that the model reads at once; changes no result beyond rounding.
        keep: columns of the input to copy to the output, separated by commas; null writes the number of the row instead.
        format: full, or kaggle: the columns of keep= and the label under its own name, as Kaggle takes it.
        on_error: strict ends the command at a row that cannot be read, with its location, and writes nothing; skip
            leaves up to max_left_out of the rows out, and says how many; keep= tells which are left.
        max_left_out: the fraction of the rows that on_error=skip may leave out.
        json: prints JSON instead of the path of the output.
    """
    if input is None and output is None:
        _predict_texts(run, checkpoint, text, batch_size, json)
        return
    if input is None:
        raise ConfigError("input=...: missing; expected the file of the rows")
    if output is None:
        raise ConfigError("output=...: missing; expected a file that ends in .csv or .jsonl")
    if format == "kaggle" and not keep:
        raise ConfigError(
            "format=kaggle: expected the column that identifies a row, such as keep=PassengerId"
        )
    if output.suffix not in (".csv", ".jsonl"):
        raise ConfigError(f"output={output}: expected a file that ends in .csv or .jsonl")
    restored = _restore(run, checkpoint)
    from mlxlab.inference.prediction_file import predict_file

    replaced = "; replaced the earlier file" if output.exists() else ""
    written = predict_file(
        restored,
        input,
        output,
        overrides=data,
        keep=keep,
        format=format,
        batch_size=batch_size,
        on_error=on_error,
        max_left_out=max_left_out,
    )
    for note in written.notes:
        log.warning(one_line(note, 300))
    left_out = f"; left out: {written.left_out}" if written.left_out else ""
    rows = f"{counted(written.rows, 'row')} of {input}{left_out}"
    log.info(f"{rows}; step {restored.checkpoint.step} of {run}{replaced}")
    print_result(
        {"output": str(output), "rows": written.rows, "left_out": written.left_out},
        str(output),
        json,
    )


def _predict_texts(
    run: Path, checkpoint: str, text: str | None, batch_size: int, json: bool
) -> None:
    if text is None and sys.stdin.isatty():
        raise ConfigError(
            "input=...: missing;"
            " expected the file of the rows, text=..., or texts on standard input"
        )
    texts = [text] if text is not None else sys.stdin.read().splitlines()
    restored = _restore(run, checkpoint)
    from mlxlab.inference.loaded_model import LoadedModel

    predictions = LoadedModel(restored).predict(texts, batch_size)
    if json:
        print_json(predictions)
        return
    for prediction in predictions:
        print(dumps(prediction, ensure_ascii=False))


def _restore(run: Path, checkpoint: str) -> "RestoredModel":
    prepare_inference()
    from mlxlab.inference.restore import restore_model

    return restore_model(run, checkpoint)
