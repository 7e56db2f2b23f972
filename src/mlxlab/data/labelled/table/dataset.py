"""Tables: each row becomes a text, from whose words a model predicts a class, several labels, or a number."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Unpack

import numpy as np

from mlxlab.constraints import MinLen, Seed
from mlxlab.data.dataset import Baseline, Table
from mlxlab.data.labelled.encoder import LabelledEncoder, read_state, restore_encoder
from mlxlab.data.labelled.examples import MIN_STEPS, BaselineRows, LabelledExamples, Run
from mlxlab.data.labelled.labelled_rows import LabelledRows, open_sources
from mlxlab.data.labelled.options import LabelledOptions
from mlxlab.data.labelled.row_split import split_sources
from mlxlab.data.labelled.rows import MAX_LISTED
from mlxlab.data.labelled.table.baselines import table_baselines
from mlxlab.data.labelled.table.fit_renderer import fit_renderer
from mlxlab.data.labelled.table.renderer import NumberFormat, restore_renderer
from mlxlab.data.labelled.table.template import (
    Template,
    default_template,
    parse_template,
    refuse_reserved,
)
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
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable,
            or a column does not exist.
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
        own = _own_template(columns, template, categorical, target)
        named = {
            "columns" if template is None else "template": own.fields,
            "categorical": categorical,
        }
        sources = open_sources(options, "target", target, None, cache, named)
        rows = sources.rows
        special = [
            name
            for name in (target, options["group_column"], options["time_column"])
            if name is not None
        ]
        parsed = own if own.fields else _template_of_others(rows, special)
        _refuse_unread(categorical, parsed)
        split, labels, column = split_sources(sources, list(dict.fromkeys(parsed.fields)), [], seed)
        used = np.concatenate(split[:3])
        renderer, lines = fit_renderer(
            parsed,
            lambda name: rows.codes(name).take(used),
            np.arange(len(split.train)),
            numbers,
            categorical,
        )
        run = Run(seed, cache, parameters, width, pretrained)
        self.examples = LabelledExamples(rows, split, column, labels, renderer, options, run)
        self.task, self.tokenizer, self.encoder = (
            self.examples.task,
            self.examples.tokenizer,
            self.examples.encoder,
        )
        self.train, self.valid, self.test = (
            self.examples.train,
            self.examples.valid,
            self.examples.test,
        )
        self.fingerprint, self.held_out = self.examples.fingerprint, self.examples.held_out
        self.row_lengths = self.examples.row_lengths
        self.count_known_rows, self.location = (
            self.examples.count_known_rows,
            self.examples.rows.location,
        )
        lines = [*_describe_columns(rows, parsed), *lines]
        opened, fitted = (
            self.examples.sources[: len(rows.parts)],
            self.examples.sources[len(rows.parts) :],
        )
        self.sources = [*opened, *(f"{rows.name}: {line}" for line in lines), *fitted]
        self.class_counts = self.examples.class_counts
        self._renderer, self._has_baselines = renderer, options["baselines"]
        self.num_examples, self.min_steps = self.examples.num_examples, MIN_STEPS

    def baselines(self) -> list[Baseline]:
        return self._fit_baselines(self.examples.baseline_rows()) if self._has_baselines else []

    def baselines_on(self, table: Table) -> list[Baseline]:
        return (
            self._fit_baselines(self.examples.baseline_rows(table)) if self._has_baselines else []
        )

    def _fit_baselines(self, rows: BaselineRows) -> list[Baseline]:
        split, targets = rows.split, self.examples.training_targets
        cells, texts = (
            partial(rows.table, self._renderer.columns),
            partial(self.examples.texts_of, rows),
        )
        raw = table_baselines(cells, split, targets, self._renderer.bounds, self.task)
        return [*raw, *tfidf_baselines(texts, split, targets, self.task, boosting=False)]

    def texts(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The rows by number, with the numbers of their cells rather than bins."""
        table = self.examples.rows.table(self._renderer.columns, np.asarray(ids, np.int64))
        return [text for (text,) in replace(self._renderer, bounds={}).render(table)]

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


def _own_template(
    columns: Sequence[str] | None, template: str | None, categorical: Sequence[str], target: str
) -> Template:
    """That of `template` or `columns`, without placeholders if neither is given.

    Raises ConfigError if they do not go together, or the model would read the target.
    """
    reserved = {target: "data.target"}
    if template is not None and columns is not None:
        raise ConfigError(
            "data.columns has no effect with data.template, whose placeholders name the columns"
        )
    for key, names in {"columns": columns or [], "categorical": categorical}.items():
        for name in names:
            refuse_reserved(name, reserved, f"data.{key}: {name}")
    chosen = columns or []
    if repeated := [name for name in chosen if list(chosen).count(name) > 1]:
        raise ConfigError(f"data.columns: {repeated[0]} is given twice")
    return default_template(chosen) if template is None else parse_template(template, reserved)


def _template_of_others(rows: LabelledRows, special: Sequence[str]) -> Template:
    """That of all columns but these."""
    chosen = [name for name in rows.parts[0].columns if name not in special]
    if not chosen:
        raise ConfigError(
            f"{rows.name}: expected a column other than {', '.join(special)} to predict from"
        )
    return default_template(chosen)


def _describe_columns(rows: LabelledRows, template: Template) -> list[str]:
    """A line on the columns that the model reads, if some are listed in the log that it does not."""
    names, available = list(dict.fromkeys(template.fields)), rows.parts[0].columns
    if len(names) >= len(available) - 1:  # all but the target
        return []
    shown = ", ".join([*names[:MAX_LISTED], *["..."][: len(names) > MAX_LISTED]])
    return [f"the model reads {len(names)} of these {len(available)} columns: {shown}"]


def _refuse_unread(categorical: Sequence[str], template: Template) -> None:
    for name in categorical:
        if name not in template.fields:
            raise ConfigError(
                f"data.categorical: {name} is not among the columns that the model reads"
            )
