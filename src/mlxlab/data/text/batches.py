"""Batches of packed rows, with masks that keep documents apart, hide tokens and say which are targets."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated

import numpy as np

from mlxlab.data.batch import NO_CURRICULUM, Batch, State, check_ids, load_position, stack
from mlxlab.data.loader import EvalLoader
from mlxlab.data.rng import Stream, uniform
from mlxlab.data.text.packing import (
    EMPTY_ROW,
    Row,
    RowLayout,
    Take,
    TextCursor,
    TokenStream,
    epoch_start,
    pack,
    shuffle_rows,
)
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError, DataError
from mlxlab.schema.constraints import Ge, Le, Size


class RowOrder:
    """The order in which the rows of an epoch are served; its positions hold all that it depends on.

    This one is the order of the text, in which every `size` rows are permuted by `seed`; 0 permutes
    none. Subclasses override all of it.
    """

    def __init__(self, size: int = 0, seed: int = 0) -> None:
        self.size = size
        self.seed = seed

    def first(self, fingerprint: str) -> TextCursor:
        """The position of the first row of a run."""
        return epoch_start(0, fingerprint)

    def load(self, state: Mapping[str, object], fingerprint: str) -> TextCursor:
        """A saved position; DataError if it is malformed or of other data."""
        return load_position(state, TextCursor, fingerprint)

    def open(self, rows: Iterator[Row], cursor: TextCursor) -> Take:
        """Takes the rows of the text, the first of which is at `cursor`, in this order."""
        if self.size:
            rows = shuffle_rows(rows, cursor, self.size, self.seed)

        def take(max_rows: int) -> list[Row]:
            return list(islice(rows, max_rows))

        return take

    def set_alpha(self, cursor: TextCursor, alpha: float) -> TextCursor:
        """`cursor` with another alpha of the curriculum; ConfigError where there is none."""
        raise ConfigError(NO_CURRICULUM)

    def metrics(self) -> dict[str, float]:
        """Metrics of the tokens served since the start of the run; empty where none are measured."""
        return {}


# 80 % of the hidden tokens become the mask token, 10 % another one, 10 % stay.
MASK_UP_TO = 0.8
REPLACE_UP_TO = 0.9


class Masker:
    """Hides tokens for masked language modelling (Devlin et al. 2019).

    Draws are a function of (seed, epoch, position): a resumed run hides the same tokens.

    Args:
        tokenizer: raises ConfigError if it has no mask token.
        probability: of a token to be hidden; special ones never are.
    """

    def __init__(self, tokenizer: Tokenizer, probability: float) -> None:
        if tokenizer.mask_id is None:
            raise ConfigError("the tokenizer has no mask token, which a masked model needs")
        self.mask_id = tokenizer.mask_id
        self.probability = probability
        special = {tokenizer.mask_id, tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}
        tokens = range(tokenizer.vocab_size)
        self.is_maskable = np.array([token not in special for token in tokens])
        self.maskable = np.flatnonzero(self.is_maskable).astype(np.int32)

    def mask_tokens(
        self, tokens: np.ndarray, real: np.ndarray, seed: int, epoch: int, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens with some hidden (B, T), and which (B, T) bool.

        At least one is hidden in each row that has a maskable one.

        Args:
            tokens: (B, T) int32.
            real: (B, T) bool, false for padding.
            rows: (B,) the number of each row in its epoch.
        """
        positions = rows[:, None] * tokens.shape[1] + np.arange(tokens.shape[1])
        draws = uniform(seed, Stream.MASKED, epoch, positions)
        draws[~(real & self.is_maskable[tokens])] = 1.0  # never hidden
        smallest = draws.min(axis=1, keepdims=True)
        is_smallest = (draws == smallest) & (smallest < 1.0)
        hidden = (draws < self.probability) | is_smallest

        kind = uniform(seed, Stream.MASK_KIND, epoch, positions[hidden])
        choice = uniform(seed, Stream.MASK_REPLACEMENT, epoch, positions[hidden])
        replacement = self.maskable[(choice * len(self.maskable)).astype(np.int64)]
        others = np.where(kind < REPLACE_UP_TO, replacement, tokens[hidden])
        masked = tokens.copy()
        masked[hidden] = np.where(kind < MASK_UP_TO, self.mask_id, others)
        return masked, hidden


class RowBuilder:
    """Makes batches of packed rows.

    Args:
        mlm_probability: of a token to be hidden, which makes it a target; None: each token predicts
            the next.
    """

    def __init__(
        self, layout: RowLayout, tokenizer: Tokenizer, mlm_probability: float | None = None
    ) -> None:
        self.layout = layout
        self.vocab_size = tokenizer.vocab_size
        self.masker: Masker | None = None
        if mlm_probability is not None:
            self.masker = Masker(tokenizer, mlm_probability)

    def batch(self, rows: Sequence[Row], epoch: int, seed: int) -> Batch:
        """The checked batch of R rows; `seed` is that of the hidden tokens."""
        length = self.layout.length
        width = self.layout.width
        sizes = np.array([len(row.tokens) for row in rows])
        is_real = np.arange(length) < (sizes - self.layout.target_shift)[:, None]  # (R, T)
        segment_ids = is_real
        if self.layout.number_documents:  # Attention stays within each.
            documents = stack([row.documents for row in rows], width, 0)[:, :length]
            segment_ids = np.where(is_real, documents - documents[:, :1] + 1, 0).astype(np.int32)
        is_target = stack([row.is_target for row in rows], width, 0)
        weights = is_real & is_target[:, -length:]

        packed = stack([row.tokens for row in rows], width, self.layout.pad_id)  # (R, W)
        tokens = packed[:, :length]
        targets = np.where(is_real, packed[:, -length:], 0).astype(np.int32)
        if self.masker is not None:
            numbers = np.array([row.number for row in rows])
            tokens, weights = self.masker.mask_tokens(tokens, is_real, seed, epoch, numbers)
        batch = Batch(
            np.ascontiguousarray(tokens),
            segment_ids,
            targets,
            weights.astype(np.float32),
            np.array([row.id for row in rows], np.int64),
        )
        return check_ids(batch, self.vocab_size, self.vocab_size)

    def evaluation(self, rows: Sequence[Row], batch_size: int) -> EvalLoader:
        """Batches of rows, the same each time; the last one may have fewer rows."""

        def collate(index: np.ndarray) -> Batch:
            return self.batch([rows[n] for n in index], epoch=0, seed=0)

        return EvalLoader(len(rows), batch_size, collate)


@dataclass(frozen=True)
class Packing:
    """Packing of tokens into rows.

    Args:
        stride: tokens from the start of a row to the start of the next; null is `seq_len`, less makes rows overlap.
        mask_across_documents: attention does not cross from one document of a row into another.
        mlm_probability: fraction of the tokens that a masked language model has to predict.
    """

    stride: Size | None
    mask_across_documents: bool
    mlm_probability: Annotated[float, Ge(0.01), Le(0.9)]

    def layout(self, tokenizer: Tokenizer, seq_len: int, masked: bool) -> RowLayout:
        """The layout of training rows."""
        stride = self.stride or seq_len
        shift = 0 if masked else 1
        return RowLayout(seq_len, stride, shift, tokenizer.pad_id, self.mask_across_documents)


@dataclass
class PackedBatchIterator:
    """Batches of one shape, an epoch per iteration. Implements `BatchIterator`.

    A short last batch that is not the only one gets rows of weight 0. The position is counted in
    documents and tokens, so it fits any batch size.
    """

    chunks: TokenStream
    builder: RowBuilder
    batch_size: int  # rows, of all processes together
    fingerprint: str
    batches_per_epoch: int | None  # where known or estimated
    order: RowOrder
    _cursor: TextCursor = field(init=False)

    def __post_init__(self) -> None:
        self._cursor = self.order.first(self.fingerprint)

    @property
    def epoch(self) -> int:
        return self._cursor["epoch"]

    @property
    def at_epoch_start(self) -> bool:
        return self._cursor["row"] == self._cursor["rows_drawn"] == 0

    @property
    def tokens_per_batch(self) -> int:
        return self.batch_size * self.builder.layout.length

    @property
    def skipped_records(self) -> int:
        return self.chunks.source.skipped_records

    def resize(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def order_metrics(self) -> dict[str, float]:
        return self.order.metrics()

    def set_alpha(self, alpha: float) -> None:
        self._cursor = self.order.set_alpha(self._cursor, alpha)

    def state_dict(self) -> State:
        return {**self._cursor}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._cursor = self.order.load(state, self.fingerprint)

    def __iter__(self) -> Iterator[Batch]:
        cursor = self._cursor
        epoch = cursor["epoch"]
        with closing(self.chunks(epoch, cursor["start"])) as chunks:
            take = self.order.open(pack(chunks, cursor, self.builder.layout), cursor)
            while rows := take(self.batch_size):
                after = rows[-1].after
                if not self.at_epoch_start:  # An epoch of one batch has one shape anyway.
                    rows += [EMPTY_ROW] * (self.batch_size - len(rows))
                batch = self.builder.batch(rows, epoch, self.chunks.seed)
                self._cursor = after
                yield batch
        if self._cursor is cursor:
            raise DataError(f"epoch {epoch}: no text to train on after row {cursor['row']}")
