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
    num_bytes = 0
    num_read = 0
    full: list[int] = []
    used: list[int] = []
    windows = stream.windows(0, EPOCH_START)
    documents = chain.from_iterable(documents for _, documents in windows)
    for document, encoded in encoder.encode(islice(documents, MAX_MEASURED)):
        num_read += 1
        num_bytes += len(document.text.encode())
        if encoded.full_length:
            full.append(encoded.full_length)
        if len(encoded.tokens):
            used.append(len(encoded.tokens))
    if not used:
        _refuse(full, layout.length, stream.source.name)

    is_complete = num_read < MAX_MEASURED
    sample = "" if is_complete else "; only the first of them were measured"
    lengths = RowLengths(
        layout.length,
        len(full),
        sum(length > layout.length for length in full),
        round_up(float(np.quantile(full, QUANTILE, method="higher"))),
        f"{ACTIONS[encoder.truncation]} (data.truncation={encoder.truncation}{sample})",
    )
    begins, _ = layout.split(np.cumsum(used))
    repetitions: float | None = 1.0
    if not is_complete:
        repetitions = stream.repetitions(MAX_MEASURED, num_bytes)
    rows = None if repetitions is None else len(begins) * max(1.0, repetitions)
    return Statistics(lengths, len(used), rows)


def _refuse(lengths: list[int], seq_len: int, name: str) -> NoReturn:
    longest = max(lengths, default=0)
    if longest <= seq_len:
        raise DataError(f"{name}: the chat template writes no answers")
    size = f"the longest of {len(lengths)} conversations has {longest} tokens"
    raise DataError(f"{name}: no answer fits in data.seq_len={seq_len}: {size}")
