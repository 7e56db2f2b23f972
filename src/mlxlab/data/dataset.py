"""The interface that a data set implements: what training, evaluation and inference need of it.

Here also stands what data sets share: how many rows are longer than `data.seq_len`, and the interface of `data.select`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, inf
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from mlxlab.data.batch import Batch, BatchIterator, Task
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.record.run_record import TOO_LONG
from mlxlab.terminal.wording import percent

Table = Mapping[str, Sequence[str | None]]  # columns of equal length; None where a cell is missing
ReadColumns = Callable[[Table], Mapping[str, np.ndarray]]

# A line of `DataModule.sources` on rows that are equal in two splits has these words, the second ones where it drops them.
SAME_INPUT = " with the same input as "
DROPPED = "; left out"


class Encoder(Protocol):
    """Turns raw inputs into tokens, as a data set did for training; what inference restores."""

    @property
    def task(self) -> Task: ...

    @property
    def tokenizer(self) -> Tokenizer: ...


@runtime_checkable
class RowEncoder(Encoder, Protocol):
    """The encoder of labelled rows."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns that a prediction needs."""

    @property
    def label_column(self) -> str: ...

    @property
    def label_cells(self) -> Sequence[str]:
        """What stands in the label column for each of `task.labels`."""

    def encode_rows(self, table: Table) -> Batch:
        """One batch of all rows, with ids 0, 1, ...; a row without a label has weight 0.

        Raises:
            DataError: a column is missing, or a cell is malformed (`row 1: ...`, the first one
                being 1; inference puts file and line there).
        """


class RowTexts(Protocol):
    """Writes rows as texts."""

    @property
    def num_variants(self) -> int:
        """The ways to write a row, of which one is drawn whenever a training row is shown."""

    def render_all(self, table: Table) -> Sequence[tuple[str, ...]]:
        """The texts of every variant of each row, row by row: one text or a pair of texts."""


class BaselineInputs(NamedTuple):
    """What baselines read of labelled rows.

    Args:
        columns: reads the typed columns of a table, each (N,): float64 of numbers, objects of categories.
        texts: the texts of rows, by what the baseline is called; "" names it by the kind of its model.
        plain: whether baselines on texts have the default settings of scikit-learn.
        rules: methods without a fit, by name: the probabilities (N, C) of the rows of a table.
    """

    columns: ReadColumns | None = None
    texts: Mapping[str, RowTexts] = MappingProxyType({})
    plain: bool = False
    rules: Mapping[str, Callable[[Table], np.ndarray]] = MappingProxyType({})


@runtime_checkable
class LabelledRows(Protocol):
    """A data set of labelled rows, by position: the training rows, then those for validation and for a test."""

    @property
    def task(self) -> Task: ...

    @property
    def columns(self) -> Sequence[str]:
        """The columns that the model reads."""

    @property
    def split_sizes(self) -> tuple[int, int, int]:
        """Rows for training, validation and test."""

    def cells(self, positions: np.ndarray) -> Table:
        """The columns that the model reads, of the rows at these positions."""

    @property
    def training_targets(self) -> np.ndarray:
        """Targets of the training rows, as in a `Batch`."""

    @property
    def valid_targets(self) -> np.ndarray:
        """Targets of the validation rows; known before they are evaluated."""

    @property
    def baseline_inputs(self) -> BaselineInputs | None:
        """None if no baselines are to be fitted."""


AUTO_EPOCHS = 5  # the least that `trainer.epochs=auto` takes
MAX_AUTO_EPOCHS = 100
MIN_STEPS = 300  # the least that a run of no set length makes: fewer teach a small model little


def auto_epochs(data: object, batches_per_epoch: int | None) -> int:
    """The epochs of `trainer.epochs=auto`: enough for the `min_steps` of the data, within its `epoch_limits`."""
    least, most = getattr(data, "epoch_limits", (AUTO_EPOCHS, MAX_AUTO_EPOCHS))
    needed = getattr(data, "min_steps", 0) / (batches_per_epoch or inf)
    return max(least, min(most, ceil(needed)))


class RunLength(NamedTuple):
    """The limits of a run, each None where there is no such limit."""

    max_steps: int | None = None
    epochs: int | None = None
    max_tokens: int | None = None

    def steps(self, batches_per_epoch: int | None, tokens_per_batch: int | None) -> int | None:
        """Steps until the first limit that can be expressed in steps; None without any."""
        limits = [self.max_steps] if self.max_steps is not None else []
        if self.epochs is not None and batches_per_epoch is not None:
            limits.append(self.epochs * batches_per_epoch)
        if self.max_tokens is not None and tokens_per_batch is not None:
            limits.append(-(-self.max_tokens // tokens_per_batch))
        return min(limits, default=None)


UNKNOWN_LENGTH = RunLength()


class DataModule(Protocol):
    """A data set with its splits, tokenizer and task. The class is the `_target_` of a `data` node.

    Its constructor gets the keys of that node, and by name whichever of these it declares keyword-only: `seed`,
    `cache` (a folder for what may be deleted at any time), `pretrained` (a folder whose tokenizer is to be used, or
    None), `restored` (the `inference` folder of the run that is resumed or evaluated, or None), `masked` (the model
    predicts hidden tokens), `parameters`, `width` and `positions` of the model, `run_length` (a `RunLength`) and
    `read_cells` (reads rows as the cells that the model reads in place of texts, or None).

    A data set may have further attributes, which are used where they are there: `encoder` (the one that it saves),
    `num_examples` (examples by split: `training`, those that are shown, `validation`, and `test` where there are some),
    `text_sizes` (documents and tokens by split) and `estimated_sizes` (the splits of which these are estimates),
    `left_out_rows` (rows that cannot be used), `row_lengths` (`RowLengths`, of texts), `location` (where the row stands that batches call by an id, `reviews.csv:17`),
    `training_rows` (batches of every training row once), `epoch_limits` and `min_steps` (see `auto_epochs`),
    `model_columns` (the key `model.columns`), and the static method `test_rows` (a `Table` of labelled rows that it
    comes with, for `evaluate data.source=test` and `predict input=test`).
    """

    @property
    def task(self) -> Task: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def train(self) -> BatchIterator: ...

    @property
    def valid(self) -> Iterable[Batch]:
        """Yields the same batches each time it is iterated."""

    @property
    def test(self) -> Iterable[Batch]:
        """Yields the test batches, evaluated once, after training. Empty where there is no test split."""

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes a training batch; a run resumes only with an equal one."""

    @property
    def held_out(self) -> str:
        """Identifies the validation examples, whatever their order: equal for runs that may be compared on them."""

    @property
    def sources(self) -> Sequence[str]:
        """Lines for the log: where the data came from, and how much there is. The last one summarises."""

    @property
    def class_counts(self) -> Sequence[int]:
        """Training examples of each class, for class weights; empty where there are no classes."""

    def texts(self, ids: Sequence[int]) -> Sequence[str]:
        """The inputs of these validation and test examples, for reports; empty where they are unknown."""

    def save(self, folder: Path) -> None:
        """Writes what `restore_encoder` reads: at least tokenizer.json (`Tokenizer.save`)."""

    @staticmethod
    def restore_encoder(folder: Path) -> Encoder:
        """The encoder saved in `folder`, all that it may read; InputNotFoundError or DataError if it is damaged."""


MANY = 0.05  # share of rows that is worth a warning
QUANTILE = 1 - MANY
NO_LIMIT = 2**30  # tokens of a row
NEARLY_ALL = 0.99
SHORTEST = 128
LONGEST = 512  # the positions of most pretrained encoders
MAX_MEASURED = 1024  # rows at the limit whose full length is measured


class RowLengths(NamedTuple):
    """Rows by their number of tokens, before truncation."""

    seq_len: int  # the limit
    rows: int
    too_long: int  # rows above the limit
    needed: int  # `data.seq_len` that holds 95 % of the rows, a multiple of 8
    action: str = "truncated"  # what happens to those above the limit

    @property
    def share(self) -> float:
        return self.too_long / max(self.rows, 1)

    def describe(self) -> str:
        count = f"{self.too_long:,} of {self.rows:,} rows ({percent(self.share)})"
        return f"{count} {TOO_LONG}{self.seq_len} tokens and are {self.action}"


def measure_lengths(
    lengths: np.ndarray, seq_len: int, full_lengths: Callable[[np.ndarray], Sequence[int]]
) -> RowLengths:
    """Measures rows that may be truncated already.

    Args:
        lengths: (N,) tokens of each row; at most `seq_len` where it is truncated.
        full_lengths: tokens of the rows of these numbers without truncation; called for a sample of them.
    """
    at_limit = np.flatnonzero(lengths >= seq_len)
    if not len(at_limit):
        return RowLengths(seq_len, len(lengths), 0, seq_len)
    spread = np.linspace(0, len(at_limit) - 1, min(len(at_limit), MAX_MEASURED))
    full = np.asarray(full_lengths(at_limit[spread.astype(np.int64)]))
    too_long = round(float(np.mean(full > seq_len)) * len(at_limit))
    # The shortest rows are below the limit; the quantile of all is another one of those at it.
    position = max(0.0, 1 - (1 - QUANTILE) * len(lengths) / len(at_limit))
    needed = round_up(float(np.quantile(full, position, method="higher")))
    return RowLengths(seq_len, len(lengths), too_long, needed)


def fitting_length(lengths: Sequence[int]) -> int:
    """A limit that holds nearly all rows of these lengths whole, if they are of a usual length."""
    nearly_all = float(np.quantile(lengths, NEARLY_ALL, method="higher"))
    return min(max(round_up(nearly_all), SHORTEST), LONGEST)


def round_up(length: float) -> int:
    return -(-int(length) // 8) * 8


class ExampleSelection(Protocol):
    """Selects training examples."""

    def chosen(self, seed: int, known: np.ndarray | None = None) -> np.ndarray | None:
        """The ids to train on, ascending, of those that are `known`; None for all.

        Raises:
            InputNotFoundError, DataError: the selection has no valid source.
            ConfigError: nothing says which ids there are.
        """


class AllExamples:
    """Selects all. Implements `ExampleSelection`."""

    def chosen(self, seed: int, known: np.ndarray | None = None) -> None:
        return None
