"""Streamed text for language models, larger than memory: read, tokenised and packed as it is needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as cache_result
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mlxlab.constraints import Ge, Gt, Le, Lt, Positive, Seed, Size
from mlxlab.data.batch import Batch
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import MIN_STEPS, UNKNOWN_LENGTH, Baseline, RunLength
from mlxlab.data.loaders.wrappers import wrap_batches
from mlxlab.data.sources.open import Reading
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.text.batches import PackedBatchIterator, PackedEvalBatches, Packing
from mlxlab.data.text.corpus import open_corpus
from mlxlab.data.text.documents import open_documents
from mlxlab.data.text.encoder import TextEncoder, restore
from mlxlab.data.text.order import DataOrder, row_order
from mlxlab.data.text.switched_rows import new_switch, switched_rows
from mlxlab.data.text.token_stream import EPOCH_START, InMemoryTokens, TokenChunk, TokenStream
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.data.tokenizers.character import CharTokenizerTrainer
from mlxlab.data.tokenizers.fit import Corpus
from mlxlab.data.vocabulary.fit_vocabulary import fit_vocabulary
from mlxlab.data.vocabulary.token_counts import corpus_counts
from mlxlab.data.vocabulary.vocabulary_map import VocabularyLimit
from mlxlab.errors import ConfigError, DataError
from mlxlab.wording import counted

FORMAT = 3  # of the order and the packing: another number is another fingerprint


@dataclass(frozen=True)
class Shuffling:
    """In which order documents and rows come; both orders are functions of (seed, epoch).

    Args:
        window: documents that are in memory at a time and shuffled together, approximately.
        row_buffer: rows that are permuted together, for long documents, whose neighbouring rows are alike; 0 leaves
            them in the order of the text.
    """

    window: Annotated[int, Ge(1), Le(10_000_000)]
    row_buffer: Annotated[int, Ge(0), Le(1_000_000)]


class StreamingTextDataset:
    """Text for language models: the next token for decoders, hidden tokens for encoders. Implements `DataModule`.

    Args:
        source: a Hugging Face data set, or a file, folder or glob of .txt, .jsonl(.gz, .zst), .parquet or .csv.
        mixture: several sources, each with its weight, instead of `source`.
        text_column: column, or key of each JSON object, that holds the text.
        on_error: strict ends the run at a malformed record; skip counts and skips up to 1 % of them.
        reading: how sources are read.
        valid_source: text to validate on; null takes `valid_split` of the training source, or holds
            out some of its documents.
        valid_split: of `valid_source`, or of the training source where that is null.
        valid_fraction: fraction of the documents that is held out where neither is given; of a
            small source at least one.
        max_valid_examples: maximum number of documents to validate on; they are kept in memory.
        max_train_examples: maximum number of documents in an epoch, the same ones in each; null for all.
        shuffle: in which order documents and rows come.
        order: what comes first.
        streaming: false tokenises everything at the start and keeps it in memory; the batches are the same.
        tokenizer: trains the tokenizer; not used with a pretrained model or by a resumed run.
        vocabulary: which of its tokens the model tells apart.
        seq_len: tokens of a row.
        packing: how tokens become rows.
        select: which documents are trained on, by their loss in an earlier run.
        batch_size: rows of a training batch, of all processes together.
        eval_batch_size: rows of an evaluation batch; changes no result.
        prefetch: batches prepared in the background; 0 prepares each when it is asked for.
        overfit_batches: train on this many batches again and again; null trains on all.
        seed: of the order and of the hidden tokens.
        cache: folder for tokenizers.
        masked: the model predicts hidden tokens.
        one_document: the model has no mask between the documents of a row.
        parameters: number of parameters of the model without its vocabulary.
        width: hidden size of the model.
        pretrained: folder whose tokenizer.json is to be used.
        restored: folder of the run that is resumed or evaluated, with its vocabulary.
        run_length: limits of the run, for an order that depends on them.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable.
        ConfigError: settings do not go together.
    """

    class_counts: Sequence[int] = ()  # there are no classes
    test: Sequence[Batch] = ()

    def __init__(
        self,
        source: str,
        mixture: dict[str, Positive] | None,
        text_column: str,
        on_error: Literal["strict", "skip"],
        reading: Reading,
        valid_source: str | None,
        valid_split: str | None,
        valid_fraction: Annotated[float, Gt(0), Lt(1)],
        max_valid_examples: Size,
        max_train_examples: Size | None,
        shuffle: Shuffling,
        order: DataOrder,
        streaming: bool,
        tokenizer: BPETokenizerTrainer | CharTokenizerTrainer,
        vocabulary: VocabularyLimit,
        seq_len: Annotated[int, Ge(2), Le(1_048_576)],
        packing: Packing,
        select: ExampleSelection,
        batch_size: Size,
        eval_batch_size: Size,
        prefetch: Annotated[int, Ge(0), Le(1024)],
        overfit_batches: Size | None,
        *,
        seed: Seed,
        cache: Path,
        masked: bool,
        parameters: int,
        width: int,
        one_document: bool = False,
        pretrained: Path | None = None,
        restored: Path | None = None,
        run_length: RunLength = UNKNOWN_LENGTH,
    ) -> None:
        if one_document and packing.mask_across_documents:
            raise ConfigError(
                "data.packing.mask_across_documents: this model cannot keep documents of a row apart"
            )
        window = shuffle.window
        order.check(mixture, shuffle.row_buffer)
        opener = partial(
            open_documents,
            reading=reading,
            text_column=text_column,
            on_error=on_error,
            window=window,
        )
        text, valid, lines = open_corpus(
            mixture or {source: 1.0},
            reading.split,
            valid_source,
            valid_split,
            valid_fraction,
            window,
            opener,
            order.mix,
        )
        texts = (document.text for _, documents in text.windows(0, 0) for document in documents)
        key, planned_bytes = text.fingerprint, text.bytes if max_train_examples is None else None
        fitted_tokenizer = tokenizer.fit(
            Corpus(texts, key, cache, parameters, width, planned_bytes, pretrained)
        )
        original, self.curve = fitted_tokenizer.tokenizer, fitted_tokenizer.curve
        encode, end_id, chosen = (
            original.encode_documents,
            original.end_id,
            select.chosen(seed),
        )
        limit = max_train_examples
        stream = TokenStream(text, encode, end_id, seed, limit, chosen)
        count_tokens = cache_result(
            partial(corpus_counts, stream, original.vocab_size, original.fingerprint, cache)
        )
        self.all_tokens, self.count_tokens = (
            original,
            count_tokens,
        )  # also those outside of a smaller vocabulary
        self.tokenizer, vocabulary_lines = fit_vocabulary(
            vocabulary, original, count_tokens, restored
        )
        self.encoder = TextEncoder(self.tokenizer, masked, seq_len)
        self.task = self.encoder.task

        validated = TokenStream(valid, encode, end_id, 0, max_valid_examples)
        valid_chunks, switch = list(validated(0, EPOCH_START)), new_switch(self.tokenizer)
        build = partial(packing.eval_row_builder, seq_len=seq_len, masked=masked)
        eval_builder = switched_rows(self.tokenizer, switch, build, measured=True)
        self.valid = PackedEvalBatches(valid_chunks, eval_builder, eval_batch_size)

        train = order.arrange(text, limit, chosen, cache)
        stream = TokenStream(train, encode, end_id, seed, limit, chosen)
        chunks = stream if streaming else InMemoryTokens(stream)
        build = partial(packing.row_builder, seq_len=seq_len, masked=masked, seed=seed)
        builder = switched_rows(self.tokenizer, switch, build, measured=False)
        num_tokens, size = estimate_tokens(chunks, valid_chunks)
        if num_tokens is not None and num_tokens < 2 * seq_len:
            num_tokens = sum(len(chunk.tokens) for chunk in chunks(0, EPOCH_START))
            if num_tokens < seq_len:
                expected = (
                    f"expected at most {num_tokens}, the number of tokens of the training text"
                )
                raise DataError(f"data.seq_len={seq_len}: {expected}")
        held = (
            sum(len(each.ids) for each in valid_chunks),
            sum(len(each.tokens) for each in valid_chunks),
        )
        self.text_sizes = {"validation": held}
        if num_tokens is not None:
            documents = (
                len(chunks.ids)
                if isinstance(chunks, InMemoryTokens)
                else round(num_tokens * held[0] / held[1])
            )
            self.text_sizes = {"training": (documents, num_tokens), **self.text_sizes}
        self.estimated_sizes = ("training",) if streaming else ()
        num_rows = 0 if num_tokens is None else builder.layout.count_rows(num_tokens)
        num_rows = order.rows_per_epoch(num_rows)
        count = None if num_tokens is None else max(1, -(-num_rows // batch_size))
        # The schedule of a curriculum is that of five epochs.
        self.min_steps = 0 if order.measure else MIN_STEPS
        self.held_out = content_key(valid=valid.fingerprint)
        self.fingerprint = content_key(
            format=FORMAT,
            train=train.fingerprint,
            valid=[valid.fingerprint, max_valid_examples],
            tokenizer=self.tokenizer.fingerprint,
            order=[seed, shuffle.row_buffer, limit, None if chosen is None else chosen.tolist()],
            packing=[seq_len, packing.stride, packing.mask_across_documents],
            masking=[masked, packing.mlm_probability if masked else None],
            **order.identity(),
        )
        steps = run_length.steps(count, batch_size * seq_len)
        rows, more_lines = row_order(
            order, count_tokens, builder.layout, shuffle.row_buffer, seed, steps
        )
        args = (batch_size, self.fingerprint, count, rows)
        batches = PackedBatchIterator(chunks, builder, *args, switch=switch)
        self.train = wrap_batches(batches, prefetch, overfit_batches)
        per_epoch = "" if count is None else f", {counted(count, 'batch', 'batches')} per epoch"
        self.sources = [
            *lines,
            *fitted_tokenizer.lines,
            *vocabulary_lines,
            *more_lines,
            f"{train.name}: {size}{per_epoch}",
        ]

    def baselines(self) -> Sequence[Baseline]:
        return ()  # there is no simpler method to compare with

    def texts(self, ids: Sequence[int]) -> Sequence[str]:
        return ()

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json, data.json and the vocabulary for inference, and how the vocabulary size was chosen."""
        self.encoder.save(folder, fingerprint=self.fingerprint)
        if self.curve is not None:
            self.curve.save(folder)

    restore_encoder = staticmethod(restore)


def estimate_tokens(
    chunks: TokenStream | InMemoryTokens, sample: list[TokenChunk]
) -> tuple[int | None, str]:
    """Tokens of an epoch, exact in memory or else estimated from a sample; and a line for the log."""
    if isinstance(chunks, InMemoryTokens):
        return chunks.num_tokens, f"{chunks.num_tokens:,} tokens, in memory"
    documents, tokens, size = np.sum(
        [(len(chunk.ids), len(chunk.tokens), chunk.bytes) for chunk in sample], axis=0
    )
    limits = [chunks.limit, None if chunks.chosen is None else len(chunks.chosen)]
    estimates = [limit * tokens / documents for limit in limits if limit is not None]
    estimates += [] if chunks.source.bytes is None else [chunks.source.bytes * tokens / size]
    if not estimates:
        return None, "unknown number of tokens"
    return round(min(estimates)), f"about {round(min(estimates)):,} tokens (estimated by size)"
