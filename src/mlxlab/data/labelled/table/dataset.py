"""Tables: each row becomes a text, from whose words a model predicts a class, several labels, or a number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Unpack

import numpy as np

from mlxlab.constraints import MinLen, Seed
from mlxlab.data.dataset import Baseline, Table
from mlxlab.data.labelled.encoder import LabelledEncoder, read_state, restore_encoder
from mlxlab.data.labelled.examples import LabelledExamples, Run
from mlxlab.data.labelled.labelled_rows import LabelledRows, open_sources
from mlxlab.data.labelled.options import LabelledOptions
from mlxlab.data.labelled.row_split import split_sources
from mlxlab.data.labelled.table.baselines import table_baselines
from mlxlab.data.labelled.table.fit_renderer import fit_renderer
from mlxlab.data.labelled.table.renderer import NumberFormat, restore_renderer
from mlxlab.data.labelled.table.template import Template, check_column, default_template, parse_template
from mlxlab.data.labelled.text_baselines import tfidf_baselines
from mlxlab.errors import ConfigError, DataError

FORMAT_NAME = "mlxlab.table/1"


class TableDataset:
    """The rows of a table, written as text, and their labels: a `DataModule`.

    Everything that is fitted (labels, bins of numbers, tokenizer) is fitted on the training rows alone.

    Args:
        target: the column to predict.
        columns: the columns that the model reads; null takes all but those of target, group and time.
        template: the text of a row, with `{column}` for the value of a column and `{{` for a brace; null writes
            `column: value` for each of `columns`.
        numbers: how numbers are written.
        categorical: columns whose numbers are names, such as postcodes; they are written as they are.
        baselines: fit a linear model and gradient boosting on the columns of the same rows, and a linear model on the
            words of their texts, for the report.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable.
        ConfigError: settings do not go together, or the template reads what it must not.
    """

    def __init__(
        self,
        target: str,
        columns: Annotated[list[str], MinLen(1)] | None,
        template: Annotated[str, MinLen(1)] | None,
        numbers: NumberFormat,
        categorical: list[str],
        *,
        seed: Seed,
        cache: Path,
        parameters: int,
        width: int,
        pretrained: Path | None = None,
        **options: Unpack[LabelledOptions],
    ) -> None:
        sources = open_sources(options, "target", target, None, cache)
        rows = sources.rows
        special = {"target": target, "group_column": options["group_column"], "time_column": options["time_column"]}
        parsed = _choose_template(rows, columns, template, categorical, special)
        split, labels, column = split_sources(sources, list(dict.fromkeys(parsed.fields)), [], seed)
        used = np.concatenate(split[:3])
        renderer, lines = fit_renderer(
            parsed, lambda name: rows.codes(name).take(used), np.arange(len(split.train)), numbers, categorical
        )
        run = Run(seed, cache, parameters, width, pretrained)
        self.examples = LabelledExamples(rows, split, column, labels, renderer, options, run)
        self.task, self.tokenizer, self.encoder = self.examples.task, self.examples.tokenizer, self.examples.encoder
        self.train, self.valid, self.test = self.examples.train, self.examples.valid, self.examples.test
        self.fingerprint, self.held_out = self.examples.fingerprint, self.examples.held_out
        self.row_lengths = self.examples.row_lengths
        self.count_training_rows = self.examples.count_training_rows
        self.sources = [*(f"{rows.name}: {line}" for line in lines), *self.examples.sources]
        self.class_counts, self.texts = self.examples.class_counts, self.examples.texts
        self._renderer, self._has_baselines = renderer, options["baselines"]
        self.num_examples = self.examples.num_examples

    def baselines(self) -> list[Baseline]:
        if not self._has_baselines:
            return []
        examples, numeric = self.examples, self._renderer.bounds
        split, targets = examples.split[:3], examples.training_targets

        def cells(rows: np.ndarray) -> Table:
            return examples.rows.table(self._renderer.columns, rows)

        raw = table_baselines(cells, split, targets, numeric, self.task)
        return [*raw, *tfidf_baselines(examples.texts, split, targets, self.task, boosting=False)]

    def save(self, folder: Path) -> None:
        self.examples.save(folder, FORMAT_NAME)

    @staticmethod
    def restore_encoder(folder: Path) -> LabelledEncoder:
        state = read_state(folder, FORMAT_NAME)
        try:
            renderer = restore_renderer(state["renderer"])
        except DataError as error:
            raise DataError(f"{folder / 'data.json'}: {error}") from None
        return restore_encoder(folder, state, renderer)


def _choose_template(
    rows: LabelledRows,
    columns: Sequence[str] | None,
    template: str | None,
    categorical: Sequence[str],
    special: dict[str, str | None],
) -> Template:
    """The template, checked: ConfigError if it, `columns` or `categorical` name what there is not or must not be."""
    present = rows.parts[0].columns
    names = {name: f"data.{key}" for key, name in special.items() if name is not None}
    reserved = {name: key for name, key in names.items() if key == "data.target"}
    if template is not None and columns is not None:
        raise ConfigError("data.columns has no effect with data.template, whose placeholders name the columns")
    chosen = [name for name in present if name not in names] if columns is None else columns
    if repeated := [name for name in chosen if list(chosen).count(name) > 1]:
        raise ConfigError(f"data.columns: {repeated[0]} is given twice")
    for name in chosen:
        check_column(name, present, reserved, f"data.columns: {name}")
    if not chosen:
        raise ConfigError(f"{rows.name}: expected a column other than {', '.join(names)} to predict from")
    parsed = default_template(chosen) if template is None else parse_template(template, present, reserved)
    for name in categorical:
        if name not in parsed.fields:
            check_column(name, present, reserved, f"data.categorical: {name}")
            raise ConfigError(f"data.categorical: {name} is not among the columns that the model reads")
    return parsed
