"""Labelled texts: a class, several labels, or a number for each text or pair of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict, Unpack

from mlxlab.constraints import MaxLen, MinLen, Seed
from mlxlab.data.dataset import Baseline, Table
from mlxlab.data.labelled.encoder import LabelledEncoder, Texts, read_state, restore_encoder
from mlxlab.data.labelled.examples import MIN_STEPS, LabelledExamples, Run
from mlxlab.data.labelled.labelled_rows import open_sources
from mlxlab.data.labelled.options import LabelledOptions
from mlxlab.data.labelled.row_split import split_sources
from mlxlab.errors import DataError
from mlxlab.files.untrusted import ShapeError, validate
from mlxlab.wording import one_of

FORMAT_NAME = "mlxlab.text_classification/1"


class ColumnsState(TypedDict):
    columns: Annotated[list[str], MinLen(1), MaxLen(2)]


@dataclass(frozen=True)
class TextColumns:
    """Renders a row as the text of one column, or as those of two."""

    columns: Sequence[str]

    @property
    def is_pair(self) -> bool:
        return len(self.columns) == 2

    @property
    def required(self) -> Sequence[str]:
        return self.columns

    def render(self, table: Table) -> Texts:
        for name in self.columns:
            if name not in table:
                raise DataError(f"no column {name!r}, expected {one_of(table)}")
        cells = [[cell or "" for cell in table[name]] for name in self.columns]
        return list(zip(*cells, strict=True))

    def state_dict(self) -> Mapping[str, object]:
        return {"columns": list(self.columns)}


class TextClassificationDataset:
    """Texts and their labels, from files of your own: classes, several labels at a time, or numbers.

    Everything that is fitted (labels, tokenizer, statistics) is fitted on the training rows alone.

    Args:
        text_column: the column of the text, or two columns for pairs of texts.
        label_column: the column of the label.
        on_overlap: what to do about equal texts in two splits; drop leaves the training row out.
        on_error: strict ends the run at a malformed row, an empty text or a missing label; skip leaves such rows
            out.
        seq_len: maximum tokens of a text or pair; longer ones are truncated.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable.
        ConfigError: settings do not go together.
    """

    def __init__(
        self,
        text_column: str | Annotated[list[str], MinLen(1), MaxLen(2)],
        label_column: str,
        *,
        seed: Seed,
        cache: Path,
        parameters: int,
        width: int,
        pretrained: Path | None = None,
        **options: Unpack[LabelledOptions],
    ) -> None:
        columns = [text_column] if isinstance(text_column, str) else text_column
        text_keys = {
            f"text_column[{i}]" if len(columns) > 1 else "text_column": name
            for i, name in enumerate(columns)
        }
        sources = open_sources(options, "label_column", label_column, text_keys, cache)
        split, labels, column = split_sources(sources, columns, columns, seed)
        run = Run(seed, cache, parameters, width, pretrained)
        self.examples = LabelledExamples(
            sources.rows, split, column, labels, TextColumns(columns), options, run
        )
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
        self.sources, self.class_counts = self.examples.sources, self.examples.class_counts
        self.texts, self._has_baselines = self.examples.texts, options["baselines"]
        self.num_examples, self.min_steps = self.examples.num_examples, MIN_STEPS

    def baselines(self) -> list[Baseline]:
        return self.examples.text_baselines() if self._has_baselines else []

    def baselines_on(self, table: Table) -> list[Baseline]:
        return self.examples.text_baselines(table) if self._has_baselines else []

    def save(self, folder: Path) -> None:
        self.examples.save(folder, FORMAT_NAME)

    @staticmethod
    def restore_encoder(folder: Path) -> LabelledEncoder:
        state = read_state(folder, FORMAT_NAME)
        try:
            columns = validate(state["renderer"], ColumnsState)["columns"]
        except ShapeError as error:
            raise DataError(f"{folder / 'data.json'}: renderer: {error}") from None
        return restore_encoder(folder, state, TextColumns(columns))
