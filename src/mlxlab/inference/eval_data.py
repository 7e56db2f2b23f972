"""Evaluation data from a source that the user names: text or CSV rows."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.text.packed_batches import PackedEvalBatches, Packing
from mlxlab.data.text.sources.open import open_source
from mlxlab.data.text.token_stream import EPOCH_START, TokenStream
from mlxlab.data.titanic.encoder import PassengerEncoder
from mlxlab.data.titanic.sources import load_evaluation_rows
from mlxlab.data.tokenizers.word_cache import WordCache


class EvalData(NamedTuple):
    """Evaluation batches, to be iterated once, and their description for the report."""

    batches: Iterable[Batch]
    description: str


def text_batches(encoder: TextEncoder, node: dict[str, Any]) -> EvalData:
    """The documents of `node["source"]` (max `validation.max_examples`), packed so that each token is a target once.

    Args:
        node: the data node of the run, with the overrides of the command line.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: see `open_source`.
    """
    reading = node["reading"]
    source = open_source(
        node["source"],
        reading["split"],
        config=reading["config"],
        revision=reading["revision"],
        document_unit=reading["document_unit"],
        text_column=node["text_column"],
        on_error=node["on_error"],
        window=node["shuffle"]["window"],
    )
    packing = instantiate(node["packing"], Packing)
    builder = packing.eval_row_builder(encoder.tokenizer, node["seq_len"], encoder.masked)
    tokenizer = encoder.tokenizer
    encode = WordCache(tokenizer).encode_documents
    stream = TokenStream(source, encode, tokenizer.end_id, 0, node["validation"]["max_examples"])
    chunks = stream(0, EPOCH_START)
    return EvalData(PackedEvalBatches(chunks, builder, node["eval_batch_size"]), f"text of {source.name}")


def row_batches(encoder: PassengerEncoder, node: dict[str, Any]) -> EvalData:
    """The labelled rows of the CSV file `node["source"]`, or with "test" the 418 real test rows."""
    rows = load_evaluation_rows(node["source"])
    batches = EvalLoader(len(rows), node["eval_batch_size"], lambda at: encoder.encode_rows([rows[i] for i in at]))
    return EvalData(batches, f"{len(rows)} rows of {node['source']}")
