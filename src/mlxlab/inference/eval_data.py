"""What a trained model is judged on when the user names it: other text, or other rows."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from mlxlab.data.batch import Batch
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.data.text.corpus import SourceOptions
from mlxlab.data.text.cursor import DocumentCursor
from mlxlab.data.text.dataset import end_of, make_row_builder
from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.text.packed_batches import PackedEvalBatches
from mlxlab.data.text.token_stream import TokenStream
from mlxlab.data.titanic.encoder import PassengerEncoder
from mlxlab.data.titanic.sources import load_evaluation_rows
from mlxlab.data.tokenizers.word_cache import WordCache

OPENING = ("config", "revision", "text_column", "documents", "on_error", "window")


class EvalData(NamedTuple):
    """Batches to be iterated once, and what they are, in words."""

    batches: Iterable[Batch]
    line: str


def text_batches(encoder: TextEncoder, node: dict[str, Any]) -> EvalData:
    """All documents of `node["source"]`, or `max_valid_examples` of them, as rows that share no target.

    Args:
        node: keys of the run's data, and those typed instead.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: as where a run opens its source.
    """
    source = SourceOptions(**{name: node[name] for name in OPENING}).open(node["source"], node["split"])
    settings = (node["seq_len"], node["isolate_documents"], node["mask_fraction"], encoder.masked)
    framing = make_row_builder(encoder.tokenizer, *settings, stride=None, seed=0)
    words, end_id = WordCache(encoder.tokenizer), end_of(encoder.tokenizer)
    stream = TokenStream(source, words, end_id, 0, node["max_valid_examples"])
    chunks: Any = stream(0, DocumentCursor())
    return EvalData(PackedEvalBatches(chunks, framing, node["eval_batch_size"]), f"text of {source.name}")


def row_batches(encoder: PassengerEncoder, node: dict[str, Any]) -> EvalData:
    """The labelled rows of the CSV file `node["source"]`, or with "test" the 418 real test rows."""
    rows = load_evaluation_rows(node["source"])
    batches = EvalLoader(len(rows), node["eval_batch_size"], lambda _, at: encoder.encode_rows([rows[i] for i in at]))
    return EvalData(batches, f"{len(rows)} rows of {node['source']}")
