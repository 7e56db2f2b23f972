"""Conversations for instruction tuning: the loss is on the answers only."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Literal

from mlxlab.constraints import FilePath, Ge, Gt, Le, Lt, Seed, Size
from mlxlab.data.batch import Batch
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import Baseline
from mlxlab.data.instruct.chat_template import (
    ChatTemplate,
    default_template,
    load_template,
    read_template,
)
from mlxlab.data.instruct.conversations import Layout, contents, load
from mlxlab.data.instruct.encoder import ChatTokenizer, ConversationEncoder, Truncation
from mlxlab.data.instruct.masks import LossOn
from mlxlab.data.instruct.packing import ConversationPacker, ConversationStream
from mlxlab.data.instruct.sources import ConversationParser, open_conversations, open_splits
from mlxlab.data.instruct.statistics import measure
from mlxlab.data.loaders.wrappers import wrap_batches
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.text.dataset import Shuffling
from mlxlab.data.text.document import DocumentSource
from mlxlab.data.text.encoder import TextEncoder, restore
from mlxlab.data.text.packed_batches import PackedBatchIterator, PackedEvalBatches, RowBuilder
from mlxlab.data.text.packing import RandomRows, RowLayout
from mlxlab.data.text.switched_rows import new_switch, switched_rows
from mlxlab.data.text.token_stream import EPOCH_START, ShuffledDocuments
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.data.tokenizers.character import CharTokenizerTrainer
from mlxlab.data.tokenizers.fit import Corpus
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.data.vocabulary.fit_vocabulary import fit_vocabulary
from mlxlab.data.vocabulary.token_counts import TokenCounts, count_tokens
from mlxlab.data.vocabulary.vocabulary_map import VocabularyLimit
from mlxlab.errors import ConfigError, DataError

FORMAT = 1  # of the order, the masks and the packing: another number is another fingerprint
ENCODED_WINDOWS = 2  # encoded conversations that are remembered between their check and their use


class InstructDataset:
    """Conversations for causal language models. Implements `DataModule`.

    A row holds whole conversations, which do not attend to each other, and is padded where the next does not fit.

    Args:
        source: file, folder or glob of .jsonl(.gz, .zst): a conversation per line as messages, conversations
            (ShareGPT), prompt and completion, instruction, input and output (Alpaca), or text.
        valid_source: conversations to validate on; null holds out `valid_fraction` of the others.
        valid_fraction: fraction of the conversations that is held out where there is no `valid_source`; at least one.
        max_valid_examples: maximum number of conversations to validate on; they are kept in memory as tokens.
        max_train_examples: maximum number of conversations in an epoch, the same ones in each; null for all.
        layout: of the records; null recognises it by their keys.
        on_error: strict ends the run at a malformed record; skip counts and skips up to 1 % of them.
        chat_template: a Jinja file to use instead of the tokenizer's template. Tokenizers without one get ChatML,
            written with their start and end tokens.
        loss_on: assistant trains on all answers, completion on the last one, all on the whole text; of the layout
            `text` everything is always trained on.
        truncation: of conversations longer than a row: drop leaves them out, left keeps their end, right their start.
        shuffle: in which order conversations and rows come.
        tokenizer: trains the tokenizer; not used with a pretrained model or by a resumed run.
        vocabulary: which of its tokens the model tells apart.
        seq_len: tokens of a row.
        select: which conversations are trained on, by the loss in an earlier run of the row that each begins.
        batch_size: rows of a training batch, of all processes together.
        eval_batch_size: rows of an evaluation batch; changes no result.
        prefetch: batches prepared in the background; 0 prepares each when it is asked for.
        overfit_batches: train on this many batches again and again; null trains on all.
        seed: of the order.
        cache: folder for tokenizers.
        masked: the model predicts hidden tokens, which is refused.
        one_document: the model has no mask between the conversations of a row: each gets a row of its own.
        parameters: number of parameters of the model without its vocabulary.
        width: hidden size of the model.
        pretrained: folder whose tokenizer.json and chat template are to be used.
        restored: folder of the run that is resumed or evaluated, with its vocabulary and its chat template, which
            comes before all others.

    Raises:
        InputNotFoundError, DataError: a source is missing or malformed.
        ConfigError: settings do not go together.
    """

    class_counts: Sequence[int] = ()  # there are no classes
    test: Sequence[Batch] = ()

    def __init__(
        self,
        source: str,
        valid_source: str | None,
        valid_fraction: Annotated[float, Gt(0), Lt(1)],
        max_valid_examples: Size,
        max_train_examples: Size | None,
        layout: Layout | None,
        on_error: Literal["strict", "skip"],
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
                "data=instruct: expected a model that predicts the next token, such as model=transformer"
            )
        parser = ConversationParser(layout)
        opener = partial(open_conversations, parse=parser, on_error=on_error, window=shuffle.window)
        train, valid, lines = open_splits(source, valid_source, valid_fraction, opener)
        key, size = train.fingerprint, train.bytes if max_train_examples is None else None
        fitted_tokenizer = tokenizer.fit(
            Corpus(_texts(train), key, cache, parameters, width, size, pretrained)
        )
        original, self.curve = fitted_tokenizer.tokenizer, fitted_tokenizer.curve
        folder = _folder(tokenizer.path) if tokenizer.path is not None else pretrained
        own = load_template(restored, original) if restored is not None else None
        self.template = own or _choose_template(chat_template, folder, original)
        self.template.check_syntax()

        row_layout = RowLayout(
            seq_len, seq_len, 1, original.pad_id, number_documents=not one_document
        )
        conversations = ConversationEncoder(
            ChatTokenizer(self.template, original), loss_on, seq_len, truncation
        )
        encode = lru_cache(ENCODED_WINDOWS * shuffle.window)(conversations.encode)
        parser.check = encode
        chosen = select.chosen(seed)
        stream = ConversationStream(
            ShuffledDocuments(train, seed, max_train_examples, chosen), encode
        )
        validated = ConversationStream(ShuffledDocuments(valid, 0, max_valid_examples), encode)
        count = partial(_count_tokens, stream, original.vocab_size)
        self.tokenizer, vocabulary_lines = fit_vocabulary(vocabulary, original, count, restored)
        self.encoder = TextEncoder(self.tokenizer, False, seq_len)
        self.task = self.encoder.task
        switch = new_switch(self.tokenizer)
        builder, eval_builder = (
            switched_rows(
                self.tokenizer,
                switch,
                lambda ids: RowBuilder(row_layout, ids.vocab_size),
                measured=measured,
            )
            for measured in (False, True)
        )
        statistics = measure(stream, seq_len, batch_size, packed=not one_document)
        valid_chunks = list(validated(0, EPOCH_START))
        if not valid_chunks:
            raise DataError(
                f"{valid.name}: no conversation to validate on fits in data.seq_len={seq_len}"
            )
        self.valid = PackedEvalBatches(
            valid_chunks, eval_builder, eval_batch_size, ConversationPacker
        )
        self.held_out = content_key(valid=valid.fingerprint)
        self.fingerprint = content_key(
            format=FORMAT,
            train=train.fingerprint,
            valid=[valid.fingerprint, max_valid_examples],
            tokenizer=self.tokenizer.fingerprint,
            template=[self.template.source, self.template.bos_token, self.template.eos_token],
            order=[
                seed,
                shuffle.row_buffer,
                max_train_examples,
                None if chosen is None else chosen.tolist(),
            ],
            rows=[seq_len, loss_on, truncation, *(["one document"] if one_document else [])],
        )
        order = RandomRows(shuffle.row_buffer, seed)
        args = (self.fingerprint, statistics.batches_per_epoch, order, ConversationPacker, switch)
        self.train = wrap_batches(
            PackedBatchIterator(stream, builder, batch_size, *args), prefetch, overfit_batches
        )
        lines += [
            *fitted_tokenizer.lines,
            *vocabulary_lines,
            f"chat template: {self.template.name}; loss on: {loss_on}",
        ]
        self.row_lengths = statistics.row_lengths(seq_len, truncation)
        self.sources = [*lines, *statistics.lines(train.name, seq_len, truncation)]

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

    restore_encoder = staticmethod(restore)


def _texts(source: DocumentSource) -> Iterator[str]:
    for _, documents in source.windows(0, 0):
        yield from (contents(load(document.text)) for document in documents)


def _count_tokens(stream: ConversationStream, vocab_size: int) -> TokenCounts:
    return count_tokens(stream(0, EPOCH_START), vocab_size)


def _folder(path: str) -> Path:
    """The folder of a tokenizer.json, which may be named itself."""
    return Path(path).parent if Path(path).name == "tokenizer.json" else Path(path)


def _choose_template(
    chat_template: str | None, folder: Path | None, tokenizer: Tokenizer
) -> ChatTemplate:
    if chat_template is not None:
        return read_template(Path(chat_template).expanduser(), tokenizer)
    template = load_template(folder, tokenizer) if folder is not None else None
    return template or default_template(tokenizer)
