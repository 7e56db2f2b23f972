"""Counts of the first conversations of a source: lengths, and rows of an epoch."""

from itertools import chain, islice
from typing import NamedTuple, NoReturn

import numpy as np

from mlxlab.data.chat.masks import ConversationEncoder
from mlxlab.data.row_lengths import QUANTILE, RowLengths, round_up
from mlxlab.data.text.batches import RowLayout
from mlxlab.data.text.token_stream import EPOCH_START, TokenStream
from mlxlab.errors import DataError

MAX_MEASURED = 4096  # conversations that are encoded before training
ACTIONS = {"drop": "dropped", "left": "truncated to their end", "right": "truncated to their start"}


class Statistics(NamedTuple):
    """Counts of the conversations that were measured."""

    lengths: RowLengths
    used: int  # with an answer among their tokens
    rows_per_epoch: float | None  # exact if all conversations of an epoch were measured


def measure(stream: TokenStream, encoder: ConversationEncoder, layout: RowLayout) -> Statistics:
    """Counts up to `MAX_MEASURED` conversations of the first epoch.

    Raises DataError if none of them can be used.
    """
    windows = stream.windows(0, EPOCH_START)
    documents = chain.from_iterable(documents for _, documents in windows)
    sizes = np.array(
        [
            (len(document.text.encode()), encoded.full_length, len(encoded.tokens))
            for document, encoded in encoder.encode(islice(documents, MAX_MEASURED))
        ]
    )
    full = sizes[sizes[:, 1] > 0, 1]
    used = sizes[sizes[:, 2] > 0, 2]
    if not len(used):
        _refuse(full, layout.length, stream.source.name)

    is_complete = len(sizes) < MAX_MEASURED
    sample = "" if is_complete else "; only the first of them were measured"
    lengths = RowLengths(
        layout.length,
        len(full),
        int(np.count_nonzero(full > layout.length)),
        round_up(float(np.quantile(full, QUANTILE, method="higher"))),
        f"{ACTIONS[encoder.truncation]} (data.truncation={encoder.truncation}{sample})",
    )
    begins, _ = layout.split(np.cumsum(used))
    repetitions: float | None = 1.0
    if not is_complete:
        repetitions = stream.repetitions(MAX_MEASURED, int(sizes[:, 0].sum()))
    rows = None if repetitions is None else len(begins) * max(1.0, repetitions)
    return Statistics(lengths, len(used), rows)


def _refuse(lengths: np.ndarray, seq_len: int, name: str) -> NoReturn:
    longest = lengths.max(initial=0)
    if longest <= seq_len:
        raise DataError(f"{name}: the chat template writes no answers")
    size = f"the longest of {len(lengths)} conversations has {longest} tokens"
    raise DataError(f"{name}: no answer fits in data.seq_len={seq_len}: {size}")
