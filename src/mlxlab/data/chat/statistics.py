"""Counts of the first conversations of a source: lengths, and rows of an epoch."""

from itertools import islice
from typing import NamedTuple

import numpy as np

from mlxlab.data.chat.masks import Truncation
from mlxlab.data.chat.packing import ConversationStream, count_rows
from mlxlab.data.row_lengths import QUANTILE, RowLengths, round_up
from mlxlab.data.text.batches import RowLayout
from mlxlab.data.text.token_stream import EPOCH_START
from mlxlab.errors import DataError

MAX_MEASURED = 4096  # conversations that are encoded before training
ACTIONS = {"drop": "dropped", "left": "truncated to their end", "right": "truncated to their start"}


class Statistics(NamedTuple):
    """Counts of the conversations that were measured."""

    lengths: RowLengths
    used: int  # with an answer among their tokens
    rows_per_epoch: float | None  # exact if all conversations of an epoch were measured


def measure(stream: ConversationStream, layout: RowLayout, truncation: Truncation) -> Statistics:
    """Counts up to `MAX_MEASURED` conversations of the first epoch.

    Raises DataError if none of them can be used.
    """
    measured = list(islice(stream.read(0, EPOCH_START), MAX_MEASURED))
    full = [encoded.full_length for _, _, encoded in measured]
    used = [len(encoded.tokens) for _, _, encoded in measured if len(encoded.tokens)]
    if not used:
        limit = f"no answer fits in data.seq_len={layout.length}"
        if min(full, default=0) <= layout.length:
            limit = "the chat template writes no answers"
        longest = f"the longest of {len(full)} conversations has {max(full, default=0)} tokens"
        raise DataError(f"{stream.source.name}: {limit}: no token is to be learned; {longest}")
    is_complete = len(measured) < MAX_MEASURED
    sample = "" if is_complete else "; only the first of them were measured"
    lengths = RowLengths(
        layout.length,
        len(measured),
        sum(length > layout.length for length in full),
        round_up(float(np.quantile(full, QUANTILE, method="higher"))),
        f"{ACTIONS[truncation]} (data.truncation={truncation}{sample})",
    )
    rows = count_rows(used, layout)
    if is_complete:
        return Statistics(lengths, len(used), rows)
    size = sum(len(document.text.encode()) for _, document, _ in measured)
    repetitions = _repetitions(stream, size)
    return Statistics(lengths, len(used), repetitions and rows * repetitions)


def _repetitions(stream: ConversationStream, size: int) -> float | None:
    """How many times the measured conversations, `size` bytes, an epoch has; None if unknown."""
    shuffled = stream.shuffled
    estimates: list[float] = []
    if shuffled.limit is not None:
        estimates.append(shuffled.limit / MAX_MEASURED)
    if shuffled.chosen is not None:
        estimates.append(len(shuffled.chosen) / MAX_MEASURED)
    if stream.source.bytes is not None:
        estimates.append(stream.source.bytes / size)
    return max(1.0, min(estimates)) if estimates else None
