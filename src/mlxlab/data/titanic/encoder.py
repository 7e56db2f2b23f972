"""Encodes passengers as sentences, tokens and batches. Fitted on the training rows; inference restores it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

import numpy as np

from mlxlab.constraints import Ge, Le, MinLen, Seed
from mlxlab.data.batch import Batch, Task, check_ids, pad
from mlxlab.data.dataset import Table
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.titanic.passenger import COLUMNS, Passenger, passengers_of
from mlxlab.data.titanic.templates import TEMPLATES, VERSION, GroupStatistics, render_sentence
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import DataError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json

LABELS, LABEL_COLUMN = ("died", "survived"), "Survived"
FORMAT = "mlxlab.titanic/1"


class EncoderState(TypedDict):
    """The encoder in data.json; `source` and `fingerprint` are for human readers."""

    format: str
    template_version: int
    labels: list[str]
    templates: Annotated[dict[str, str], MinLen(1)]
    seq_len: Annotated[int, Ge(8), Le(8192)]
    seed: Seed
    tokenizer: str
    statistics: GroupStatistics
    source: NotRequired[str]
    fingerprint: NotRequired[str]


@dataclass(frozen=True)
class PassengerEncoder:
    """Renders each row by one of `templates` (name -> text), chosen by the row's id and the seed, and tokenizes it."""

    templates: dict[str, str]
    statistics: GroupStatistics
    tokenizer: Tokenizer
    seq_len: int
    seed: int
    task = Task("classification", len(LABELS), LABELS)
    columns = tuple(name for name in COLUMNS if name != LABEL_COLUMN)
    label_column, label_cells = LABEL_COLUMN, ("0", "1")

    def choose(self, ids: np.ndarray, epoch: int = 0, copy: int | np.ndarray = 0) -> np.ndarray:
        """(N,) index of each row's template: a function of (id, seed, epoch, copy). Copy 0 is that for evaluation."""
        draws = counter_hash(self.seed, Stream.TEMPLATE, epoch, copy, ids)
        return (draws % np.uint64(len(self.templates))).astype(np.int64)

    def texts(self, rows: Sequence[Passenger]) -> list[str]:
        """The sentence of each row for evaluation."""
        chosen, texts = (
            self.choose(np.array([row.id for row in rows], np.int64)),
            list(self.templates.values()),
        )
        return [
            render_sentence(row, texts[i], self.statistics)
            for row, i in zip(rows, chosen, strict=True)
        ]

    def all_texts(self, rows: Sequence[Passenger]) -> list[str]:
        """Every sentence of every row: row by row, one per template."""
        return [
            render_sentence(row, text, self.statistics)
            for row in rows
            for text in self.templates.values()
        ]

    def encode_rows(self, table: Table) -> Batch:
        """One batch of all rows, as in `RowEncoder`; raises as `passengers_of`."""
        rows = passengers_of(table)
        return self.encode_passengers(rows)._replace(example_ids=np.arange(len(rows)))

    def encode_passengers(self, rows: Sequence[Passenger]) -> Batch:
        """One batch of rows; a row without a label has weight 0."""
        return self.collate(rows, self.tokenizer.encode_batch(self.texts(rows), self.seq_len))

    def collate(
        self, rows: Sequence[Passenger], sequences: Sequence[np.ndarray], length: int | None = None
    ) -> Batch:
        """A batch of tokenized rows, padded to `length` or to the longest; ids and labels are range-checked."""
        tokens, mask = pad(sequences, self.tokenizer.pad_id, self.seq_len, length)
        targets = np.array([row.survived or 0 for row in rows], np.int32)
        weights = np.array([row.survived is not None for row in rows], np.float32)
        batch = Batch(tokens, mask, targets, weights, np.array([row.id for row in rows], np.int64))
        return check_ids(batch, self.tokenizer.vocab_size, len(LABELS))

    def state_dict(self) -> EncoderState:
        return {
            "format": FORMAT,
            "template_version": VERSION,
            "labels": list(LABELS),
            "templates": self.templates,
            "seq_len": self.seq_len,
            "seed": self.seed,
            "tokenizer": self.tokenizer.fingerprint,
            "statistics": self.statistics,
        }

    def save(self, folder: Path, *, source: str, fingerprint: str) -> None:
        self.tokenizer.save(folder)
        write_json(
            folder / "data.json",
            {**self.state_dict(), "source": source, "fingerprint": fingerprint},
        )


def restore(folder: Path) -> PassengerEncoder:
    """The encoder that `save` wrote; InputNotFoundError or DataError if a file is missing or does not match."""
    path = folder / "data.json"
    state = read_json(path, EncoderState)
    if (state["format"], state["template_version"], state["labels"]) != (
        FORMAT,
        VERSION,
        list(LABELS),
    ):
        raise DataError(
            f"{path}: expected format {FORMAT}, templates {VERSION}, got {state['format']!r}"
        )
    if not state["templates"].items() <= TEMPLATES.items():
        raise DataError(f"{path}: expected templates of this version: {', '.join(TEMPLATES)}")
    tokenizer = load_tokenizer(folder)
    if tokenizer.fingerprint != state["tokenizer"]:
        raise DataError(f"{path}: tokenizer.json is not the one it was saved with")
    return PassengerEncoder(
        state["templates"], state["statistics"], tokenizer, state["seq_len"], state["seed"]
    )
