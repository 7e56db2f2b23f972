"""Data of the user's own for a trained model: text or labelled rows, read by the keys of the run or others."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlxlab.config.instantiate import import_target, instantiate
from mlxlab.config.issues import format_issues
from mlxlab.config.schema.signature import read_signature
from mlxlab.config.schema.validate import Checker, read_value
from mlxlab.data.batch import Batch
from mlxlab.data.dataset import DataModule, LabelledRows, RowEncoder, Table
from mlxlab.data.labelled.dataset import LabelledExamples
from mlxlab.data.labelled.encoder import TypedEncoder
from mlxlab.data.labelled.left_out import Faults
from mlxlab.data.labelled.rows import Rows, hash_rows, open_rows
from mlxlab.data.labelled.types import read_table
from mlxlab.data.loader import EvalLoader
from mlxlab.data.sources.arrow import TableRows
from mlxlab.data.sources.messages import MissingColumnError
from mlxlab.data.sources.open import Reading
from mlxlab.data.text.batches import Packing, RowBuilder
from mlxlab.data.text.dataset import TextEncoder
from mlxlab.data.text.documents import open_documents
from mlxlab.data.text.packing import EPOCH_START, TextTokens, TokenStream, epoch_start, pack
from mlxlab.data.tokenizers.fit import existing_tokenizer
from mlxlab.errors import ConfigError, DataError, UserError
from mlxlab.inference.predict import (
    UnseenCategories,
    encode_located,
    row_encoder,
    row_reading,
    trained_on,
)
from mlxlab.inference.restore import RestoredModel
from mlxlab.models.baselines.predict import Baseline, predict_rows
from mlxlab.terminal.nearest import suggestion
from mlxlab.terminal.wording import counted

logger = logging.getLogger(__name__)
EVAL_BATCH_SIZE = 64  # A data set of the user's own may lack that key; it changes no result.
MAX_LEFT_OUT = 0.01  # the default of data.max_left_out
NOT_OF_OTHER_SOURCES = (
    "reading.split",
    "reading.config",
    "reading.revision",
    "max_valid_examples",
)
MAX_COMPARED = 1_000_000  # rows that are compared with those of the training split


def text_batches(encoder: TextEncoder, node: dict[str, Any]) -> tuple[Iterable[Batch], str]:
    """The documents of `node["source"]` (max `max_valid_examples`), packed so that each token is a target once.

    `node` is the data node of the run with the overrides of the command line. Raises as `open_documents`.

    Returns:
        Batches, to be iterated once, and a description for the report.
    """
    reading = instantiate(node["reading"], Reading)
    source = open_documents(
        node["source"],
        reading.split,
        reading,
        node["text_column"],
        node["on_error"],
        node["shuffle"]["window"],
    )
    packing = instantiate(node["packing"], Packing)
    layout = packing.layout(
        encoder.tokenizer, node["seq_len"], encoder.task.masked
    ).without_overlap()
    hidden = packing.mlm_probability if encoder.task.masked else None
    builder = RowBuilder(layout, encoder.tokenizer, hidden)
    tokenize = TextTokens(encoder.tokenizer)
    stream = TokenStream(source, tokenize, 0, node["max_valid_examples"])
    rows = list(pack(stream(0, EPOCH_START), epoch_start(0), layout))
    return builder.evaluation(rows, node["eval_batch_size"]), f"text of {source.name}"


def row_source(restored: RestoredModel, name: str) -> str | TableRows:
    """The rows that `name` stands for: a file, or with "test" the test rows that the data set comes with."""
    if name == "test":
        dataset = import_target(restored.config["data"]["_target_"])
        if hasattr(dataset, "test_rows"):
            return TableRows(dataset.test_rows(), name)
    return name


@dataclass(frozen=True)
class EvalRows:
    """Labelled rows to evaluate on.

    Args:
        node: the data node of the run with the overrides of the command line.
        numbers: those of the rows that can be used.
        lines: what was left out, and what no training row has.
    """

    encoder: RowEncoder
    node: Mapping[str, Any]
    rows: Rows
    numbers: np.ndarray
    lines: Sequence[str]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def description(self) -> str:
        return "\n".join([f"{counted(len(self), 'row')} of {self.node['source']}", *self.lines])

    def table(self, columns: Sequence[str], positions: np.ndarray) -> Table:
        return self.rows.table(columns, self.numbers[positions])

    def batches(self) -> Iterable[Batch]:
        """Batches of all rows; DataError for a row that is malformed or has no label."""
        encoder = self.encoder
        names = [*encoder.columns, encoder.label_column]

        def collate(positions: np.ndarray) -> Batch:
            ids = self.numbers[positions]
            table = self.rows.table(names, ids)
            batch = encode_located(encoder, table, lambda row: self.rows.location(int(ids[row])))
            is_labelled = batch.loss_weights.reshape(len(ids), -1).any(axis=1)
            if not is_labelled.all():
                location = self.rows.location(int(ids[is_labelled.argmin()]))
                raise DataError(f"{location}: column {names[-1]!r}: a row without a label")
            return batch._replace(example_ids=ids)

        return EvalLoader(len(self), self.node.get("eval_batch_size") or EVAL_BATCH_SIZE, collate)

    def warn_of_training_rows(self, data: DataModule | None) -> None:
        """Warns if the model was trained on some of these rows."""
        encoder = self.encoder
        if not isinstance(data, LabelledExamples) or not isinstance(encoder, TypedEncoder):
            return
        if len(self.rows) > MAX_COMPARED:
            return
        types = {**encoder.types, encoder.label_column: encoder.labels.type}

        def hashes(table: Table) -> np.ndarray:
            columns = read_table(table, types).items()
            return hash_rows({name: column.spelled() for name, column in columns})

        with suppress(UserError):  # a malformed row, which the evaluation reports
            blocks = data.rows.blocks(list(types), data.split.train)
            trained = np.concatenate([hashes(block) for block in blocks])
            known = int(np.isin(hashes(self.rows.table(list(types), self.numbers)), trained).sum())
            if known:
                count = f"{known:,} of the {len(self):,} rows of {self.node['source']}"
                logger.warning(
                    f"{count} equal a training row of this run: they flatter the figures"
                )

    def baselines(self, data: DataModule | None) -> Sequence[Baseline]:
        """The baselines of the data of the run, with predictions for these rows; a line in the log if there are none."""
        if isinstance(data, LabelledRows) and len(self) <= MAX_COMPARED:
            return predict_rows(data, lambda rows: self.table(data.columns, rows), len(self))
        logger.info(
            "no baselines: the training data of the run has changed or cannot be read, or there are too many rows"
        )
        return []


def open_eval_rows(
    restored: RestoredModel, node: dict[str, Any], cache: Path, others: Sequence[str] = ()
) -> EvalRows:
    """The labelled rows of `node["source"]`, the data node of the run with the overrides of the command line.

    Args:
        others: columns that are read too, besides those of the model.

    Raises:
        ConfigError: another column is missing.
        DataError: a row has no label or is malformed, and `on_error` does not leave it out.
        InputNotFoundError, ServiceUnavailableError: see `open_rows`.
    """
    encoder = row_encoder(restored.encoder)
    names = list(dict.fromkeys([*encoder.columns, encoder.label_column, *others]))
    on_error = node.get("on_error", "strict")
    max_left_out = node.get("max_left_out", MAX_LEFT_OUT)
    source = row_source(restored, node["source"])
    try:
        part = open_rows(source, row_reading(node), cache, on_error, names, max_left_out)
    except MissingColumnError as error:
        for name in others:
            if name in error.missing:
                raise ConfigError(f"slices={name}: no such column in {node['source']}") from None
        raise trained_on(error, error.missing) from None
    rows = Rows([part])
    if not isinstance(encoder, TypedEncoder):
        return EvalRows(encoder, node, rows, np.arange(len(rows)), [])

    faults = Faults(rows, on_error, max_left_out)
    cells = rows.column(encoder.label_column)
    column = encoder.labels.read(encoder.label_column, cells, rows.location)
    faults.add_missing(column, encoder.required)
    faults.add_unreadable(column, encoder.labels.target)
    faults.add_cells(encoder.types)
    lines = faults.check()
    numbers = np.flatnonzero(faults.usable)
    unseen = UnseenCategories()
    for table in rows.blocks(encoder.columns, numbers):
        unseen.add(encoder, table)
    return EvalRows(encoder, node, rows, numbers, [*lines, *unseen.lines()])


def override_data(restored: RestoredModel, overrides: dict[str, str]) -> dict[str, Any]:
    """The data node of the run with the overrides; every key is checked."""
    path = overrides.pop("tokenizer.path", None)
    if path is not None:
        existing_tokenizer(path, restored.config_dir)  # refuses another one than that of the run
    return override_node(restored.config["data"], overrides)


def override_node(data: dict[str, Any], overrides: dict[str, str]) -> dict[str, Any]:
    """A data node with the overrides; every key is checked."""
    node = deepcopy(data)
    for name, text in overrides.items():
        if not text:
            raise ConfigError(f"data.{name}=: expected a value")
        _set(node, name, text)
    issues = list(Checker(node).check_node(node, node["_target_"], "data"))
    if issues:
        raise ConfigError(format_issues(issues))
    return node


def refuse_without_effect(overrides: dict[str, str], effective: Collection[str]) -> None:
    """ConfigError for a key of the data, valid in training, that is not one of these."""
    for name, text in overrides.items():
        if name.partition(".")[0] not in effective:
            near = suggestion(name, effective, "data.")
            raise ConfigError(
                f"data.{name}={text}: has no effect here; the value of the run is used{near}"
            )


def forget_source(node: dict[str, Any], overrides: Collection[str]) -> None:
    """Removes the keys that belong to the source of the run, for another one."""
    for key in NOT_OF_OTHER_SOURCES:
        if key not in overrides and key.partition(".")[0] in node:
            _set(node, key, None)


def _set(node: dict[str, Any], key: str, text: str | None) -> None:
    """Sets a dotted key, as the type that the signature of its node has."""
    first, _, inner = key.partition(".")
    # An unknown key is refused with its path.
    if inner and isinstance(node.setdefault(first, {}), dict):
        _set(node[first], inner, text)
        return
    known = read_signature(node["_target_"]) if "_target_" in node else None
    node[key] = text
    if text is not None and known and key in known.keys:
        node[key] = read_value(known.keys[key].hint, text)
