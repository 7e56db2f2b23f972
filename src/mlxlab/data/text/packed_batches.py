"""Batches of packed rows, for training and evaluating language models: attention masks, hidden tokens, targets."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Annotated, Protocol

import numpy as np

from mlxlab.constraints import Ge, Le, Size
from mlxlab.data.batch import Batch, check_ids
from mlxlab.data.rng import Stream, uniform
from mlxlab.data.text.packing import (
    PackedRows,
    Packer,
    PackerClass,
    RandomRows,
    RowLayout,
    RowOrder,
    TextCursor,
    epoch_start,
)
from mlxlab.data.text.token_stream import TokenChunk, TokenChunks
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.data.vocabulary.remapping import Remapping, VocabularySwitch
from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.errors import ConfigError, DataError

TEXT_ORDER = RandomRows()
MASK_UP_TO, REPLACE_UP_TO = (
    0.8,
    0.9,
)  # of hidden tokens, 80 % become the mask token, 10 % another one, 10 % stay


class Masker:
    """Hides tokens for masked language modelling (Devlin et al. 2019).

    Draws are a function of (seed, epoch, position): a resumed run hides the same tokens.

    Args:
        tokenizer: raises ConfigError if it has no mask token.
        probability: of a token to be hidden; special ones never are.
    """

    def __init__(self, tokenizer: Tokenizer, probability: float, seed: int) -> None:
        if tokenizer.mask_id is None:
            raise ConfigError(
                "the tokenizer has no mask token, which a masked language model needs"
            )
        self.mask_id, self.probability, self.seed = tokenizer.mask_id, probability, seed
        special = (self.mask_id, tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
        self.is_maskable = ~np.isin(
            np.arange(tokenizer.vocab_size), [token for token in special if token is not None]
        )
        self.maskable = np.flatnonzero(self.is_maskable).astype(np.int32)

    def mask_tokens(
        self, tokens: np.ndarray, real: np.ndarray, epoch: int, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens with some hidden (B, T), and which (B, T) bool; at least one in each row that has a maskable one.

        Args:
            tokens: (B, T) int32.
            real: (B, T) bool, false for padding.
            rows: (B,) the number of each row in its epoch.
        """
        positions = rows[:, None] * tokens.shape[1] + np.arange(tokens.shape[1])
        draws = uniform(self.seed, Stream.MASKED, epoch, positions)
        draws[~(real & self.is_maskable[tokens])] = 1.0  # never hidden
        smallest = draws.min(axis=1, keepdims=True)
        hidden = (draws < self.probability) | ((draws == smallest) & (smallest < 1.0))

        kind = uniform(self.seed, Stream.MASK_KIND, epoch, positions[hidden])
        choice = uniform(self.seed, Stream.MASK_REPLACEMENT, epoch, positions[hidden])
        replacement = self.maskable[(choice * len(self.maskable)).astype(np.int64)]
        unmasked = np.where(kind < REPLACE_UP_TO, replacement, tokens[hidden])
        masked = tokens.copy()
        masked[hidden] = np.where(kind < MASK_UP_TO, self.mask_id, unmasked)
        return masked, hidden


class BatchBuilder(Protocol):
    """Makes batches of packed rows."""

    @property
    def layout(self) -> RowLayout: ...

    def batch(self, rows: PackedRows, epoch: int) -> Batch:
        """The checked batch of R rows."""


@dataclass(frozen=True)
class RowBuilder:
    """Implements `BatchBuilder`."""

    layout: RowLayout
    vocab_size: int
    masker: Masker | None = (
        None  # hides tokens, which are then the targets; None: each predicts the next token
    )
    remapping: Remapping | None = None  # of the ids of the rows, before any are hidden

    def batch(self, rows: PackedRows, epoch: int) -> Batch:
        """See `BatchBuilder`."""
        length = self.layout.length
        tokens, targets = rows.tokens[:, :length], rows.tokens[:, -length:]
        real = np.arange(length) < (rows.sizes - self.layout.target_shift)[:, None]
        segment_ids = weights = real
        if self.layout.number_documents:  # so that attention stays within each
            documents = rows.documents[:, :length]
            segment_ids = np.where(real, documents - documents[:, :1] + 1, 0).astype(np.int32)
        if rows.is_target.shape[1]:
            weights = real & rows.is_target[:, -length:]
        measures: dict[str, np.ndarray] = {}
        if self.remapping:
            measures = self.remapping.measures(targets)
            tokens, targets = self.remapping.ids(tokens), self.remapping.ids(targets)
        if self.masker:
            tokens, weights = self.masker.mask_tokens(tokens, real, epoch, rows.numbers)
        targets = np.where(real, targets, 0).astype(np.int32)
        weights = weights.astype(np.float32)
        batch = Batch(
            np.ascontiguousarray(tokens), segment_ids, targets, weights, rows.ids, measures
        )
        return check_ids(batch, self.vocab_size, self.vocab_size)


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

    def row_builder(
        self, tokenizer: Tokenizer, seq_len: int, masked: bool, seed: int
    ) -> RowBuilder:
        """Rows of original ids, with the masks and the ids of `tokenizer`.

        Raises ConfigError if the model is masked and the tokenizer has no mask token.
        """
        shape = (seq_len, self.stride or seq_len, 0 if masked else 1)
        layout = RowLayout(*shape, tokenizer.original.pad_id, self.mask_across_documents)
        masker = Masker(tokenizer, self.mlm_probability, seed) if masked else None
        return RowBuilder(layout, tokenizer.vocab_size, masker)

    def eval_row_builder(self, tokenizer: Tokenizer, seq_len: int, masked: bool) -> RowBuilder:
        """Rows that share no target, with the same hidden tokens for every seed."""
        return replace(self, stride=None).row_builder(tokenizer, seq_len, masked, seed=0)


@dataclass
class PackedBatchIterator:
    """Batches of one shape, an epoch per iteration; a short last one, if not the only one, gets rows of weight 0.

    The position is counted in documents and tokens, so it fits any batch size. Implements `BatchIterator`.
    """

    chunks: TokenChunks
    builder: BatchBuilder
    batch_size: int  # rows, of all processes together
    fingerprint: str
    batches_per_epoch: int | None  # where known or estimated
    order: RowOrder = TEXT_ORDER
    packer: PackerClass = Packer
    switch: VocabularySwitch | None = None  # which ids `builder` gives
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

    @property
    def vocabulary(self) -> VocabularyMap | None:
        return None if self.switch is None or self.switch.grown else self.switch.vocabulary

    def match_vocab_size(self, vocab_size: int) -> None:
        if self.switch is not None:
            self.switch.match(vocab_size)

    def state_dict(self) -> dict[str, object]:
        return (
            {**self._cursor}
            if self.switch is None
            else {**self._cursor, **self.switch.state_dict()}
        )

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        cursor = state if self.switch is None else self.switch.load_state_dict(state)
        self._cursor = self.order.load(cursor, self.fingerprint)

    def __iter__(self) -> Iterator[Batch]:
        cursor, layout = self._cursor, self.builder.layout
        with closing(self.chunks(cursor["epoch"], cursor["start"])) as chunks:
            source, more = self.order.open(self.packer(chunks, cursor, layout), cursor), True
            while more:
                rows, more = source.take(self.batch_size), source.more
                if not len(rows.sizes):
                    raise DataError(
                        f"epoch {cursor['epoch']}: no text to train on after row {cursor['row']}"
                    )
                if more or not self.at_epoch_start:  # an epoch of one batch has one shape anyway
                    rows = rows.padded(self.batch_size, layout.pad_id)
                batch = self.builder.batch(rows, cursor["epoch"])
                self._cursor = source.cursor
                yield batch


@dataclass(frozen=True)
class PackedEvalBatches:
    """Batches of the tokens of `chunks`, the same each time if that is a list. The last may have fewer rows."""

    chunks: Iterable[TokenChunk]
    builder: BatchBuilder
    batch_size: int
    packer: PackerClass = Packer

    def __length_hint__(self) -> int:
        """How many there are, 0 if that is unknown."""
        rows = (
            self.packer.num_rows(self.chunks, self.builder.layout)
            if isinstance(self.chunks, list)
            else 0
        )
        return -(-rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        packer = self.packer(iter(self.chunks), epoch_start(0), self.builder.layout)
        while len((rows := packer.take(self.batch_size)).sizes):
            yield self.builder.batch(rows, epoch=0)
