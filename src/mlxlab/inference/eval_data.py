"""Evaluation data from a source that the user names: text or CSV rows."""

from collections.abc import Iterable
from typing import Any

from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.text.packed_batches import PackedEvalBatches, Packing
from mlxlab.data.text.sources.open import Reading, open_source
from mlxlab.data.text.token_stream import EPOCH_START, TokenStream
from mlxlab.data.titanic.encoder import PassengerEncoder
from mlxlab.data.titanic.sources import load_evaluation_rows
from mlxlab.data.tokenizers.word_cache import WordCache

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


def row_batches(encoder: PassengerEncoder, source: str, batch_size: int) -> EvalData:
    """The labelled rows of the CSV file `source`, or with "test" the 418 real test rows."""
    rows = load_evaluation_rows(source)
    batches = EvalLoader(len(rows), batch_size, lambda at: encoder.encode_rows([rows[i] for i in at]))
    return batches, f"{len(rows)} rows of {source}"
