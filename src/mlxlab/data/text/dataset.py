"""Any text, larger than memory: read, tokenised and packed just in time, with any place within reach."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mlxlab.constraints import Ge, Gt, Le, Lt, Positive, Seed, Size
from mlxlab.data.array_cache import content_key
from mlxlab.data.batch import BatchIterator
from mlxlab.data.loaders.prefetch import prefetch as prefetched
from mlxlab.data.loaders.repeat import repeat_batches
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.text.corpus import SourceOptions, open_corpus
from mlxlab.data.text.cursor import DocumentCursor
from mlxlab.data.text.document import DocumentSource
from mlxlab.data.text.encoder import TextEncoder, restore
from mlxlab.data.text.in_memory import InMemoryTokens
from mlxlab.data.text.masking import new_masker
from mlxlab.data.text.packed_batches import PackedBatchIterator, PackedEvalBatches, RowBuilder
from mlxlab.data.text.token_stream import TokenChunk, TokenStream
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.data.tokenizers.character import CharTokenizerTrainer
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.data.tokenizers.word_cache import WordCache
from mlxlab.errors import DataError

FORMAT = 1  # of the order and the packing: another number is another fingerprint


class StreamingTextDataset:
    """Text for language models: the next token for decoders, hidden tokens for encoders.

    Args:
        source: a data set of the Hugging Face hub, or a file, folder or glob of .txt, .jsonl(.gz, .zst), .parquet or
            .csv.
        config: name of a part of a hub data set.
        split: of the source to train on: of a hub data set a split; of local .txt and .jsonl a part such as [:90%].
        revision: branch, tag or commit of a hub data set.
        text_column: column, or key of each JSON object, that holds the text.
        documents: what a document of a .txt file is.
        mixture: several sources, each with its weight, in place of `source`.
        valid_source: text to validate on; null takes `valid_split`, or else holds out some documents of the source.
        valid_split: of `valid_source`, or of the source where that is null, to validate on.
        valid_fraction: part of the documents that is held out where neither is given.
        max_train_examples: documents of an epoch at most, the same ones in each; null for all.
        max_valid_examples: documents to validate on at most; they are kept in memory as tokens.
        on_error: strict ends the run at a malformed record; skip counts and passes over up to 1 % of them.
        window: documents that are in memory at a time and shuffled together, about.
        streaming: false tokenises everything at once and keeps it in memory; the batches are the same.
        tokenizer: how one is made; a pretrained model and a resumed run bring theirs.
        seq_len: tokens of a row.
        stride: tokens from the start of a row to the start of the next; null is `seq_len`, less overlaps.
        shuffle_rows: rows that are permuted together, for long documents, whose rows are alike; 0 leaves them in the
            order of the text.
        isolate_documents: attention does not reach from one document of a row into another.
        mask_fraction: of the tokens that an encoder has to guess.
        overfit_batches: train on this many batches again and again; null trains on all.
        select: which documents are trained on, by what they cost in an earlier run.
        batch_size: rows of a training batch, of all processes together.
        eval_batch_size: rows of an evaluation batch; changes no result.
        prefetch: batches made ready in the background; 0 makes each when it is asked for.
        seed: of the order and of what is hidden.
        cache: folder for tokenizers.
        pretrained: folder whose tokenizer.json is to be used.
        masked: the model guesses hidden tokens.
        parameters, width: of the model, without its vocabulary.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable.
        ConfigError: settings do not go together.
    """

    def __init__(
        self,
        source: str,
        config: str | None,
        split: str | None,
        revision: str | None,
        text_column: str,
        documents: Literal["file", "paragraph", "line"],
        mixture: dict[str, Positive] | None,
        valid_source: str | None,
        valid_split: str | None,
        valid_fraction: Annotated[float, Gt(0), Lt(1)],
        max_train_examples: Size | None,
        max_valid_examples: Size,
        on_error: Literal["strict", "skip"],
        window: Annotated[int, Ge(1), Le(10_000_000)],
        streaming: bool,
        tokenizer: BPETokenizerTrainer | CharTokenizerTrainer,
        seq_len: Annotated[int, Ge(2), Le(1_048_576)],
        stride: Size | None,
        shuffle_rows: Annotated[int, Ge(0), Le(1_000_000)],
        isolate_documents: bool,
        mask_fraction: Annotated[float, Ge(0.01), Le(0.9)],
        overfit_batches: Size | None,
        select: ExampleSelection,
        batch_size: Size,
        eval_batch_size: Size,
        prefetch: Annotated[int, Ge(0), Le(1024)],
        *,
        seed: Seed,
        cache: Path,
        masked: bool,
        parameters: int,
        width: int,
        pretrained: Path | None = None,
    ) -> None:
        opening = SourceOptions(config, revision, text_column, documents, on_error, window)
        corpus = open_corpus(mixture or {source: 1.0}, split, valid_source, valid_split, valid_fraction, opening)
        fitted = tokenizer.fit(
            first_texts(corpus.train),
            cache=cache,
            key=corpus.train.fingerprint,
            parameters=parameters,
            width=width,
            planned_bytes=corpus.train.bytes if max_train_examples is None else None,
            pretrained=pretrained,
        )
        self.tokenizer, self.curve = fitted.tokenizer, fitted.curve
        self.encoder = TextEncoder(self.tokenizer, masked, seq_len)
        self.task = self.encoder.task
        self.frame = partial(make_row_builder, self.tokenizer, seq_len, isolate_documents, mask_fraction, masked)
        self.eval_batch_size = eval_batch_size

        words, end_id, chosen = WordCache(self.tokenizer), end_of(self.tokenizer), select.chosen(seed)
        stream = TokenStream(corpus.train, words, end_id, seed, max_train_examples, chosen)
        self._valid = list(TokenStream(corpus.valid, words, end_id, 0, max_valid_examples)(0, DocumentCursor()))
        self.valid = PackedEvalBatches(self._valid, self.frame(stride=None, seed=0), eval_batch_size)

        chunks = stream if streaming else InMemoryTokens(stream)
        tokens, how = plan_epoch(chunks, self._valid)
        framing = self.frame(stride=stride, seed=seed)
        count = None if tokens is None else max(1, -(-framing.count_rows(tokens) // batch_size))
        self.held_out = content_key(valid=corpus.valid.fingerprint)
        self.fingerprint = content_key(
            format=FORMAT,
            train=corpus.train.fingerprint,
            valid=[corpus.valid.fingerprint, max_valid_examples],
            tokenizer=self.tokenizer.fingerprint,
            order=[seed, shuffle_rows, max_train_examples, None if chosen is None else chosen.tolist()],
            packing=[seq_len, stride, isolate_documents, masked, mask_fraction if masked else None],
        )
        batches = PackedBatchIterator(chunks, framing, batch_size, self.fingerprint, count, shuffle_rows, seed)
        self.train: BatchIterator = repeat_batches(prefetched(batches, prefetch), overfit_batches)
        self.sources = [
            *corpus.lines,
            *fitted.lines,
            f"{corpus.train.name}: {how}" + ("" if count is None else f", {count} batches an epoch"),
        ]

    @property
    def class_counts(self) -> list[int]:
        """Empty: there are no classes to be weighed."""
        return []

    def baselines(self) -> dict[str, float]:
        """Empty: there is nothing simpler to compare with."""
        return {}

    def save(self, folder: Path) -> None:
        """Writes what inference needs, tokenizer.json and data.json, and how the vocabulary was chosen."""
        self.encoder.save(folder, fingerprint=self.fingerprint)
        if self.curve is not None:
            self.curve.save(folder)

    @staticmethod
    def restore_encoder(folder: Path) -> TextEncoder:
        return restore(folder)


def make_row_builder(
    tokenizer: Tokenizer,
    seq_len: int,
    isolate: bool,
    mask_fraction: float,
    masked: bool,
    *,
    stride: int | None,
    seed: int,
) -> RowBuilder:
    masker = None
    if masked:
        special = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id]
        masker = new_masker(tokenizer.vocab_size, tokenizer.mask_id, special, mask_fraction, seed)
    return RowBuilder(seq_len, stride or seq_len, isolate, tokenizer.vocab_size, tokenizer.pad_id, masker)


def end_of(tokenizer: Tokenizer) -> int:
    """The id that stands after every document; raises DataError if the tokenizer has none."""
    if tokenizer.eos_id is None:
        raise DataError("the tokenizer has no end token (<eos>, [SEP], </s>, <|endoftext|>), which parts documents")
    return tokenizer.eos_id


def first_texts(source: DocumentSource) -> Iterator[str]:
    """The same documents for every seed."""
    return (document.text for _, documents in source.windows(0, 0) for document in documents)


def plan_epoch(chunks: TokenStream | InMemoryTokens, sample: list[TokenChunk]) -> tuple[int | None, str]:
    """Tokens of an epoch, and how they are known. A sample tells how long documents and tokens are."""
    if isinstance(chunks, InMemoryTokens):
        return chunks.num_tokens, f"{chunks.num_tokens} tokens, in memory"
    documents, tokens, size = np.sum([(len(chunk.ids), len(chunk.tokens), chunk.bytes) for chunk in sample], axis=0)
    limits = [chunks.limit, None if chunks.chosen is None else len(chunks.chosen)]
    found = [limit * tokens / documents for limit in limits if limit is not None]
    found += [] if chunks.source.bytes is None else [chunks.source.bytes * tokens / size]
    if not found:
        return None, "how many tokens an epoch has is not known"
    return round(min(found)), f"about {round(min(found))} tokens (estimated by size)"
