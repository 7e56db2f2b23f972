"""Evaluation data from a source that the user names: text, or labelled rows."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from mlxlab.config.instantiate import import_target, instantiate
from mlxlab.data.batch import Batch
from mlxlab.data.dataset import ProvidesTestRows, Table
from mlxlab.data.input_files import read_input_file
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.data.strict_csv import parse_csv
from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.text.packed_batches import PackedEvalBatches, Packing
from mlxlab.data.text.sources.open import Reading, open_source
from mlxlab.data.text.token_stream import EPOCH_START, TokenStream
from mlxlab.data.tokenizers.word_cache import WordCache
from mlxlab.errors import DataError
from mlxlab.inference.predict import check_columns, encode_located, row_encoder
from mlxlab.inference.restore import RestoredModel

EvalData = tuple[Iterable[Batch], str]  # evaluation batches, to be iterated once, and a description for the report


def text_batches(encoder: TextEncoder, node: dict[str, Any]) -> EvalData:
    """The documents of `node["source"]` (max `validation.max_examples`), packed so that each token is a target once.

    `node` is the data node of the run with the overrides of the command line. Raises as `open_source`.
    """
    reading, tokenizer, window = instantiate(node["reading"], Reading), encoder.tokenizer, node["shuffle"]["window"]
    source = open_source(node["source"], reading.split, reading, node["text_column"], node["on_error"], window)
    builder = instantiate(node["packing"], Packing).eval_row_builder(tokenizer, node["seq_len"], encoder.masked)
    encode, max_documents = WordCache(tokenizer).encode_documents, node["validation"]["max_examples"]
    stream = TokenStream(source, encode, tokenizer.end_id, 0, max_documents)
    batches = PackedEvalBatches(stream(0, EPOCH_START), builder, node["eval_batch_size"])
    return batches, f"text of {source.name}"


def row_batches(restored: RestoredModel, source: str, batch_size: int) -> EvalData:
    """The labelled rows of a file, or with "test" the test rows that the run's data set comes with."""
    encoder = row_encoder(restored.encoder)
    table, locations = read_rows(restored, source)
    check_columns(encoder, list(table), labelled=True)
    columns = {name: table[name] for name in [*encoder.columns, encoder.label_column]}
    if unlabelled := sum(cell is None for cell in columns[encoder.label_column]):
        raise DataError(f"{source}: {unlabelled} of {len(locations)} rows have no {encoder.label_column!r}")

    def collate(rows: np.ndarray) -> Batch:
        chosen = {name: [cells[row] for row in rows] for name, cells in columns.items()}
        return encode_located(encoder, chosen, [locations[row] for row in rows])._replace(example_ids=rows)

    return EvalLoader(len(locations), batch_size, collate), f"{len(locations)} rows of {source}"


def read_rows(restored: RestoredModel, source: str) -> tuple[Table, list[str]]:
    """All rows of a source, and the location of each."""
    dataset = import_target(restored.config["data"]["_target_"])
    if source == "test" and isinstance(dataset, ProvidesTestRows):
        table = dataset.test_rows()
        return table, [f"test:{number}" for number in range(1, len(next(iter(table.values()))) + 1)]
    header, *rows = parse_csv(read_input_file(source), source)
    cells = zip(*([field.text or None for field in row] for row in rows), strict=True)
    names = [field.text.strip() for field in header]
    return dict(zip(names, map(list, cells), strict=False)), [f"{source}:{row[0].line}" for row in rows]
