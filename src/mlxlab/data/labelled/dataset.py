"""Rows of a table: each becomes a text, from which a model predicts a class, several labels, or a number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Unpack

import numpy as np

from mlxlab.constraints import MaxLen, MinLen, Seed
from mlxlab.data.dataset import MIN_STEPS, Baseline, Table
from mlxlab.data.labelled.column_choice import ColumnChoice
from mlxlab.data.labelled.encoder import LabelledEncoder, restore_encoder
from mlxlab.data.labelled.examples import BaselineRows, LabelledExamples, Run
from mlxlab.data.labelled.label_checks import giveaways, look_alikes, spell_code_points
from mlxlab.data.labelled.labels import LabelOptions
from mlxlab.data.labelled.options import LabelledOptions
from mlxlab.data.labelled.renderer import (
    NumberFormat,
    RowRenderer,
    fit_bounds,
    restore_renderer,
)
from mlxlab.data.labelled.row_split import open_sources, prepare_rows
from mlxlab.data.labelled.rows import rows_of
from mlxlab.data.labelled.table_baselines import table_baselines
from mlxlab.data.labelled.types import read_column
from mlxlab.data.sources.block import ErrorBudget
from mlxlab.wording import percent


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

    def __init__(
        self,
        target: str,
        text_column: str | Annotated[list[str], MinLen(1), MaxLen(2)] | None,
        columns: Annotated[list[str], MinLen(1)] | None,
        exclude: list[str],
        template: Annotated[str, MinLen(1)] | None,
        types: dict[str, Literal["number", "integer", "boolean", "category", "datetime", "text"]],
        numbers: NumberFormat,
        *,
        seed: Seed,
        cache: Path,
        parameters: int,
        width: int,
        pretrained: Path | None = None,
        **options: Unpack[LabelledOptions],
    ) -> None:
        label = LabelOptions(
            target,
            options["task"],
            options["labels"],
            options["label_delimiter"],
            options["positive_class"],
            types.get(target),
        )
        texts = [text_column] if isinstance(text_column, str) else text_column or []
        splitting = {"group_column": options["group_column"], "time_column": options["time_column"]}
        special = {key: name for key, name in splitting.items() if name is not None}
        choice = ColumnChoice(target, texts, columns, exclude, template, special)
        options["source"] = rows_of(options["source"])
        source = options["reading"].open(options["source"], ErrorBudget(options["on_error"]))
        templates = choice.templates(source)
        names = list(dict.fromkeys(name for each in templates for name in each.fields))
        required = [each.fields[0] for each in templates if each.is_column]
        chosen = {name: kind for name, kind in types.items() if name != target}
        for name in texts:
            chosen.setdefault(name, "text")
        sources = open_sources(options, label, names, cache)
        prepared = prepare_rows(sources, names, required, chosen, seed)

        rows = prepared.rows
        train = {
            name: read_column(name, rows.arrays([name], prepared.split.train)[name], each)
            for name, each in prepared.types.items()
            if each.kind != "text"
        }
        bounds = fit_bounds(train, numbers)
        self._renderer = RowRenderer(tuple(templates), prepared.types, numbers, bounds)
        run = Run(seed, cache, parameters, width, pretrained)
        super().__init__(prepared, self._renderer, options, run)
        self.location = rows.location
        self.min_steps = MIN_STEPS
        self.giveaways = giveaways(train, self._training_classes())
        self.look_alikes = look_alikes(prepared.labels.names)
        *lines, summary = self.sources
        self.sources = [*lines, *self._describe_suspicions(), summary]
        self._has_columns = not texts

    def fit_baselines(self, rows: BaselineRows) -> list[Baseline]:
        by_words = self.text_baselines(rows, self._renderer)
        if not self._has_columns:
            return [self.constant_baseline(rows), *by_words]

        def cells(numbers: np.ndarray) -> Table:
            return rows.table(self._renderer.columns, numbers)

        targets = self.training_targets
        raw = table_baselines(cells, rows.split, targets, self._renderer.types, self.task)
        return [*raw, *by_words]

    def texts(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The rows by number, with the numbers of their cells rather than bins."""
        numbers = np.asarray(ids, np.int64)
        table = self.rows.table(self._renderer.columns, numbers)
        return ["\n".join(texts) for texts in self._renderer.exact().render(table)]

    @staticmethod
    def restore_encoder(folder: Path) -> LabelledEncoder:
        return restore_encoder(folder, LabelledDataset.format_name, restore_renderer)

    def _training_classes(self) -> np.ndarray:
        """(N,) the class of each training row; empty for other tasks."""
        if self.task.kind != "classification":
            return np.zeros(0, np.int64)
        return self.training_targets

    def _describe_suspicions(self) -> list[str]:
        """A line for each column that gives the label away, and for each group of labels that look the same."""
        lines: list[str] = []
        for name, share in self.giveaways.items():
            tells = (
                f"column {name!r} alone tells the label of {percent(share)} of the training rows"
            )
            lines.append(f"{tells}; data.exclude=[{name}] if it is known only with the label")
        for group in self.look_alikes:
            spelled = ", ".join(map(spell_code_points, group))
            lines.append(f"labels that look the same: {spelled}")
        return [f"{self.rows.name}: {line}" for line in lines]
