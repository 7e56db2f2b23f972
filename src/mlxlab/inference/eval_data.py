"""What a trained model is judged on when the user names it: other text, or other rows."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from mlxlab.data.batch import Batch
from mlxlab.data.loaders.loader import Once
from mlxlab.data.text.corpus import Opening
from mlxlab.data.text.dataset import end_of, new_framing
from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.text.packed_batches import PackedEvaluation
from mlxlab.data.text.token_stream import Place, TokenStream
from mlxlab.data.titanic.csv_schema import read_passengers
from mlxlab.data.titanic.encoder import RowEncoder
from mlxlab.data.tokenizers.word_cache import WordCache

OPENING = ("config", "revision", "text_column", "documents", "on_error", "window")


class Judged(NamedTuple):
    """Batches to be iterated once, and what they are, in words."""

    batches: Iterable[Batch]
    line: str


def text_batches(encoder: TextEncoder, node: dict[str, Any]) -> Judged:
    """All documents of `node["source"]`, or `max_valid_examples` of them, as rows that share no target.

    Args:
        node: keys of the run's data, and those typed instead.

    Raises:
        InputMissing, DataFault, ServiceMissing: as where a run opens its source.
    """
    source = Opening(**{name: node[name] for name in OPENING}).open(node["source"], node["split"])
    settings = (node["seq_len"], node["isolate_documents"], node["mask_fraction"], encoder.masked)
    framing = new_framing(encoder.tokenizer, *settings, stride=None, seed=0)
    words, end_id = WordCache(encoder.tokenizer), end_of(encoder.tokenizer)
    stream = TokenStream(source, words, end_id, 0, node["max_valid_examples"])
    chunks: Any = stream(0, Place())
    return Judged(PackedEvaluation(chunks, framing, node["eval_batch_size"]), f"text of {source.name}")


def row_batches(encoder: RowEncoder, node: dict[str, Any]) -> Judged:
    """The labelled rows of the CSV file `node["source"]`."""
    rows = read_passengers(node["source"], labelled=True)
    batches = Once(len(rows), node["eval_batch_size"], lambda _, at: encoder.encode_rows([rows[i] for i in at]))
    return Judged(batches, f"{len(rows)} rows of {node['source']}")
