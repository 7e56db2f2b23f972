"""Conversations for instruction tuning: the loss is on the answers only."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Annotated

from mlxlab.constraints import FilePath, Ge, Gt, Le, Lt, Seed, Size
from mlxlab.data.batch import Batch
from mlxlab.data.cache import content_key
from mlxlab.data.chat.chat_template import (
    ChatTemplate,
    default_template,
    load_template,
    read_template,
)
from mlxlab.data.chat.chat_tokenizer import ChatTokenizer
from mlxlab.data.chat.conversation import Layout, contents, unread_keys
from mlxlab.data.chat.masks import ConversationEncoder, LossOn, Truncation
from mlxlab.data.chat.packing import ConversationPacker, ConversationStream
from mlxlab.data.chat.reader import open_conversations
from mlxlab.data.chat.statistics import Statistics, measure
from mlxlab.data.dataset import Baseline
from mlxlab.data.loaders.wrappers import wrap_batches
from mlxlab.data.sources.block import ErrorBudget, OnError
from mlxlab.data.sources.open import Reading
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.text.batches import (
    PackedBatchIterator,
    PackedEvalBatches,
    RandomRows,
    RowBuilder,
    RowLayout,
)
from mlxlab.data.text.dataset import Shuffling
from mlxlab.data.text.documents import DocumentSource, hold_out
from mlxlab.data.text.encoder import TextEncoder, restore
from mlxlab.data.text.switched_rows import new_switch, switched_rows
from mlxlab.data.text.token_stream import EPOCH_START, ShuffledDocuments
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.data.tokenizers.character import CharTokenizerTrainer
from mlxlab.data.tokenizers.fit import Corpus
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.data.vocabulary.fit_vocabulary import fit_vocabulary
from mlxlab.data.vocabulary.token_counts import count_tokens
from mlxlab.data.vocabulary.vocabulary_map import VocabularyLimit
from mlxlab.errors import ConfigError, DataError
from mlxlab.wording import counted

FORMAT = 2  # Another order, other masks or another packing are another fingerprint.


class InstructDataset:
    """Conversations for causal language models. Implements `DataModule`.

    A row holds whole conversations, which do not attend to each other, and is padded where the next
    does not fit.

    Args:
        source: a Hugging Face data set, or a file, folder or glob of .jsonl, .json, .csv, .parquet
            or .arrow: a conversation a row as messages, conversations (ShareGPT), prompt and
            completion, instruction, input and output (Alpaca), or text.
        valid_source: conversations to validate on; null holds out `valid_fraction` of the others.
        valid_fraction: fraction of the conversations that is held out where there is no
            `valid_source`; at least one.
        max_valid_examples: maximum number of conversations to validate on; they are kept in memory
            as tokens.
        max_train_examples: maximum number of conversations in an epoch, the same ones in each; null
            for all.
        layout: of the rows; null recognises it by their columns.
        on_error: strict ends the run at a malformed row; skip counts and skips up to 1 % of them.
        reading: how the sources are read.
        chat_template: a Jinja file to use instead of the tokenizer's template. Tokenizers without
            one get ChatML, written with their start and end tokens.
        loss_on: assistant trains on all answers, completion on the last one, all on the whole text
            (without answers of weight 0); of the layout `text` all is always trained on.
        truncation: of conversations longer than a row: drop leaves them out, left keeps their end,
            right their start.
        shuffle: in which order conversations and rows come.
        tokenizer: trains the tokenizer; not used with a pretrained model or by a resumed run.
        vocabulary: which of its tokens the model tells apart.
        seq_len: tokens of a row.
        select: which conversations are trained on, by the loss in an earlier run of the row that
            each begins.
        batch_size: rows of a training batch, of all processes together.
        eval_batch_size: rows of an evaluation batch; changes no result.
        prefetch: batches prepared in the background; 0 prepares each when it is asked for.
        overfit_batches: train on this many batches again and again; null trains on all.
        seed: of the order.
        cache: folder for tokenizers.
        masked: the model predicts hidden tokens, which is refused.
        one_document: the model has no mask between the conversations of a row: each gets a row of
            its own.
        parameters: number of parameters of the model without its vocabulary.
        width: hidden size of the model.
        pretrained: folder whose tokenizer.json and chat template are to be used.
        restored: folder of the run that is resumed or evaluated, with its vocabulary and its chat
            template, which comes before all others.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed,
            the hub unreachable.
        ConfigError: settings do not go together.
    """

    class_counts: Sequence[int] = ()  # there are no classes
    test: Sequence[Batch] = ()
    restore_encoder = staticmethod(restore)

    def __init__(
        self,
        source: str,
        valid_source: str | None,
        valid_fraction: Annotated[float, Gt(0), Lt(1)],
        max_valid_examples: Size,
        max_train_examples: Size | None,
        layout: Layout | None,
        on_error: OnError,
        reading: Reading,
        chat_template: FilePath | None,
        loss_on: LossOn,
        truncation: Truncation,
        shuffle: Shuffling,
        tokenizer: BPETokenizerTrainer | CharTokenizerTrainer,
        vocabulary: VocabularyLimit,
        seq_len: Annotated[int, Ge(8), Le(1_048_576)],
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
    ) -> None:
        if masked:
            raise ConfigError(
                "data=instruct: expected a model that predicts the next token (model=transformer)"
            )
        window = shuffle.window
        opened = open_conversations(source, reading, layout, ErrorBudget(on_error), window)
        opened_valid = opened
        train: DocumentSource = opened
        valid: DocumentSource = opened
        if valid_source is None:
            key = "data.valid_fraction"
            train, valid, line = hold_out(opened, valid_fraction, key=key, noun="conversation")
        else:
            errors = ErrorBudget(on_error)
            opened_valid = open_conversations(valid_source, reading, layout, errors, window)
            valid = opened_valid
            line = f"{valid.name}: conversations for validation"
            if valid.fingerprint == train.fingerprint:
                line += "; warning: validation uses the training conversations"

        num_bytes = train.bytes if max_train_examples is None else None
        identity = train.fingerprint
        corpus = Corpus(_texts(train), identity, cache, parameters, width, num_bytes, pretrained)
        fitted = tokenizer.fit(corpus)
        original = fitted.tokenizer
        self.curve = fitted.curve
        folder = pretrained if tokenizer.path is None else _folder(tokenizer.path)
        self.template = _choose_template(restored, chat_template, folder, original)
        chat = ChatTokenizer(self.template, original)
        encoder = ConversationEncoder(chat, loss_on, seq_len, truncation)

        chosen = select.chosen(seed)
        shuffled = ShuffledDocuments(train, seed, max_train_examples, chosen)
        stream = ConversationStream(shuffled, opened, encoder)
        count = partial(count_tokens, stream(0, EPOCH_START), original.vocab_size)
        self.tokenizer, vocabulary_lines = fit_vocabulary(vocabulary, original, count, restored)
        self.encoder = TextEncoder(self.tokenizer, False, seq_len)
        self.task = self.encoder.task
        rows = RowLayout(seq_len, seq_len, 1, original.pad_id, number_documents=not one_document)
        statistics = measure(stream, rows, truncation)
        self.row_lengths = statistics.lengths
        num_batches = None
        if statistics.rows_per_epoch is not None:
            num_batches = max(1, ceil(statistics.rows_per_epoch / batch_size))

        def build(ids: Tokenizer) -> RowBuilder:
            return RowBuilder(rows, ids.vocab_size)

        switch = new_switch(self.tokenizer)
        builder = switched_rows(self.tokenizer, switch, build, measured=False)
        eval_builder = switched_rows(self.tokenizer, switch, build, measured=True)
        shuffled_valid = ShuffledDocuments(valid, 0, max_valid_examples)
        chunks = list(ConversationStream(shuffled_valid, opened_valid, encoder)(0, EPOCH_START))
        if not chunks:
            expected = f"no conversation to validate on fits in data.seq_len={seq_len}"
            raise DataError(f"{valid.name}: {expected}")
        self.valid = PackedEvalBatches(chunks, eval_builder, eval_batch_size, ConversationPacker)
        self.held_out = content_key(valid=valid.fingerprint)
        order = [seed, shuffle.row_buffer, max_train_examples]
        self.fingerprint = content_key(
            format=FORMAT,
            train=train.fingerprint,
            valid=[valid.fingerprint, max_valid_examples],
            tokenizer=self.tokenizer.fingerprint,
            template=[self.template.source, self.template.bos_token, self.template.eos_token],
            order=[*order, None if chosen is None else chosen.tolist()],
            rows=[seq_len, loss_on, truncation, one_document],
        )
        batches = PackedBatchIterator(
            stream,
            builder,
            batch_size,
            self.fingerprint,
            num_batches,
            RandomRows(shuffle.row_buffer, seed),
            ConversationPacker,
            switch,
        )
        self.train = wrap_batches(batches, prefetch, overfit_batches)
        unread = unread_keys(opened.source.columns())
        self.sources = [
            line,
            f"{opened.name}: columns that are not read: {', '.join(unread) or 'none'}",
            *fitted.lines,
            *vocabulary_lines,
            f"chat template: {self.template.name}; loss on: {loss_on}",
            *_describe(train.name, statistics, num_batches),
        ]

    def baselines(self) -> Sequence[Baseline]:
        return ()  # there is no simpler method to compare with

    def texts(self, ids: Sequence[int]) -> Sequence[str]:
        return ()

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json, data.json and the chat template for inference."""
        self.encoder.save(folder, fingerprint=self.fingerprint)
        self.template.save(folder)
        if self.curve is not None:
            self.curve.save(folder)


def _describe(name: str, statistics: Statistics, num_batches: int | None) -> Iterator[str]:
    """Lines for the log; the last one summarises."""
    lengths = statistics.lengths
    if lengths.too_long and not lengths.are_many:
        yield f"{name}: {lengths.describe()}"
    size = f"{statistics.used:,} of {counted(lengths.rows, 'conversation')} are learned from"
    if num_batches is None:
        yield f"{name}: {size}"
    else:
        yield f"{name}: {size}, {counted(num_batches, 'batch', 'batches')} per epoch"


def _texts(source: DocumentSource) -> Iterator[str]:
    for _, documents in source.windows(0, 0):
        for document in documents:
            yield contents(json.loads(document.text))


def _folder(path: str) -> Path:
    """The folder of a tokenizer.json, which may be named itself."""
    named = Path(path)
    return named.parent if named.name == "tokenizer.json" else named


def _choose_template(
    restored: Path | None, chat_template: str | None, folder: Path | None, tokenizer: Tokenizer
) -> ChatTemplate:
    """That of the run, of the user, of the tokenizer, or the default one."""
    template = None
    if restored is not None:
        template = load_template(restored, tokenizer)
    if template is None and chat_template is not None:
        template = read_template(Path(chat_template).expanduser(), tokenizer)
    if template is None and folder is not None:
        template = load_template(folder, tokenizer)
    return template or default_template(tokenizer)
