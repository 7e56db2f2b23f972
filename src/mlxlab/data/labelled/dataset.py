"""Rows of a table: each becomes a text, from which a model predicts a class, several labels, or a number."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Unpack

import numpy as np

from mlxlab.constraints import MaxLen, MinLen, Seed
from mlxlab.data.dataset import MIN_STEPS, BaselineInputs
from mlxlab.data.labelled.cell_inputs import CellEncoder, CellInputs, holds_cells, restore_cells
from mlxlab.data.labelled.encoder import LabelledEncoder, restore_encoder
from mlxlab.data.labelled.examples import LabelledExamples
from mlxlab.data.labelled.inputs import Inputs, Run, TextInputs
from mlxlab.data.labelled.label_checks import (
    describe_giveaway,
    describe_look_alikes,
    giveaways,
    look_alikes,
)
from mlxlab.data.labelled.options import LabelledOptions, check_split
from mlxlab.data.labelled.renderer import (
    NumberFormat,
    RowRenderer,
    Template,
    column_template,
    default_template,
    feature_columns,
    fit_bounds,
    parse_template,
    restore_renderer,
)
from mlxlab.data.labelled.row_split import prepare_rows
from mlxlab.data.labelled.rows import Rows, open_rows, plain_columns, rows_of
from mlxlab.data.labelled.types import Kind, read_table
from mlxlab.data.sources.block import ErrorBudget, Source
from mlxlab.data.sources.messages import require_columns
from mlxlab.errors import ConfigError

CELL_STEPS = 250
CELL_EPOCHS = (22, 10_000)


class LabelledDataset(LabelledExamples):
    """The rows of a table, written as text, and their labels: a `DataModule`.

    Everything that is fitted (types, labels, bins of numbers, tokenizer) is fitted on the training rows alone.

    Args:
        target: the column to predict.
        text_column: the column of the text, or two columns for pairs of texts; null writes a text of the columns.
        columns: the columns that the model reads; null takes all but those of target, group and time.
        exclude: columns that the model does not read, where it would read all.
        template: the text of a row, with `{column}` for the value of a column and `{{` for a brace; null writes
            `column: value` for each of the columns.
        types: what columns hold, where it is not to be inferred from the training rows, such as {zip: category}.
        numbers: how numbers are written.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable,
            or a column does not exist.
        ConfigError: settings do not go together, or the template reads what it must not.
    """

    format_name = "mlxlab.labelled/1"
    min_steps = MIN_STEPS

    def __init__(
        self,
        target: str,
        text_column: str | Annotated[list[str], MinLen(1), MaxLen(2)] | None,
        columns: Annotated[list[str], MinLen(1)] | None,
        exclude: list[str],
        template: Annotated[str, MinLen(1)] | None,
        types: dict[str, Kind],
        numbers: NumberFormat,
        *,
        seed: Seed,
        cache: Path,
        parameters: int,
        width: int,
        inner_folds: int = 0,
        pretrained: Path | None = None,
        **options: Unpack[LabelledOptions],
    ) -> None:
        texts = [text_column] if isinstance(text_column, str) else text_column or []
        row_options: Any = {**options, "target": target, "kind": types.get(target)}
        check_split(row_options)
        options["source"] = rows_of(options["source"])
        source = options["reading"].open(options["source"], ErrorBudget(options["on_error"]))
        keys = ("target", "group_column", "time_column")
        special = [row_options[key] for key in keys if row_options[key] is not None]
        templates = choose_templates(source, texts, columns, exclude, template, special)

        names = list(dict.fromkeys(name for each in templates for name in each.fields))
        required = [each.fields[0] for each in templates if each.is_column]
        chosen: dict[str, Kind] = dict.fromkeys(texts, "text")
        chosen |= {name: kind for name, kind in types.items() if name != target}
        rows = _open_rows(options, [*names, *special], cache)
        prepared = prepare_rows(rows, row_options, names, required, chosen, seed)

        fitted = {name: each for name, each in prepared.types.items() if each.kind != "text"}
        train = read_table(rows.table(list(fitted), prepared.split.train), fitted)
        bounds = fit_bounds(train, numbers)
        self._renderer = RowRenderer(tuple(templates), prepared.types, numbers, bounds)
        inputs: Inputs
        if inner_folds:
            cells = CellInputs(prepared, train, inner_folds, seed)
            self.model_columns = cells.model_columns
            self.epoch_limits = CELL_EPOCHS
            self.min_steps = CELL_STEPS
            inputs = cells
        else:
            run = Run(seed, cache, parameters, width, pretrained)
            inputs = TextInputs(prepared, self._renderer, options, run)
        super().__init__(prepared, inputs, options, seed)
        self.location = rows.location
        self._reads_texts = bool(texts)
        self.giveaways: dict[str, float] = {}
        if self.task.kind == "classification":
            self.giveaways = giveaways(train, self.training_targets)
        self.look_alikes = look_alikes(prepared.labels.names)
        lines = [
            *map(describe_giveaway, self.giveaways),
            *map(describe_look_alikes, self.look_alikes),
        ]
        self.sources[-1:-1] = [f"{rows.name}: {line}" for line in lines]

    @property
    def baseline_inputs(self) -> BaselineInputs | None:
        if not self.fits_baselines:
            return None
        texts = {"": self._renderer}
        if self._reads_texts:
            return BaselineInputs(None, texts)
        columns = partial(feature_columns, types=self.encoder.types)
        if isinstance(self.inputs, CellInputs):
            return BaselineInputs(columns)
        return BaselineInputs(columns, texts)

    def texts(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The rows by number, with the numbers of their cells rather than bins."""
        table = self.rows.table(list(self._renderer.types), np.asarray(ids, np.int64))
        return ["\n".join(texts) for texts in self._renderer.exact().render(table)]

    @staticmethod
    def restore_encoder(folder: Path) -> LabelledEncoder | CellEncoder:
        if holds_cells(folder):
            return restore_cells(folder)
        return restore_encoder(folder, LabelledDataset.format_name, restore_renderer)


def _open_rows(options: LabelledOptions, columns: Sequence[str], cache: Path) -> Rows:
    """The rows of all sources."""
    reading = options["reading"]
    limits = (options["on_error"], columns, options["max_left_out"])
    sources = (options["source"], options["valid_source"], options["test_source"])
    return Rows([open_rows(each, reading, cache, *limits) for each in sources if each is not None])


def choose_templates(
    source: Source,
    texts: Sequence[str],
    columns: Sequence[str] | None,
    exclude: Sequence[str],
    template: str | None,
    special: Sequence[str],
) -> list[Template]:
    """The texts to write; all columns are read where no key says which.

    Args:
        texts: columns that are a text of their own, one or two.
        columns, exclude, template: as the keys of `LabelledDataset`.
        special: columns that the model must not read.

    Raises:
        ConfigError: the keys do not go together, or the model would read a special column.
        DataError: a column does not exist.
    """
    choices = [texts, columns, exclude, template]
    if len(list(filter(None, choices))) > 1:
        keys = "text_column, columns, exclude, template"
        raise ConfigError(f"data: expected at most one of {keys}")
    templates = [column_template(name) for name in texts]
    if columns is not None:
        templates = [default_template(columns)]
    if template is not None:
        templates = [parse_template(template)]

    read = [name for each in templates for name in each.fields]
    require_columns([*read, *exclude, *special], source.columns(), source.name)
    named = [*special, *(read if template is None else dict.fromkeys(read))]
    if len(set(named)) < len(named):
        twice = max(named, key=named.count)
        raise ConfigError(f"column {twice!r}: expected once in the keys of data, got it twice")
    if templates:
        return templates
    unread = [*exclude, *special]
    others = [name for name in plain_columns(source) if name not in unread]
    if not others:
        raise ConfigError(f"{source.name}: no column to predict from besides {', '.join(unread)}")
    return [default_template(others)]
