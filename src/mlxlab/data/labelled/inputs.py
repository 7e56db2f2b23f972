"""What a model reads of labelled rows: the tokens of their texts, or their cells as numbers."""

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from mlxlab.data.cache import HEADER_BYTES, cached, content_key
from mlxlab.data.dataset import (
    AUTO_EPOCHS,
    MAX_AUTO_EPOCHS,
    MAX_MEASURED,
    MIN_STEPS,
    NO_LIMIT,
    RowLengths,
    Table,
    fitting_length,
    measure_lengths,
)
from mlxlab.data.labelled.encoder import (
    LabelledEncoder,
    Renderer,
    TypedEncoder,
    render_sequences,
)
from mlxlab.data.labelled.options import BatchOptions
from mlxlab.data.labelled.row_split import SplitRows
from mlxlab.data.tokenizers.fit import Corpus, FittedTokenizer
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import DataError

FORMAT = 1  # version of the order of examples and the form of texts; it is part of the fingerprint


@dataclass(frozen=True)
class Run:
    """What a data set learns of the run it is built for, see `DataModule`."""

    cache: Path
    parameters: int
    width: int
    pretrained: Path | None
    positions: int | None = None  # tokens that the model has positions for


class Inputs(Protocol):
    """What a model reads of all rows, which are numbered by position: those for training, validation and a test.

    A row has one or several sequences, `position * num_variants + variant`, of which one is shown.
    """

    key: str  # changes with any sequence
    encoder: Any  # a `TypedEncoder`
    tokenizer: Tokenizer
    num_variants: int = 1
    lengths: np.ndarray  # tokens of every sequence
    row_lengths: RowLengths | None = None  # known where the rows are texts
    folds: np.ndarray | None = None  # the fold of each row, where the model has inner folds
    lines: Sequence[str] = ()  # what the log says of the data
    model_columns: Sequence[Mapping[str, Any]] | None = None  # the key `model.columns`
    batch_size: int
    eval_batch_size: int = 64
    epoch_limits: tuple[int, int]  # least and most epochs of `trainer.epochs=auto`
    min_steps: int

    def sequences(self, epoch: int, positions: np.ndarray, copies: int | np.ndarray) -> np.ndarray:
        """The sequence by which each of these rows is shown; copy 0 of epoch 0 is that of an evaluation."""

    def take(self, sequences: np.ndarray) -> Any:
        """What the encoder collates of these sequences."""


ReadCells = Callable[[SplitRows, int, Path], Inputs]  # (rows, seed, folder of the cache)


class TextInputs(Inputs):
    """Tokens of the texts of rows, read from a mapped file.

    Args:
        renderer: fitted on the training rows.
    """

    batch_size = 32
    epoch_limits = (AUTO_EPOCHS, MAX_AUTO_EPOCHS)
    min_steps = MIN_STEPS

    def __init__(
        self, split: SplitRows, renderer: Renderer, options: BatchOptions, run: Run
    ) -> None:
        self._split = split
        self._renderer = renderer
        self._columns = list(renderer.types)
        self.num_variants = renderer.num_variants

        content = {**split.content, "renderer": renderer.state_dict()}
        fitted = self._fit_tokenizer(content_key(**content), options, run)
        self.tokenizer = fitted.tokenizer
        self.encoder = LabelledEncoder(
            renderer, split.labels, split.column.name, self.tokenizer, NO_LIMIT
        )
        seq_len = options["seq_len"] or self._fitting_length(run.positions)
        self.encoder = replace(self.encoder, seq_len=seq_len)

        self.key = content_key(
            format=FORMAT, seq_len=seq_len, tokenizer=self.tokenizer.fingerprint, **content
        )
        self._tokens = TokenCache(
            run.cache / f"tokens-{self.key}",
            len(split.numbers) * self.num_variants,
            self._tokenize,
            self.tokenizer.vocab_size,
            seq_len,
        )
        self.lengths = self._tokens.lengths
        self.row_lengths = measure_lengths(self.lengths, seq_len, self._full_lengths)
        total = f"{self.lengths.sum():,} tokens (vocabulary: {self.tokenizer.vocab_size:,})"
        cache = f"cache: {self._tokens.outcome}"
        self.lines = [*fitted.lines, f"{total}, at most {self.lengths.max()} a row; {cache}"]

    def sequences(self, epoch: int, positions: np.ndarray, copies: int | np.ndarray) -> np.ndarray:
        """Implements `Inputs`."""
        variants = self._renderer.choose(self._split.position_ids[positions], epoch, copies)
        return positions * self.num_variants + variants

    def take(self, sequences: np.ndarray) -> Any:
        """Implements `Inputs`."""
        return self._tokens.take(sequences)

    def training_texts(self) -> Iterator[str]:
        """Every text of every training row, on which the tokenizer is trained."""
        split = self._split
        for table in split.rows.blocks(self._columns, split.train):
            yield from (text for texts in self._renderer.render_all(table) for text in texts)

    def _fit_tokenizer(self, key: str, options: BatchOptions, run: Run) -> FittedTokenizer:
        num_train = len(self._split.train)
        corpus = Corpus(
            self.training_texts(),
            key,
            run.cache,
            run.parameters,
            run.width,
            round(self._split.rows.mean_bytes(self._columns) * num_train),
            run.pretrained,
        )
        return options["tokenizer"].fit(corpus)

    def _cells(self, positions: np.ndarray) -> Table:
        return self._split.rows.table(self._columns, self._split.numbers[positions])

    def _tokenize(self, sequences: np.ndarray) -> list[np.ndarray]:
        return self.encoder.tokenize(render_sequences(self._renderer, self._cells, sequences))

    def _fitting_length(self, positions: int | None) -> int:
        num_sequences = len(self._split.train) * self.num_variants
        chosen = np.linspace(0, num_sequences - 1, min(num_sequences, MAX_MEASURED))
        length = fitting_length(self._full_lengths(chosen.astype(np.int64)))
        return min(length, positions or length)

    def _full_lengths(self, sequences: np.ndarray) -> list[int]:
        texts = render_sequences(self._renderer, self._cells, sequences)
        return list(map(len, replace(self.encoder, seq_len=NO_LIMIT).tokenize(texts)))


def same_texts(first: object, second: object) -> bool:
    """Whether two encoders make the same inputs of the same columns; True where that is unknown."""
    if not (isinstance(first, TypedEncoder) and isinstance(second, TypedEncoder)):
        return True
    return first.columns == second.columns and first.rules() == second.rules()


BLOCK = 4096  # rows that are tokenized together

Tokenize = Callable[[np.ndarray], Sequence[np.ndarray]]  # numbers of rows -> int32 tokens of each


class TokenCache:
    """Tokens of rows 0..N-1 by number. The file holds the lengths of all rows, then their tokens.

    Args:
        path: the file; its name must hold the key of the content.
        rows: N.
        tokenize: makes the tokens, at least one a row and at most `max_length`, of a block of rows.
    """

    def __init__(
        self, path: Path, rows: int, tokenize: Tokenize, vocab_size: int, max_length: int
    ) -> None:
        dtype = np.uint16 if vocab_size <= 2**16 else np.int32
        lengths = np.zeros(rows, np.int32)
        first = HEADER_BYTES + lengths.nbytes

        def write(file: BinaryIO) -> None:
            file.seek(first)
            for start in range(0, rows, BLOCK):
                sequences = tokenize(np.arange(start, min(start + BLOCK, rows)))
                lengths[start : start + BLOCK] = list(map(len, sequences))
                file.write(np.concatenate(sequences).astype(dtype).tobytes())
            file.seek(HEADER_BYTES)
            file.write(lengths.tobytes())

        def read(data: mmap.mmap) -> tuple[np.ndarray, np.ndarray]:
            try:
                lengths = np.frombuffer(data, np.int32, rows, HEADER_BYTES)
                tokens = np.frombuffer(data, dtype, offset=first)
            except ValueError:  # The file is too short.
                raise DataError("other rows than these") from None
            if not 0 < lengths.min() <= lengths.max() <= max_length or lengths.sum() != len(tokens):
                raise DataError("other rows than these")
            return lengths, tokens

        (self.lengths, self._tokens), self.outcome = cached(path, write, read)
        self._ends = np.cumsum(self.lengths, dtype=np.int64)

    def take(self, rows: np.ndarray) -> list[np.ndarray]:
        """int32 tokens of each of these rows. Their range is checked with the batch."""
        ends = self._ends[rows]
        starts = ends - self.lengths[rows]
        bounds = zip(starts.tolist(), ends.tolist(), strict=True)
        return [self._tokens[start:end].astype(np.int32) for start, end in bounds]
