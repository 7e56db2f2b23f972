"""Batches of packed rows: the tokens of documents one after another, in rows of one length.

Rows may be shuffled; masks keep documents apart, hide tokens, and say which tokens are targets.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Annotated, NamedTuple, Protocol, TypedDict

import numpy as np

from mlxlab.constraints import Count, Ge, Le, Size
from mlxlab.data.batch import NO_CURRICULUM, Batch, check_ids, load_position
from mlxlab.data.rng import Stream, permutation, uniform
from mlxlab.data.text.token_stream import EPOCH_START, DocumentCursor, TokenChunk, TokenChunks
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.data.vocabulary.remapping import Remapping, VocabularySwitch
from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.errors import ConfigError, DataError


class TextCursor(TypedDict):
    """Position of the next row, as JSON: where its buffer of rows starts in the text, and the rows drawn from it."""

    epoch: Count
    row: Count  # number in the epoch of the first row of the buffer
    rows_drawn: Count  # rows of the buffer that were drawn
    start: DocumentCursor  # the document of the first token of the buffer
    offset: Count  # index of that token in its document
    fingerprint: str  # of the data


def epoch_start(epoch: int, fingerprint: str = "") -> TextCursor:
    return TextCursor(
        epoch=epoch, row=0, rows_drawn=0, start=EPOCH_START, offset=0, fingerprint=fingerprint
    )


def next_epoch(cursor: TextCursor) -> TextCursor:
    """The start of the epoch after that of `cursor`."""
    return epoch_start(cursor["epoch"] + 1, cursor["fingerprint"])


class PackedRows(NamedTuple):
    """R rows of W tokens; only the last row of an epoch may be short, and is padded on the right."""

    tokens: np.ndarray  # (R, W) int32
    sizes: np.ndarray  # (R,) int64: tokens without padding
    documents: (
        np.ndarray
    )  # (R, W) int64: equal for tokens of one document; (R, 0) unless `number_documents`
    ids: np.ndarray  # (R,) int64: of the document of the first token
    numbers: np.ndarray  # (R,) int64: the number of each row in the epoch
    is_target: np.ndarray  # (R, W) bool; (R, 0) where every token is a target

    def select(self, index: slice | np.ndarray) -> "PackedRows":
        return PackedRows(*(array[index] for array in self))

    def padded(self, num_rows: int, pad_id: int) -> "PackedRows":
        """With empty rows up to `num_rows`, of id -1."""
        missing = num_rows - len(self.sizes)
        values = (pad_id, 0, 0, -1, 0, False)
        added = (
            np.full((missing, *old.shape[1:]), value, old.dtype)
            for old, value in zip(self, values, strict=True)
        )
        return PackedRows(*map(np.concatenate, zip(self, added, strict=True))) if missing else self


@dataclass(frozen=True)
class RowLayout:
    """Row n is tokens n * stride to n * stride + width, the last token of which may only be a target."""

    length: int  # positions of a row
    stride: (
        int  # tokens from the start of a row to the start of the next; below `length` rows overlap
    )
    target_shift: int  # 1 where a row has one token more, the target of its last position; else 0
    pad_id: int  # pads the last row
    number_documents: bool = False  # tell which tokens belong to the same document

    @property
    def width(self) -> int:
        return self.length + self.target_shift

    @property
    def min_lookahead(self) -> int:
        """Tokens that must be left for another row: enough for one target that no earlier row has."""
        return max(self.width - self.stride, self.target_shift) + 1

    def count_rows(self, tokens: int) -> int:
        """Rows that `tokens` tokens make: the full ones, and a short one if anything is left."""
        if tokens <= self.target_shift:
            return 0
        full = max(0, (tokens - self.width) // self.stride + 1)
        return full + (
            tokens - full * self.stride >= (self.min_lookahead if full else self.target_shift + 1)
        )


class RowSource(Protocol):
    """Rows of an epoch in the order of the text."""

    @property
    def more(self) -> bool:
        """True if rows are left in the epoch."""

    @property
    def cursor(self) -> TextCursor:
        """The position of the next row; at the end that of the next epoch."""

    def take(self, max_rows: int) -> PackedRows:
        """Up to `max_rows` rows; fewer only at the end of the epoch."""


class PackerClass(Protocol):
    """A class whose instances pack the tokens of `chunks`, which begin at `cursor`, into rows."""

    def __call__(
        self, chunks: Iterator[TokenChunk], cursor: TextCursor, layout: RowLayout
    ) -> RowSource: ...

    def num_rows(self, chunks: Sequence[TokenChunk], layout: RowLayout) -> int:
        """Rows that an instance makes of the chunks of an epoch."""


class Packer:
    """Packs the tokens of `chunks`, which begin at `cursor`, into rows in the order of the text."""

    def __init__(self, chunks: Iterator[TokenChunk], cursor: TextCursor, layout: RowLayout) -> None:
        self.chunks, self.first, self.row, self.layout = chunks, cursor, cursor["row"], layout
        self.tokens = np.zeros(0, np.int32)
        self.starts = np.zeros(0, np.int64)  # of each document, counted from the first token held
        self.ids = np.zeros(0, np.int64)
        self.cursors: list[DocumentCursor] = []
        self._to_drop = cursor["offset"]  # tokens to skip that are not read yet

    @staticmethod
    def num_rows(chunks: Sequence[TokenChunk], layout: RowLayout) -> int:
        return layout.count_rows(sum(len(chunk.tokens) for chunk in chunks))

    def take(self, max_rows: int) -> PackedRows:
        """Up to `max_rows` rows; fewer only at the end of the epoch."""
        layout = self.layout
        while len(self.tokens) < max_rows * layout.stride + layout.min_lookahead:
            chunk = next(self.chunks, None)
            if chunk is None:
                break
            self.starts = np.concatenate(
                [self.starts, len(self.tokens) + np.cumsum(chunk.lengths) - chunk.lengths]
            )
            self.tokens = np.concatenate([self.tokens, chunk.tokens])
            self.ids = np.concatenate([self.ids, chunk.ids])
            self.cursors += chunk.cursors
            self._drop(self._to_drop)
        numbers = np.arange(min(max_rows, layout.count_rows(len(self.tokens))))
        begins = numbers * layout.stride
        indices = begins[:, None] + np.arange(layout.width)  # (R, W)
        tokens = self.tokens[np.minimum(indices, len(self.tokens) - 1)]
        tokens[indices >= len(self.tokens)] = layout.pad_id
        sizes = np.minimum(len(self.tokens) - begins, layout.width)
        documents = np.searchsorted(
            self.starts, indices if layout.number_documents else indices[:, :0], side="right"
        )
        ids = self.ids[np.searchsorted(self.starts, begins, side="right") - 1]
        rows = PackedRows(
            tokens, sizes, documents, ids, self.row + numbers, np.zeros((len(numbers), 0), bool)
        )
        self.row += len(numbers)
        self._drop(len(numbers) * layout.stride)
        return rows

    @property
    def more(self) -> bool:
        """True if the tokens that are held make another row."""
        return len(self.tokens) >= self.layout.min_lookahead

    @property
    def cursor(self) -> TextCursor:
        """The position of the first token held; at the end that of the next epoch."""
        if not self.more:
            return next_epoch(self.first)
        offset = -int(self.starts[0])
        return {
            **self.first,
            "row": self.row,
            "rows_drawn": 0,
            "start": self.cursors[0],
            "offset": offset,
        }

    def _drop(self, count: int) -> None:
        """Forgets `count` tokens, and the documents before them; the last document stays, as the position needs it."""
        dropped = min(count, len(self.tokens))
        self._to_drop = count - dropped
        self.tokens, self.starts = self.tokens[dropped:], self.starts - dropped
        used = max(int(np.searchsorted(self.starts, 0, side="right")) - 1, 0)
        self.starts, self.ids = self.starts[used:], self.ids[used:]
        del self.cursors[:used]


class RowShuffleBuffer:
    """The rows of a packer, shuffled to decorrelate consecutive rows of long documents.

    A buffer of `size` rows is taken from the text and permuted by (seed, epoch, first row). A position is that of the
    buffer in the text and the number of rows drawn from it: seeking makes that one buffer again.
    """

    def __init__(self, packer: RowSource, size: int, seed: int, cursor: TextCursor) -> None:
        self.packer, self.size, self.seed = packer, size, seed
        self._fill(cursor)
        self.drawn = cursor["rows_drawn"]

    def take(self, max_rows: int) -> PackedRows:
        """Up to `max_rows` rows; fewer only at the end of the epoch."""
        pieces = [self.rows.select(slice(0))]
        while max_rows > 0 and self.more:
            if self.drawn >= len(self.rows.sizes):
                self._fill(self.packer.cursor)
            pieces.append(self.rows.select(slice(self.drawn, self.drawn + max_rows)))
            self.drawn += len(pieces[-1].sizes)
            max_rows -= len(pieces[-1].sizes)
        return PackedRows(*map(np.concatenate, zip(*pieces, strict=True)))

    @property
    def more(self) -> bool:
        """True if rows are left in the epoch."""
        return self.drawn < len(self.rows.sizes) or self.packer.more

    @property
    def cursor(self) -> TextCursor:
        """The position of the next row; at the end that of the next epoch."""
        return (
            {**self.start, "rows_drawn": self.drawn}
            if self.drawn < len(self.rows.sizes)
            else self.packer.cursor
        )

    def _fill(self, start: TextCursor) -> None:
        rows = self.packer.take(self.size)
        order = permutation(
            len(rows.sizes), self.seed, Stream.ROW_SHUFFLE, start["epoch"], start["row"]
        )
        self.start, self.rows, self.drawn = start, rows.select(order), 0


class RowOrder(Protocol):
    """The order in which the rows of an epoch are served; its positions hold all that it depends on."""

    def first(self, fingerprint: str) -> TextCursor:
        """The position of the first row of a run."""

    def load(self, state: Mapping[str, object], fingerprint: str) -> TextCursor:
        """A saved position; DataError if it is malformed or of other data."""

    def open(self, packer: RowSource, cursor: TextCursor) -> RowSource:
        """The rows of `packer`, which begins at `cursor`, in this order from `cursor` on."""

    def set_alpha(self, cursor: TextCursor, alpha: float) -> TextCursor:
        """`cursor` with another alpha of the curriculum; ConfigError where there is none."""

    def metrics(self) -> dict[str, float]:
        """Of the tokens served since the start of the run; empty where they are not measured."""


@dataclass(frozen=True)
class RandomRows:
    """The order of the text, in which every `size` rows are permuted by `seed`; 0 permutes none."""

    size: int = 0
    seed: int = 0

    def first(self, fingerprint: str) -> TextCursor:
        return epoch_start(0, fingerprint)

    def load(self, state: Mapping[str, object], fingerprint: str) -> TextCursor:
        return load_position(state, TextCursor, fingerprint)

    def open(self, packer: RowSource, cursor: TextCursor) -> RowSource:
        return RowShuffleBuffer(packer, self.size, self.seed, cursor) if self.size else packer

    def set_alpha(self, cursor: TextCursor, alpha: float) -> TextCursor:
        raise ConfigError(NO_CURRICULUM)

    def metrics(self) -> dict[str, float]:
        return {}


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
