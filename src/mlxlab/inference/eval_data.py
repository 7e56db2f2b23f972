"""Evaluation data from a source that the user names: text, or labelled rows, read by the keys of the run or others."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlxlab.baselines.baseline import Baseline
from mlxlab.baselines.predict import predict_rows
from mlxlab.config.instantiate import import_target, instantiate
from mlxlab.config.issues import format_issues
from mlxlab.config.schema.signature import read_signature
from mlxlab.config.schema.validate import Checker, read_value
from mlxlab.data.batch import Batch
from mlxlab.data.dataset import (
    DataModule,
    LabelledRows,
    ProvidesTestRows,
    RowEncoder,
    Table,
)
from mlxlab.data.labelled.dataset import LabelledExamples
from mlxlab.data.labelled.encoder import TypedEncoder
from mlxlab.data.labelled.left_out import Faults
from mlxlab.data.labelled.rows import Rows, hash_rows, open_rows
from mlxlab.data.labelled.types import read_table
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.data.sources.block import OnError
from mlxlab.data.sources.messages import MissingColumnError
from mlxlab.data.sources.open import Reading
from mlxlab.data.text.batches import Packing, RowBuilder
from mlxlab.data.text.documents import open_documents
from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.text.packing import EPOCH_START, TextTokens, TokenStream, epoch_start, pack
from mlxlab.data.tokenizers.fit import existing_tokenizer
from mlxlab.errors import ConfigError, DataError, UserError
from mlxlab.inference.cells import row_reading
from mlxlab.inference.predict import UnseenCategories, encode_located, row_encoder, trained_on
from mlxlab.inference.restore import RestoredModel
from mlxlab.nearest import suggestion
from mlxlab.wording import counted

logger = logging.getLogger(__name__)
EVAL_BATCH_SIZE = 64  # for a data set of the user's own without that key; changes no result
MAX_LEFT_OUT = 0.01  # the default of data.max_left_out
NOT_OF_OTHER_SOURCES = (
    "reading.split",
    "reading.config",
    "reading.revision",
    "max_valid_examples",
)
MAX_COMPARED = 1_000_000  # rows that are compared with those of the training split
EvalData = tuple[
    Iterable[Batch], str
]  # evaluation batches, to be iterated once, and a description for the report


class EvalRows(NamedTuple):
    """Labelled rows to evaluate on: batches, to be iterated once, their description, and the numbers of the rows."""

    batches: Iterable[Batch]
    description: str
    numbers: np.ndarray


def text_batches(encoder: TextEncoder, node: dict[str, Any]) -> EvalData:
    """The documents of `node["source"]` (max `max_valid_examples`), packed so that each token is a target once.

    `node` is the data node of the run with the overrides of the command line. Raises as `open_documents`.
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


def open_eval_rows(
    restored: RestoredModel, node: dict[str, Any], cache: Path, others: Sequence[str] = ()
) -> "Rows | ProvidedRows":
    """The labelled rows of `node["source"]`, or with "test" the test rows that the data set comes with.

    `node` is the data node of the run with the overrides of the command line. Raises as `open_rows`.

    Args:
        others: columns that are read too, besides those of the model.
    """
    encoder, source = row_encoder(restored.encoder), node["source"]
    if (rows := provided_rows(restored, source)) is not None:
        _refuse_unknown(others, list(rows.cells), source)
        return rows
    names = list(dict.fromkeys([*encoder.columns, encoder.label_column, *others]))
    try:
        on_error, max_left_out = left_out_keys(node)
        part = open_rows(source, row_reading(node), cache, on_error, names, max_left_out)
        return Rows([part])
    except MissingColumnError as error:
        _refuse_unknown(others, [name for name in others if name not in error.missing], source)
        raise trained_on(error, error.missing) from None


def _refuse_unknown(columns: Sequence[str], known: Sequence[str], source: str) -> None:
    unknown = [name for name in columns if name not in known]
    if unknown:
        raise ConfigError(f"slices={unknown[0]}: no such column in {source}")


def row_batches(
    restored: RestoredModel, rows: "Rows | ProvidedRows", node: dict[str, Any]
) -> EvalRows:
    """These rows; raises DataError for one without a label that `on_error` does not leave out, or a malformed one."""
    encoder = row_encoder(restored.encoder)
    names = [*encoder.columns, encoder.label_column]

    numbers, lines = _labelled(encoder, rows, node)

    def collate(positions: np.ndarray) -> Batch:
        ids = numbers[positions]
        table = rows.table(names, ids)
        batch = encode_located(encoder, table, lambda row: rows.location(int(ids[row])))
        is_labelled = batch.loss_weights.reshape(len(ids), -1).any(axis=1)
        if not is_labelled.all():
            location = rows.location(int(ids[is_labelled.argmin()]))
            raise DataError(f"{location}: column {encoder.label_column!r}: a row without a label")
        return batch._replace(example_ids=ids)

    batch_size = node.get("eval_batch_size") or EVAL_BATCH_SIZE
    batches = EvalLoader(len(numbers), batch_size, collate)
    return EvalRows(
        batches, "\n".join([f"{counted(len(numbers), 'row')} of {node['source']}", *lines]), numbers
    )


def left_out_keys(node: Mapping[str, Any]) -> tuple[OnError, float]:
    """`on_error` and `max_left_out` of a data node, by default those of data sets without these keys."""
    return node.get("on_error", "strict"), node.get("max_left_out", MAX_LEFT_OUT)


def _labelled(
    encoder: RowEncoder, rows: "Rows | ProvidedRows", node: Mapping[str, Any]
) -> tuple[np.ndarray, list[str]]:
    """The numbers of the rows to evaluate on, and lines on those that are left out."""
    if not (isinstance(rows, Rows) and isinstance(encoder, TypedEncoder)):
        return np.arange(len(rows)), []
    faults = Faults(rows, *left_out_keys(node))
    cells = rows.column(encoder.label_column)
    column = encoder.labels.read(encoder.label_column, cells, rows.location)
    faults.add_missing(column, encoder.required)
    faults.add_unreadable(column, encoder.labels.target)
    faults.add_cells(encoder.types)
    lines = faults.check()
    numbers = np.flatnonzero(faults.usable)
    unseen = UnseenCategories()
    for table in faults.rows.blocks(encoder.columns, numbers):
        unseen.add(encoder, table)
    return numbers, [*lines, *unseen.lines()]


def report_known_rows(
    restored: RestoredModel,
    rows: "Rows | ProvidedRows",
    numbers: np.ndarray,
    source: str,
    data: DataModule | None,
) -> None:
    """Warns if the model was trained on some of these rows."""
    encoder = row_encoder(restored.encoder)
    if not isinstance(data, LabelledExamples) or len(rows) > MAX_COMPARED:
        return
    if isinstance(rows, ProvidedRows) or not isinstance(encoder, TypedEncoder):
        return
    types = {**encoder.types, encoder.label_column: encoder.labels.type}

    def hashes(table: Table) -> np.ndarray:
        columns = read_table(table, types).items()
        return hash_rows({name: column.spelled() for name, column in columns})

    with suppress(UserError):  # a malformed row, which the evaluation reports
        blocks = data.rows.blocks(list(types), data.split.train)
        trained = np.concatenate([hashes(block) for block in blocks])
        known = int(np.isin(hashes(rows.table(list(types), numbers)), trained).sum())
        if known:
            count = f"{known:,} of the {len(numbers):,} rows of {source}"
            logger.warning(f"{count} equal a training row of this run: they flatter the figures")


def row_baselines(
    restored: RestoredModel,
    rows: "Rows | ProvidedRows",
    numbers: np.ndarray,
    data: DataModule | None,
) -> Sequence[Baseline]:
    """The baselines of the data of the run, with predictions for these rows; a line in the log if there can be none."""
    encoder, reason = row_encoder(restored.encoder), ""
    if data is None:
        reason = "the training data of the run has changed, cannot be read, or is too large"
    elif not isinstance(data, LabelledRows):
        reason = "the data set of the run predicts them for its own rows only"
    elif len(numbers) > MAX_COMPARED:
        reason = f"more than {MAX_COMPARED:,} rows"
    else:

        def read(positions: np.ndarray) -> Table:
            return rows.table(encoder.columns, numbers[positions])

        return predict_rows(data, read, len(numbers))
    logger.info(f"no baselines: {reason}")
    return []


@dataclass(frozen=True)
class ProvidedRows:
    """Rows that come with a data set: what an evaluation needs of the interface of `Rows`."""

    name: str
    cells: Table

    def __len__(self) -> int:
        return len(next(iter(self.cells.values())))

    def table(self, columns: Sequence[str], rows: np.ndarray) -> Table:
        return {name: [self.cells[name][row] for row in rows.tolist()] for name in columns}

    def location(self, row: int) -> str:
        return f"{self.name}:{row + 1}"


def provided_rows(restored: RestoredModel, source: str) -> ProvidedRows | None:
    """The rows that the data set of a run calls `source`; None if that is a file."""
    dataset = import_target(restored.config["data"]["_target_"])
    if source != "test" or not isinstance(dataset, ProvidesTestRows):
        return None
    return ProvidedRows(source, dataset.test_rows())


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


def forget_source(node: dict[str, Any], overrides: dict[str, str]) -> None:
    """Removes the keys that belong to the source of the run, for another one."""
    for key in NOT_OF_OTHER_SOURCES:
        if key not in overrides and key.partition(".")[0] in node:
            _set(node, key, None)


def _set(node: dict[str, Any], key: str, text: str | None) -> None:
    """Sets a dotted key, as the type that the signature of its node has."""
    first, _, inner = key.partition(".")
    if inner and isinstance(
        node.setdefault(first, {}), dict
    ):  # An unknown key is refused with its path.
        _set(node[first], inner, text)
        return
    known = read_signature(node["_target_"]) if "_target_" in node else None
    node[key] = text
    if text is not None and known and key in known.keys:
        node[key] = read_value(known.keys[key].hint, text)
