"""Turns packed rows into batches: attention masks, hidden tokens, targets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from mlxlab.constraints import Ge, Le, Size
from mlxlab.data.batch import Batch
from mlxlab.data.loaders.collate import check_ids
from mlxlab.data.text.masking import Masker
from mlxlab.data.text.packing import PackedRows, Packer, TextCursor, count_rows
from mlxlab.data.text.token_stream import TokenChunk
from mlxlab.data.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class RowBuilder:
    """Makes batches of packed rows.

    Args:
        length: positions of a row.
        stride: tokens from the start of a row to the start of the next.
        mask_across_documents: number the documents of a row, so that attention stays within each.
        vocab_size, pad_id: of the tokenizer.
        masker: hides tokens, which are then the targets; None makes each position predict the next token.
    """

    length: int
    stride: int
    mask_across_documents: bool
    vocab_size: int
    pad_id: int
    masker: Masker | None = None

    def packer(self, chunks: Iterator[TokenChunk], cursor: TextCursor) -> Packer:
        sizes = (self.length, self.stride, self.target_shift)
        return Packer(chunks, cursor, *sizes, self.pad_id, self.mask_across_documents)

    def count_rows(self, tokens: int) -> int:
        return count_rows(tokens, self.length, self.stride, self.target_shift)

    @property
    def target_shift(self) -> int:
        return 0 if self.masker else 1

    def batch(self, rows: PackedRows, epoch: int) -> Batch:
        """The checked batch of R rows."""
        tokens, targets = rows.tokens[:, : self.length], rows.tokens[:, -self.length :]
        real = np.arange(self.length) < (rows.sizes - self.target_shift)[:, None]
        mask = weights = real
        if self.mask_across_documents:
            documents = rows.documents[:, : self.length]
            mask = np.where(real, documents - documents[:, :1] + 1, 0).astype(np.int32)
        if self.masker:
            tokens, weights = self.masker.mask_tokens(tokens, real, epoch, rows.numbers)
        targets = np.where(real, targets, 0).astype(np.int32)
        batch = Batch(np.ascontiguousarray(tokens), mask, targets, weights.astype(np.float32), rows.ids)
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

    def row_builder(self, tokenizer: Tokenizer, seq_len: int, masked: bool, seed: int) -> RowBuilder:
        """Raises ConfigError if the model is masked and the tokenizer has no mask token."""
        masker, vocab_size = None, tokenizer.vocab_size
        if masked:
            special = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id]
            masker = Masker(vocab_size, tokenizer.mask_id, special, self.mlm_probability, seed)
        stride = self.stride or seq_len
        return RowBuilder(seq_len, stride, self.mask_across_documents, vocab_size, tokenizer.pad_id, masker)

    def eval_row_builder(self, tokenizer: Tokenizer, seq_len: int, masked: bool) -> RowBuilder:
        """Rows that share no target, with the same hidden tokens for every seed."""
        return replace(self, stride=None).row_builder(tokenizer, seq_len, masked, seed=0)

    def settings(self, masked: bool) -> list[int | float | bool | None]:
        """The settings that change the rows of such a model, for fingerprints."""
        return [self.stride, self.mask_across_documents, masked, self.mlm_probability if masked else None]
