"""Encodes labelled rows as text, tokens and batches; fitted on the training rows, saved with a run, and restored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypeAlias, TypedDict

import numpy as np
import pyarrow as pa

from mlxlab.data.batch import Batch, Task, check_ids, pad
from mlxlab.data.dataset import RowTexts, Table
from mlxlab.data.labelled.labels import Labels, Targets, require_fitted
from mlxlab.data.labelled.types import Types, number_of_row
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import DataError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import ShapeError, read_json
from mlxlab.schema.constraints import Ge, Le

if TYPE_CHECKING:
    from mlxlab.data.labelled.renderer import RowRenderer
    from mlxlab.data.labelled.sentences import SentenceRenderer

Texts = Sequence[tuple[str, ...]]  # one text or a pair of texts for each row
Renderer: TypeAlias = "RowRenderer | SentenceRenderer"


class SavedEncoder(TypedDict):
    """What data.json holds of every encoder; `source` and `fingerprint` are for human readers."""

    format: str
    label_column: str
    labels: Labels
    source: NotRequired[str]
    fingerprint: NotRequired[str]


class SavedTexts(SavedEncoder):
    """A `LabelledEncoder` in data.json."""

    renderer: dict[str, object]
    seq_len: Annotated[int, Ge(8), Le(8192)]
    tokenizer: str


class TypedEncoder(ABC):
    """The encoder of rows with typed columns, fitted on the training rows. Implements `RowEncoder`."""

    labels: Labels
    label_column: str

    @property
    @abstractmethod
    def task(self) -> Task: ...

    @property
    @abstractmethod
    def types(self) -> Types:
        """The type of each column that the model reads."""

    @property
    def columns(self) -> Sequence[str]:
        return list(self.types)

    @property
    def label_cells(self) -> Sequence[str]:
        return self.labels.cells or self.labels.names

    @property
    def required(self) -> Sequence[str]:
        """The columns that may not be blank."""
        return ()

    def encode_rows(self, table: Table) -> Batch:
        """One batch of rows with ids 0, 1, ...; see `RowEncoder`."""
        inputs = self.read(table)
        rows = np.arange(len(inputs))
        cells = table.get(self.label_column, [None] * len(rows))
        labels = self.labels.read(self.label_column, pa.chunked_array([cells], pa.string()))
        if self.label_column not in table:
            labels = labels._replace(values=[], codes=np.full(len(rows), -1))
        return self.collate(inputs, self.labels.encode(labels), rows, rows)

    @abstractmethod
    def read(self, table: Table) -> Any:
        """The inputs of some rows; raises DataError for a cell that is malformed."""

    @abstractmethod
    def collate(
        self,
        inputs: Any,
        targets: Targets,
        rows: np.ndarray,
        ids: np.ndarray,
        length: int | None = None,
    ) -> Batch:
        """A batch of encoded rows, padded to `length` or to the longest; `rows` are those of `targets`."""

    @abstractmethod
    def rules(self) -> object:
        """How inputs are made: equal for encoders that make the same inputs of the same columns."""

    @abstractmethod
    def save(self, folder: Path, **saved: object) -> None:
        """Writes tokenizer.json and data.json, with what `SavedEncoder` says."""


@dataclass(frozen=True)
class LabelledEncoder(TypedEncoder):
    """Renders rows as text, tokenizes it and encodes the labels."""

    renderer: Renderer
    labels: Labels
    label_column: str
    tokenizer: Tokenizer
    seq_len: int

    @property
    def task(self) -> Task:
        return self.labels.task(self.tokenizer.end_id if self.renderer.is_pair else None)

    @property
    def types(self) -> Types:
        return self.renderer.types

    @property
    def required(self) -> Sequence[str]:
        return self.renderer.required

    def read(self, table: Table) -> list[np.ndarray]:
        """The tokens of rows; raises DataError for an empty text too."""
        texts = self.renderer.render(table)
        for row, parts in enumerate(texts):
            if not all(map(str.strip, parts)):
                columns = ", ".join(map(repr, self.columns))
                raise DataError(f"{number_of_row(row)}: column {columns}: an empty text")
        return self.tokenize(texts)

    def tokenize(self, texts: Texts) -> list[np.ndarray]:
        """int32 tokens of each row, truncated to `seq_len`; of a pair `start a end b end`, the longer one truncated."""
        if not self.renderer.is_pair:
            return self.tokenizer.encode_batch([text for (text,) in texts], self.seq_len)
        first = self.tokenizer.encode_documents([first for first, _ in texts])
        second = self.tokenizer.encode_documents([second for _, second in texts])
        return list(map(self._join, first, second))

    def _join(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        start = self.tokenizer.bos_id
        head = [] if start is None else [start]
        end = self.tokenizer.end_id
        room = self.seq_len - len(head) - 2
        used = min(len(second), max(room - len(first), room // 2))
        return np.array([*head, *first[: room - used], end, *second[:used], end], np.int32)

    def collate(
        self,
        inputs: Sequence[np.ndarray],
        targets: Targets,
        rows: np.ndarray,
        ids: np.ndarray,
        length: int | None = None,
    ) -> Batch:
        """Implements `TypedEncoder`."""
        tokens, mask = pad(inputs, self.tokenizer.pad_id, self.seq_len, length)
        batch = Batch(tokens, mask, *targets.of(rows), ids.astype(np.int64))
        return check_ids(batch, self.tokenizer.vocab_size, len(self.labels.names))

    def rules(self) -> object:
        return self.renderer.rules()

    def save(self, folder: Path, **saved: object) -> None:
        self.tokenizer.save(folder)
        saved["labels"] = self.labels.state_dict()
        saved["renderer"] = self.renderer.state_dict()
        saved["seq_len"] = self.seq_len
        saved["tokenizer"] = self.tokenizer.fingerprint
        write_json(folder / "data.json", saved)


def render_sequences(
    renderer: RowTexts, read: Callable[[np.ndarray], Table], sequences: np.ndarray
) -> Texts:
    """The texts of sequences, of which `row * num_variants + variant` is one variant of a row."""
    rows, variants = np.divmod(sequences, renderer.num_variants)
    used, indices = np.unique(rows, return_inverse=True)
    texts = renderer.render_all(read(used))
    return [texts[index] for index in indices * renderer.num_variants + variants]


def restore_encoder(
    folder: Path, format_name: str, restore_renderer: Callable[[object], Renderer]
) -> LabelledEncoder:
    """The encoder that `save` wrote.

    Raises:
        InputNotFoundError, DataError: a file is missing, is damaged, or is not of this format.
    """
    path = folder / "data.json"
    state = read_json(path, SavedTexts)
    if state["format"] != format_name:
        raise DataError(f"{path}: expected format {format_name}, got {state['format']!r}")
    try:
        renderer = restore_renderer(state["renderer"])
    except (DataError, ShapeError) as error:
        raise DataError(f"{path}: {error}") from None
    tokenizer = load_tokenizer(folder)
    if tokenizer.fingerprint != state["tokenizer"]:
        raise DataError(f"{path}: tokenizer.json is not the one it was saved with")
    label_column = state["label_column"]
    if label_column in renderer.types:
        raise DataError(f"{path}: the label column {label_column!r} is an input too")
    labels = state["labels"]
    require_fitted(labels, path)
    return LabelledEncoder(renderer, labels, label_column, tokenizer, state["seq_len"])
