"""What the first conversations of a source are like: lengths, answers, how many are too long; batches of an epoch."""

from dataclasses import dataclass
from itertools import islice
from math import ceil

import numpy as np

from mlxlab.data.instruct.encoder import Truncation
from mlxlab.data.instruct.packing import ConversationStream, count_packed_rows
from mlxlab.data.row_lengths import QUANTILE, RowLengths, round_up
from mlxlab.data.text.token_stream import EPOCH_START
from mlxlab.errors import DataError
from mlxlab.wording import counted, percent

MAX_MEASURED = 4096  # conversations that are encoded before training
ACTIONS = {"drop": "dropped", "left": "truncated to their end", "right": "truncated to their start"}


@dataclass(frozen=True)
class Statistics:
    """Counts of the conversations that were measured."""

    conversations: int
    too_long: int  # before truncation
    needed: int  # tokens that hold 95 % of them whole
    used: int  # with tokens that are targets
    tokens: int  # of those
    targets: int
    batches_per_epoch: int | None  # estimated unless `complete`
    complete: bool  # all conversations of an epoch were measured

    def row_lengths(self, seq_len: int, truncation: Truncation) -> RowLengths:
        sample = "" if self.complete else "; only the first of them were measured"
        action = f"{ACTIONS[truncation]} (data.truncation={truncation}{sample})"
        return RowLengths(seq_len, self.conversations, self.too_long, self.needed, action)

    def lines(self, name: str, seq_len: int, truncation: Truncation) -> list[str]:
        """Lines for the log; the last one summarises."""
        which = f"{self.conversations:,}" if self.complete else f"the first {self.conversations:,}"
        lines = []
        if (lengths := self.row_lengths(seq_len, truncation)).too_long and not lengths.are_many:
            lines.append(f"{name}: {lengths.describe()}")
        if (
            without := self.conversations
            - self.used
            - (self.too_long if truncation == "drop" else 0)
        ):
            lines.append(
                f"{name}: {without:,} of {which} conversations have no answer among their tokens: dropped"
            )
        share = self.targets / self.tokens
        count = self.batches_per_epoch
        batches = "" if count is None else f", {counted(count, 'batch', 'batches')} per epoch"
        size = f"{which} conversation{'s' * (self.conversations != 1)}, {counted(self.tokens, 'token')}"
        lines.append(f"{name}: {size}, {percent(share, 0)} of them targets{batches}")
        return lines


def measure(
    stream: ConversationStream, seq_len: int, batch_size: int, *, packed: bool = True
) -> Statistics:
    """Encodes up to `MAX_MEASURED` conversations of the first epoch; DataError if none of them can be used."""
    documents = (
        document for _, _, window in stream.documents.windows(0, EPOCH_START) for document in window
    )
    texts = [document.text for document in islice(documents, MAX_MEASURED)]
    encoded = [stream.encode(text) for text in texts]
    used = [conversation for conversation in encoded if len(conversation.tokens)]
    if not used:
        if any(conversation.full_length <= seq_len for conversation in encoded):
            raise DataError(
                f"{stream.source.name}: the chat template writes no answers: no token is to be learned"
            )
        longest = max((conversation.full_length for conversation in encoded), default=0)
        expected = f"the longest of {counted(len(encoded), 'conversation')} has {longest:,} tokens"
        raise DataError(
            f"{stream.source.name}: no answer fits in data.seq_len={seq_len}: {expected}"
        )
    complete = len(texts) < MAX_MEASURED
    rows = (
        count_packed_rows([len(conversation.tokens) for conversation in used], seq_len)
        if packed
        else len(used)
    )
    repetitions = 1.0 if complete else _repetitions(stream, texts)
    return Statistics(
        conversations=len(texts),
        too_long=sum(conversation.full_length > seq_len for conversation in encoded),
        needed=round_up(
            float(np.quantile([each.full_length for each in encoded], QUANTILE, method="higher"))
        ),
        used=len(used),
        tokens=sum(len(conversation.tokens) for conversation in used),
        targets=sum(int(conversation.is_target.sum()) for conversation in used),
        batches_per_epoch=None
        if repetitions is None
        else max(1, ceil(rows * repetitions / batch_size)),
        complete=complete,
    )


def _repetitions(stream: ConversationStream, texts: list[str]) -> float | None:
    """How many times these texts an epoch has, by number or size; None if neither is known."""
    documents, size = stream.documents, sum(len(text.encode()) for text in texts)
    estimates = [documents.limit / len(texts)] if documents.limit is not None else []
    estimates += [len(documents.chosen) / len(texts)] if documents.chosen is not None else []
    estimates += [stream.source.bytes / size] if stream.source.bytes is not None else []
    return max(1.0, min(estimates)) if estimates else None
