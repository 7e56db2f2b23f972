"""Conversations for instruction tuning: the loss is on the answers only."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from math import ceil
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np

from mlxlab.data.chat.chat_template import ChatTokenizer, choose_template
from mlxlab.data.chat.conversation import Layout, contents, dump, parse_conversation, unread_keys
from mlxlab.data.chat.masks import ConversationEncoder, LossOn, Truncation
from mlxlab.data.dataset import RowLengths, measure_lengths
from mlxlab.data.sources.block import Block, ErrorBudget, OnBadCell
from mlxlab.data.sources.open import Reading, open_source
from mlxlab.data.text.batches import RowOrder
from mlxlab.data.text.dataset import LanguageModelData, TextOptions
from mlxlab.data.text.documents import Documents, DocumentSource, hold_out, texts_of
from mlxlab.data.text.packing import EPOCH_START, RowLayout, TokenStream
from mlxlab.data.tokenizers.fit import Corpus, tokenizer_folder
from mlxlab.errors import ConfigError, DataError
from mlxlab.schema.constraints import FilePath, Seed
from mlxlab.terminal.wording import counted

MAX_MEASURED = 4096  # conversations that are encoded before training
ACTIONS = {"drop": "dropped", "left": "truncated to their end", "right": "truncated to their start"}
FORMAT = 2  # Another order, other masks or another packing are another fingerprint.


class InstructDataset(LanguageModelData):
    """Conversations for causal language models. Implements `DataModule`.

    A row holds whole conversations, which do not attend to each other, and is padded where the next
    does not fit. A conversation is a row of `source`: messages, conversations (ShareGPT), prompt and
    completion, instruction, input and output (Alpaca), or text.

    Args:
        layout: of the rows; null recognises it by their columns.
        chat_template: a Jinja file to use instead of the tokenizer's template. Tokenizers without
            one get ChatML, written with their start and end tokens.
        loss_on: assistant trains on all answers, completion on the last one, all on the whole text
            (without answers of weight 0); of the layout `text` all is always trained on.
        truncation: of conversations longer than a row: drop leaves them out, left keeps their end,
            right their start.
        seed: of the order.
        cache: folder for tokenizers.
        masked: the model predicts hidden tokens, which is refused.
        one_document: the model has no mask between the conversations of a row: each gets a row of
            its own.
        parameters: number of parameters of the model without its vocabulary.
        width: hidden size of the model.
        pretrained: folder whose tokenizer.json and chat template are to be used.
        restored: folder of the run that is resumed or evaluated, with its chat template, which comes
            before all others.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed,
            the hub unreachable.
        ConfigError: settings do not go together.
    """

    def __init__(
        self,
        layout: Layout | None,
        chat_template: FilePath | None,
        loss_on: LossOn,
        truncation: Truncation,
        *,
        seed: Seed,
        cache: Path,
        masked: bool,
        parameters: int,
        width: int,
        one_document: bool = False,
        pretrained: Path | None = None,
        restored: Path | None = None,
        **options: Unpack[TextOptions],
    ) -> None:
        if masked:
            raise ConfigError(
                "data=instruct: expected a model that predicts the next token (model=transformer)"
            )
        seq_len = options["seq_len"]
        shuffle = options["shuffle"]

        opened: list[Documents] = []
        for name in (options["source"], options["valid_source"]):
            if name is not None:
                errors = ErrorBudget(options["on_error"])
                reading = options["reading"]
                opened.append(open_conversations(name, reading, layout, errors, shuffle.window))
        train: DocumentSource = opened[0]
        valid: DocumentSource = opened[-1]
        if len(opened) == 1:
            train, valid = hold_out(opened[0], options["valid_fraction"])

        texts = (contents(json.loads(text)) for text in texts_of(train))
        limit = options["max_train_examples"]
        num_bytes = train.bytes if limit is None else None
        key = train.fingerprint
        corpus = Corpus(texts, key, cache, parameters, width, num_bytes, pretrained)
        trainer = options["tokenizer"]
        fitted = trainer.fit(corpus)
        tokenizer = fitted.tokenizer
        folder = pretrained if trainer.path is None else tokenizer_folder(trainer.path)
        template = choose_template(restored, chat_template, folder, tokenizer)
        self.template = template
        chat = ChatTokenizer(template, tokenizer)

        encoder = ConversationEncoder(chat, loss_on, seq_len, truncation, opened[0].skip)
        stream = TokenStream(train, encoder, seed, limit, options["select"].chosen(seed))
        rows = RowLayout(
            seq_len, seq_len, 1, tokenizer.pad_id, not one_document, whole_documents=True
        )
        size = _measure(stream, encoder, rows)
        self.row_lengths = size.lengths
        valid_encoder = replace(encoder, skip=opened[-1].skip)
        valid_stream = TokenStream(valid, valid_encoder, 0, options["max_valid_examples"])
        super().__init__(
            stream,
            valid_stream,
            fitted,
            rows,
            None,
            options,
            format=FORMAT,
            template=[template.source, template.bos_token, template.eos_token],
            rows=[seq_len, loss_on, truncation, one_document],
        )
        if not self._valid_chunks:
            expected = f"no conversation to validate on fits in data.seq_len={seq_len}"
            raise DataError(f"{valid.name}: {expected}")

        num_batches = None
        if size.rows_per_epoch is not None:
            num_batches = max(1, ceil(size.rows_per_epoch / options["batch_size"]))
        amount = f"{size.used:,} of {counted(self.row_lengths.rows, 'conversation')} used"
        order = RowOrder(shuffle.row_buffer, seed)
        self.train = self._training_batches(stream, num_batches, order, options)
        unread = unread_keys(opened[0].source.columns())
        listed = ", ".join(unread) or "none"
        self.sources = [
            self.validation_line,
            f"{opened[0].name}: columns that are not read: {listed}",
            *fitted.lines,
            f"chat template: {template.name}; loss on: {loss_on}",
            f"{train.name}: {amount}, batches per epoch: {num_batches or 'unknown'}",
        ]

    def save(self, folder: Path) -> None:
        super().save(folder)
        self.template.save(folder)


def open_conversations(
    source: str, reading: Reading, layout: Layout | None, errors: ErrorBudget, window: int
) -> Documents:
    """The conversations of what `source` names; raises as `open_source`.

    Args:
        layout: of the rows; None recognises it by their columns.
        window: conversations that are held in memory and shuffled together.
    """

    def read_texts(block: Block, on_bad_cell: OnBadCell) -> Sequence[str | None]:
        texts = []
        for row, record in enumerate(block.records()):
            text = None
            try:
                text = dump(parse_conversation(record, layout))
            except ValueError as error:
                on_bad_cell(row, error)
            texts.append(text)
        return texts

    rows = open_source(source, reading, errors)
    columns = rows.columns()
    read = set(columns).difference(unread_keys(columns))
    sizes = [size for size in map(rows.text_bytes, read) if size is not None]
    return Documents(rows, None, read_texts, window, errors, sum(sizes) or None, f":{layout}")


class EpochSize(NamedTuple):
    """Counts of the conversations that were measured."""

    lengths: RowLengths
    used: int  # conversations with an answer among their tokens
    rows_per_epoch: float | None  # exact if all conversations of an epoch were measured


def _measure(stream: TokenStream, encoder: ConversationEncoder, layout: RowLayout) -> EpochSize:
    """Counts up to `MAX_MEASURED` conversations of the first epoch.

    Raises DataError if none of them can be used.
    """
    epoch = chain.from_iterable(stream.windows(0, EPOCH_START))
    documents = [document for _, document in islice(epoch, MAX_MEASURED)]
    encoded = encoder(documents)
    full = np.array([tokens.full_length for tokens in encoded if tokens.full_length], np.int64)
    used = np.array([len(tokens.ids) for tokens in encoded if len(tokens.ids)], np.int64)
    if not len(used):
        got = f"{len(full)} conversations of at most {full.max(initial=0)} tokens"
        fault = f"expected an answer within data.seq_len={layout.length} tokens, got {got}"
        raise DataError(f"{stream.source.name}: {fault}")

    repetitions: float | None = 1.0
    if len(documents) == MAX_MEASURED:
        num_bytes = sum(len(document.text.encode()) for document in documents)
        repetitions = stream.repetitions(MAX_MEASURED, num_bytes)
    lengths = measure_lengths(full, layout.length, lambda rows: full[rows].tolist())
    lengths = lengths._replace(action=ACTIONS[encoder.truncation])
    begins, _ = layout.split(np.cumsum(used))
    rows = None if repetitions is None else len(begins) * max(1.0, repetitions)
    return EpochSize(lengths, len(used), rows)
