"""Batches of packed rows: the tokens of documents one after another, in rows of one length.

Rows may be shuffled; masks keep documents apart, hide tokens, and say which tokens are targets.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import log
from typing import Annotated, NamedTuple, Protocol, TypedDict

import numpy as np

from mlxlab.constraints import Count, Ge, Le, Size
from mlxlab.data.batch import NO_CURRICULUM, Batch, check_ids, check_position, load_position
from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.masking import Masker
from mlxlab.data.text.token_stream import EPOCH_START, DocumentCursor, TokenChunk, TokenStream
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.data.vocabulary.vocabulary_map import (
    IS_CORE,
    RARE_COST,
    TARGET_BYTES,
    VocabularyMap,
)
from mlxlab.errors import ConfigError, DataError


class TextCursor(TypedDict):
    """The position of the next row, as JSON: its buffer of rows, and the rows drawn from that."""

    epoch: Count
    row: Count  # number in the epoch of the first row of the buffer
    rows_drawn: Count  # rows of the buffer that were drawn
    start: DocumentCursor  # the document of the first token of the buffer
    offset: Count  # index of that token in its document
    fingerprint: str  # identifies the data


def epoch_start(epoch: int, fingerprint: str = "") -> TextCursor:
    return TextCursor(
        epoch=epoch, row=0, rows_drawn=0, start=EPOCH_START, offset=0, fingerprint=fingerprint
    )


class PackedRows(NamedTuple):
    """R rows of W tokens, padded on the right."""

    tokens: np.ndarray  # (R, W) int32
    sizes: np.ndarray  # (R,) int64: tokens without padding
    documents: np.ndarray  # (R, W) int64: equal in a document; (R, 0) unless `number_documents`
    ids: np.ndarray  # (R,) int64: of the document of the first token
    numbers: np.ndarray  # (R,) int64: the number of each row in the epoch
    is_target: np.ndarray  # (R, W) bool

    def select(self, index: slice | np.ndarray) -> "PackedRows":
        return PackedRows(*(array[index] for array in self))

    def padded(self, num_rows: int, pad_id: int) -> "PackedRows":
        """Adds empty rows of id -1 up to `num_rows`."""
        missing = ((0, num_rows - len(self.sizes)), (0, 0))

        def pad(array: np.ndarray, value: int) -> np.ndarray:
            return np.pad(array, missing[: array.ndim], constant_values=value)

        return PackedRows(*map(pad, self, (pad_id, 0, 0, -1, 0, 0)))


@dataclass(frozen=True)
class RowLayout:
    """How tokens become rows.

    Row n is tokens n * stride to n * stride + width, the last of which may only be a target. A row
    of whole documents has as many as fit; one of them if they are not numbered.
    """

    length: int  # positions of a row
    stride: int  # tokens between the starts of two rows; below `length` rows overlap
    target_shift: int  # 1 where a row has one token more, the target of its last position; else 0
    pad_id: int
    number_documents: bool = False  # tell which tokens belong to the same document
    whole_documents: bool = False  # `stride` is not used

    @property
    def width(self) -> int:
        return self.length + self.target_shift

    def without_overlap(self) -> "RowLayout":
        """The layout of evaluation rows, which share no target."""
        return replace(self, stride=self.length)

    def count_rows(self, tokens: int) -> int:
        """Rows that `tokens` tokens make: the full ones, and a short one with a target of its own."""
        if tokens <= self.target_shift:
            return 0
        full = max(0, (tokens - self.width) // self.stride + 1)
        overlap = max(self.width - self.stride, self.target_shift) if full else self.target_shift
        has_short_row = tokens - full * self.stride > overlap
        return full + has_short_row

    def split(self, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The index of the first token of each row, and its size.

        Args:
            ends: (D,) of the documents, counted from the first token.
        """
        total = int(ends[-1]) if len(ends) else 0
        if self.whole_documents:
            begins = self._pack_whole(ends.tolist())
            return begins, np.diff(begins, append=total)
        begins = np.arange(self.count_rows(total)) * self.stride
        return begins, np.minimum(total - begins, self.width)

    def _pack_whole(self, ends: list[int]) -> np.ndarray:
        begins: list[int] = []
        begin = 0
        row_end = 0
        for end in ends:
            if end > row_end or not self.number_documents:
                begins.append(begin)
                row_end = begin + self.length
            begin = end
        return np.array(begins, np.int64)


class RowSource(Protocol):
    """Rows of an epoch."""

    @property
    def more(self) -> bool:
        """True if rows are left in the epoch after those that were taken."""

    @property
    def cursor(self) -> TextCursor:
        """The position of the next row; at the end that of the next epoch."""

    def take(self, max_rows: int) -> PackedRows:
        """Up to `max_rows` rows; fewer only at the end of the epoch."""


class Packer:
    """Packs tokens into rows in the order of the text. Implements `RowSource`.

    Args:
        chunks: of the documents from the one on that `cursor` names.
    """

    def __init__(self, chunks: Iterator[TokenChunk], cursor: TextCursor, layout: RowLayout) -> None:
        self.chunks = chunks
        self.first = cursor
        self.row = cursor["row"]
        self.layout = layout
        self._hold(NO_TOKENS, cursor["offset"])

    @property
    def more(self) -> bool:
        return len(self.begins) > 0

    @property
    def cursor(self) -> TextCursor:
        if not self.more:
            return epoch_start(self.first["epoch"] + 1, self.first["fingerprint"])
        start = self.held.cursors[0]
        return {**self.first, "row": self.row, "rows_drawn": 0, "start": start, "offset": self.used}

    def take(self, max_rows: int) -> PackedRows:
        # Rows before the last one do not depend on tokens that are not read yet.
        while len(self.begins) <= max_rows and (chunk := next(self.chunks, None)):
            held = map(np.concatenate, zip(self.held, chunk, strict=True))
            self._hold(TokenChunk(*held), self.used)
        begins = self.begins[:max_rows]
        sizes = self.sizes[:max_rows]
        columns = np.arange(self.layout.width)
        indices = begins[:, None] + columns  # (R, W)
        numbered = indices if self.layout.number_documents else indices[:, :0]
        is_target = self.held.is_target[self.used :]
        tokens = self.held.tokens[self.used :]
        rows = PackedRows(
            tokens.take(indices, mode="clip"),
            sizes,
            np.searchsorted(self.ends, numbered, side="right"),
            self.held.ids[np.searchsorted(self.ends, begins, side="right")],
            self.row + np.arange(len(begins)),
            is_target.take(indices, mode="clip"),
        )
        rows.tokens[columns >= sizes[:, None]] = self.layout.pad_id
        self.row += len(begins)
        self._drop(int(self.begins[max_rows]) if len(self.begins) > max_rows else len(tokens))
        return rows

    def _hold(self, held: TokenChunk, used: int) -> None:
        """Replaces what is held; `used` tokens of it are in earlier rows."""
        self.held = held
        self.used = used
        self.ends = np.maximum(np.cumsum(held.lengths) - used, 0)  # document ends
        self.begins, self.sizes = self.layout.split(self.ends)

    def _drop(self, count: int) -> None:
        """Forgets the next `count` tokens, and the documents that have no others."""
        used = self.used + count
        gone = int(np.searchsorted(self.ends, count, side="right"))
        dropped = int(self.held.lengths[:gone].sum())
        held = TokenChunk(
            self.held.cursors[gone:],
            self.held.ids[gone:],
            self.held.bytes[gone:],
            self.held.lengths[gone:],
            self.held.tokens[dropped:],
            self.held.is_target[dropped:],
        )
        self._hold(held, used - dropped)


NO_TOKENS = TokenChunk(*(np.zeros(0, kind) for kind in (object, int, int, int, np.int32, bool)))


@dataclass
class RowShuffleBuffer:
    """The rows of a packer, shuffled to decorrelate rows of long documents. Implements `RowSource`.

    A buffer of `size` rows is taken from the text and permuted by (seed, epoch, first row). A
    position is that of the buffer in the text and the number of rows drawn from it: seeking makes
    that one buffer again.
    """

    packer: RowSource
    size: int
    seed: int
    start: TextCursor  # the position of the buffer

    def __post_init__(self) -> None:
        drawn = self.start["rows_drawn"]
        self._fill(self.start)
        self.drawn = drawn

    @property
    def more(self) -> bool:
        return self.drawn < len(self.rows.sizes) or self.packer.more

    @property
    def cursor(self) -> TextCursor:
        if self.drawn < len(self.rows.sizes):
            return {**self.start, "rows_drawn": self.drawn}
        return self.packer.cursor

    def take(self, max_rows: int) -> PackedRows:
        pieces = [self.rows.select(slice(0))]
        while max_rows > 0 and self.more:
            if self.drawn >= len(self.rows.sizes):
                self._fill(self.packer.cursor)
            piece = self.rows.select(slice(self.drawn, self.drawn + max_rows))
            pieces.append(piece)
            self.drawn += len(piece.sizes)
            max_rows -= len(piece.sizes)
        return PackedRows(*map(np.concatenate, zip(*pieces, strict=True)))

    def _fill(self, start: TextCursor) -> None:
        rows = self.packer.take(self.size)
        numbers = (Stream.ROW_SHUFFLE, start["epoch"], start["row"])
        self.start = start
        self.rows = rows.select(permutation(len(rows.sizes), self.seed, *numbers))
        self.drawn = 0


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
        """Metrics of the tokens served since the start of the run; empty where none are measured."""


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


GROWN = "vocabulary_grown"  # key of the position of an iterator


class VocabularySwitch:
    """Switches the ids of batches from a smaller vocabulary to the full one, once it has grown.

    Args:
        mapped: the tokenizer; one without a smaller vocabulary has its own ids all the time.
    """

    def __init__(self, mapped: Tokenizer) -> None:
        self.mapped = mapped
        self.grown = False

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer with the ids of the next batch."""
        return self.mapped.original if self.grown else self.mapped

    @property
    def vocabulary(self) -> VocabularyMap | None:
        """The smaller vocabulary of the next batch; None if its ids are the original ones."""
        return self.tokenizer.vocabulary

    def ids(self, original: np.ndarray) -> np.ndarray:
        """The ids of these original ones: int32, of any shape."""
        return original if self.vocabulary is None else self.vocabulary.forward[original]

    def measures(self, targets: np.ndarray) -> dict[str, np.ndarray]:
        """What an evaluation needs to know of the original targets."""
        vocabulary = self.mapped.vocabulary
        if vocabulary is None:
            return {}
        is_core = vocabulary.is_core[targets]
        choices = 1 if self.grown else vocabulary.num_rare
        rare_cost = np.where(is_core, 0.0, log(choices)).astype(np.float32)
        measures = {IS_CORE: is_core, RARE_COST: rare_cost}
        if len(self._token_bytes):
            measures[TARGET_BYTES] = self._token_bytes[targets]
        return measures

    @cached_property
    def _token_bytes(self) -> np.ndarray:
        """The bytes of each original token; empty where they are unknown."""
        return np.array(self.mapped.token_bytes, np.float32)

    def state_dict(self) -> dict[str, object]:
        return {} if self.mapped.vocabulary is None else {GROWN: self.grown}

    def load_state_dict(self, state: Mapping[str, object]) -> dict[str, object]:
        """Takes its key from the state of an iterator, and returns the others."""
        if self.mapped.vocabulary is None:
            return dict(state)
        self.grown = check_position(state.get(GROWN), bool)
        return {key: value for key, value in state.items() if key != GROWN}

    def match(self, vocab_size: int) -> None:
        """Gives later batches the ids of a model of that many tokens."""
        vocabulary = self.mapped.vocabulary
        self.grown = vocabulary is not None and vocab_size >= vocabulary.vocab_size


class RowBuilder:
    """Makes batches of packed rows of original ids.

    Args:
        switch: says which ids the batches have.
        mlm_probability: of a token to be hidden, which makes it a target; None: each token predicts
            the next.
        seed: of the hidden tokens.
        measured: adds what an evaluation needs to know of a smaller vocabulary.
    """

    def __init__(
        self,
        layout: RowLayout,
        switch: VocabularySwitch,
        mlm_probability: float | None = None,
        seed: int = 0,
        measured: bool = False,
    ) -> None:
        self.layout = layout
        self.switch = switch
        self.measured = measured
        self.maskers: list[Masker] = []  # one for a smaller vocabulary, one after it has grown
        if mlm_probability is not None:
            tokenizers = (switch.mapped, switch.mapped.original)
            self.maskers = [Masker(each, mlm_probability, seed) for each in tokenizers]

    def batch(self, rows: PackedRows, epoch: int) -> Batch:
        """The checked batch of R rows."""
        length = self.layout.length
        is_real = np.arange(length) < (rows.sizes - self.layout.target_shift)[:, None]  # (R, T)
        segment_ids = is_real
        if self.layout.number_documents:  # Attention stays within each.
            documents = rows.documents[:, :length]
            segment_ids = np.where(is_real, documents - documents[:, :1] + 1, 0).astype(np.int32)
        weights = is_real & rows.is_target[:, -length:]

        original = rows.tokens[:, -length:]
        tokens = self.switch.ids(rows.tokens[:, :length])
        targets = np.where(is_real, self.switch.ids(original), 0).astype(np.int32)
        measures = self.switch.measures(original) if self.measured else {}
        if self.maskers:
            masker = self.maskers[self.switch.grown]
            tokens, weights = masker.mask_tokens(tokens, is_real, epoch, rows.numbers)
        batch = Batch(
            np.ascontiguousarray(tokens),
            segment_ids,
            targets,
            weights.astype(np.float32),
            rows.ids,
            measures,
        )
        vocab_size = self.switch.tokenizer.vocab_size
        return check_ids(batch, vocab_size, vocab_size)


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
        pad_id = tokenizer.original.pad_id
        return RowLayout(seq_len, stride, shift, pad_id, self.mask_across_documents)


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
    order: RowOrder = RandomRows()
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

    @property
    def vocabulary(self) -> VocabularyMap | None:
        return self.builder.switch.vocabulary

    def resize(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def order_metrics(self) -> dict[str, float]:
        return self.order.metrics()

    def set_alpha(self, alpha: float) -> None:
        self._cursor = self.order.set_alpha(self._cursor, alpha)

    def match_vocab_size(self, vocab_size: int) -> None:
        self.builder.switch.match(vocab_size)

    def state_dict(self) -> dict[str, object]:
        return {**self._cursor, **self.builder.switch.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        cursor = self.builder.switch.load_state_dict(state)
        self._cursor = self.order.load(cursor, self.fingerprint)

    def __iter__(self) -> Iterator[Batch]:
        cursor = self._cursor
        layout = self.builder.layout
        with closing(self.chunks(cursor["epoch"], cursor["start"])) as chunks:
            source = self.order.open(Packer(chunks, cursor, layout), cursor)
            more = True
            while more:
                rows = source.take(self.batch_size)
                more = source.more
                if not len(rows.sizes):
                    raise DataError(
                        f"epoch {cursor['epoch']}: no text to train on after row {cursor['row']}"
                    )
                if more or not self.at_epoch_start:  # An epoch of one batch has one shape anyway.
                    rows = rows.padded(self.batch_size, layout.pad_id)
                batch = self.builder.batch(rows, cursor["epoch"])
                self._cursor = source.cursor
                yield batch


@dataclass(frozen=True)
class PackedEvalBatches:
    """Batches of the tokens of `chunks`, the same each time if that is a list.

    The last batch may have fewer rows.
    """

    chunks: Iterable[TokenChunk]
    builder: RowBuilder
    batch_size: int

    def __length_hint__(self) -> int:
        """How many there are, 0 if that is unknown."""
        if not isinstance(self.chunks, list):
            return 0
        lengths = np.concatenate([chunk.lengths for chunk in self.chunks])
        begins, _ = self.builder.layout.split(np.cumsum(lengths))
        return -(-len(begins) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        packer = Packer(iter(self.chunks), epoch_start(0), self.builder.layout)
        rows = packer.take(self.batch_size)
        while len(rows.sizes):
            yield self.builder.batch(rows, epoch=0)
            rows = packer.take(self.batch_size)
