"""Streamed text for language models, larger than memory: read, tokenized and packed as it is needed."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache as memoize
from functools import partial
from math import ceil
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypedDict, Unpack

from mlxlab.data.batch import Batch, BatchIterator, Task
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import UNKNOWN_LENGTH, ExampleSelection, RunLength
from mlxlab.data.sources.block import OnError
from mlxlab.data.sources.open import Reading
from mlxlab.data.text.batches import (
    PackedBatchIterator,
    Packing,
    RowBuilder,
    RowOrder,
)
from mlxlab.data.text.documents import DocumentSource, hold_out, open_documents, texts_of
from mlxlab.data.text.order import DataOrder, count_tokens
from mlxlab.data.text.packing import (
    EPOCH_START,
    InMemoryTokens,
    RowLayout,
    TextTokens,
    TokenizedDocument,
    TokenStream,
    epoch_start,
    pack,
)
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.data.tokenizers.fit import CharTokenizerTrainer, Corpus, FittedTokenizer
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.data.wrappers import wrap_batches
from mlxlab.errors import ConfigError, DataError, NotAllowedError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.schema.constraints import Ge, Gt, Le, Lt, Positive, Seed, Size
from mlxlab.terminal.wording import counted

FORMAT = 3  # Another order or another packing is another fingerprint.


@dataclass(frozen=True)
class Shuffling:
    """The order of documents and rows; both are functions of (seed, epoch).

    Args:
        window: documents that are in memory at a time and shuffled together, approximately.
        row_buffer: rows that are permuted together, for long documents, whose neighbouring rows are alike; 0 leaves
            them in the order of the text.
    """

    window: Annotated[int, Ge(1), Le(10_000_000)]
    row_buffer: Annotated[int, Ge(0), Le(1_000_000)]


class TextOptions(TypedDict):
    """The keys that texts and conversations have in common; a document is a text or a conversation.

    Args:
        source: a Hugging Face data set, or a file, folder or glob of .txt, .jsonl, .json, .csv, .tsv or
            .parquet (text files also .gz, .zst, .bz2, .xz).
        valid_source: documents to validate on; null holds some of the others out.
        valid_fraction: fraction of the documents that is held out; of a small source at least one.
        max_valid_examples: maximum number of documents to validate on; they are kept in memory.
        max_train_examples: maximum number of documents in an epoch, the same ones in each; null for all.
        on_error: strict ends the run at a malformed row; skip counts and skips up to 1 % of them.
        reading: how sources are read.
        shuffle: in which order documents and rows come.
        tokenizer: trains the tokenizer; not used with a pretrained model or by a resumed run.
        seq_len: tokens of a row.
        select: which documents are trained on, by the loss in an earlier run of the row that each begins.
        batch_size: rows of a training batch, of all processes together.
        eval_batch_size: rows of an evaluation batch; changes no result.
        prefetch: batches prepared in the background; 0 prepares each when it is asked for.
        overfit_batches: train on this many batches again and again; null trains on all.
    """

    source: str
    valid_source: str | None
    valid_fraction: Annotated[float, Gt(0), Lt(1)]
    max_valid_examples: Size
    max_train_examples: Size | None
    on_error: OnError
    reading: Reading
    shuffle: Shuffling
    tokenizer: BPETokenizerTrainer | CharTokenizerTrainer
    seq_len: Annotated[int, Ge(2), Le(1_048_576)]
    select: ExampleSelection
    batch_size: Size
    eval_batch_size: Size
    prefetch: Annotated[int, Ge(0), Le(1024)]
    overfit_batches: Size | None


class EncoderState(TypedDict):
    """The encoder in data.json."""

    format: Literal["mlxlab.text/2"]
    masked: bool
    seq_len: Size
    tokenizer: str  # fingerprint of the tokenizer
    fingerprint: str  # identifies the data for human readers


@dataclass(frozen=True)
class TextEncoder:
    """Text and token ids of a language model.

    Args:
        masked: the model predicts masked tokens (an encoder), not the next token (a decoder).
        seq_len: tokens of the blocks that it was trained on.
    """

    tokenizer: Tokenizer
    masked: bool
    seq_len: int

    @property
    def task(self) -> Task:
        size = self.tokenizer.vocab_size
        token_bytes = self.tokenizer.token_bytes
        return Task("language_modelling", size, masked=self.masked, token_bytes=token_bytes)

    def save(self, folder: Path, fingerprint: str) -> None:
        """Writes tokenizer.json and data.json."""
        self.tokenizer.save(folder)
        state = {
            "format": "mlxlab.text/2",
            "masked": self.masked,
            "seq_len": self.seq_len,
            "tokenizer": self.tokenizer.fingerprint,
            "fingerprint": fingerprint,
        }
        write_json(folder / "data.json", state)


def restore(folder: Path) -> TextEncoder:
    """The encoder that `save` wrote. Raises NotAllowedError if the tokenizer is not the saved one."""
    path = folder / "data.json"
    state = read_json(path, EncoderState)
    tokenizer = load_tokenizer(folder)
    if tokenizer.fingerprint != state["tokenizer"]:
        raise NotAllowedError(
            f"{path}: tokenizer.json in this folder is not the one that the model was trained with"
        )
    return TextEncoder(tokenizer, state["masked"], state["seq_len"])


class LanguageModelData:
    """What data sets of texts and of conversations have in common.

    Args:
        stream: what is trained on.
        valid: what is validated on.
        mlm_probability: of a token to be hidden; None for a model that predicts the next one.
        settings: that change a batch, apart from those of `stream` and `options`.
    """

    class_counts: Sequence[int] = ()  # there are no classes
    test: Sequence[Batch] = ()
    estimated_sizes: Sequence[str] = ()
    restore_encoder = staticmethod(restore)

    def __init__(
        self,
        stream: TokenStream,
        valid: TokenStream,
        fitted: FittedTokenizer,
        layout: RowLayout,
        mlm_probability: float | None,
        options: TextOptions,
        **settings: object,
    ) -> None:
        self.tokenizer = fitted.tokenizer
        self.encoder = TextEncoder(self.tokenizer, mlm_probability is not None, layout.length)
        self.task = self.encoder.task
        self.held_out = content_key(valid=valid.source.fingerprint)
        chosen = None if stream.chosen is None else stream.chosen.tolist()
        self.fingerprint = content_key(
            train=stream.source.fingerprint,
            valid=[valid.source.fingerprint, valid.limit],
            tokenizer=self.tokenizer.fingerprint,
            order=[stream.seed, options["shuffle"].row_buffer, stream.limit, chosen],
            **settings,
        )

        self._builder = RowBuilder(layout, self.tokenizer, mlm_probability)
        self._valid_chunks = list(valid(0, EPOCH_START))
        size = _measure(self._valid_chunks)
        self.text_sizes = {"validation": size}
        use = f"{counted(size.documents, 'document')} for validation"
        if valid.source.fingerprint == stream.source.fingerprint:
            use = "warning: validation uses the training text"
        self.validation_line = f"{valid.source.name}: {use}"
        rows = pack(self._valid_chunks, epoch_start(0), layout.without_overlap())
        self.valid = self._builder.evaluation(list(rows), options["eval_batch_size"])

    def _training_batches(
        self,
        stream: TokenStream,
        num_batches: int | None,
        order: RowOrder,
        options: TextOptions,
    ) -> BatchIterator:
        """Batches of rows in an order; `num_batches` in an epoch, None if that is unknown."""
        batches = PackedBatchIterator(
            stream, self._builder, options["batch_size"], self.fingerprint, num_batches, order
        )
        return wrap_batches(batches, options["prefetch"], options["overfit_batches"])

    def texts(self, ids: Sequence[int]) -> Sequence[str]:
        return ()

    def save(self, folder: Path) -> None:
        """Writes what inference needs."""
        self.encoder.save(folder, self.fingerprint)


class StreamingTextDataset(LanguageModelData):
    """Text for language models: the next token for decoders, hidden tokens for encoders. Implements `DataModule`.

    Args:
        mixture: several sources, each with its weight, instead of `source`.
        text_column: column, or key of each JSON object, that holds the text.
        valid_split: of `valid_source`, or of the training source where that is null.
        order: what comes first.
        streaming: false tokenizes everything at the start and keeps it in memory; the batches are the same.
        packing: how tokens become rows.
        seed: of the order and of the hidden tokens.
        cache: folder for tokenizers.
        masked: the model predicts hidden tokens.
        one_document: the model has no mask between the documents of a row.
        parameters: number of parameters of the model without its vocabulary.
        width: hidden size of the model.
        pretrained: folder whose tokenizer.json is to be used.
        run_length: limits of the run, for an order that depends on them.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable.
        ConfigError: settings do not go together.
    """

    def __init__(
        self,
        mixture: dict[str, Positive] | None,
        text_column: str,
        valid_split: str | None,
        order: DataOrder,
        streaming: bool,
        packing: Packing,
        *,
        seed: Seed,
        cache: Path,
        masked: bool,
        parameters: int,
        width: int,
        one_document: bool = False,
        pretrained: Path | None = None,
        run_length: RunLength = UNKNOWN_LENGTH,
        **options: Unpack[TextOptions],
    ) -> None:
        if one_document and packing.mask_across_documents:
            raise ConfigError(
                "data.packing.mask_across_documents: this model cannot keep documents of a row apart"
            )
        seq_len = options["seq_len"]
        batch_size = options["batch_size"]
        shuffle = options["shuffle"]
        weights = mixture or {options["source"]: 1.0}
        open_source = partial(
            open_documents,
            reading=options["reading"],
            text_column=text_column,
            on_error=options["on_error"],
            window=shuffle.window,
        )
        opened = [open_source(source, options["reading"].split) for source in weights]
        train = order.mix(opened, weights, shuffle.window)
        text, valid = open_validation(
            train,
            list(weights),
            options["valid_source"],
            valid_split,
            options["valid_fraction"],
            open_source,
        )
        limit = options["max_train_examples"]
        num_bytes = text.bytes if limit is None else None
        key = text.fingerprint
        corpus = Corpus(texts_of(text), key, cache, parameters, width, num_bytes, pretrained)
        fitted = options["tokenizer"].fit(corpus)
        tokenizer = fitted.tokenizer

        chosen = options["select"].chosen(seed)
        tokenize = TextTokens(tokenizer)
        stream = TokenStream(text, tokenize, seed, limit, chosen)
        self.count_tokens = memoize(partial(count_tokens, stream, tokenizer.vocab_size))
        layout = packing.layout(tokenizer, seq_len, masked)
        hidden = packing.mlm_probability if masked else None
        valid_stream = TokenStream(valid, tokenize, 0, options["max_valid_examples"])
        super().__init__(
            stream,
            valid_stream,
            fitted,
            layout,
            hidden,
            options,
            format=FORMAT,
            packing=[seq_len, packing.stride, packing.mask_across_documents],
            masking=[masked, hidden],
            **order.identity(),
        )

        if not streaming:
            stream = replace(stream, tokenize=InMemoryTokens(tokenize))
        size = _estimate_size(stream, self._valid_chunks)
        if not streaming or (size is not None and size.tokens < 2 * seq_len):
            size = _measure(stream(0, EPOCH_START))
        if streaming:
            self.estimated_sizes = ("training",)
        num_batches = None
        if size is not None:
            if size.tokens < seq_len:
                expected = f"expected at most {size.tokens}, the number of tokens of the text"
                raise DataError(f"data.seq_len={seq_len}: {expected}")
            self.text_sizes["training"] = size
            num_rows = order.rows_per_epoch(layout.count_rows(size.tokens))
            num_batches = max(1, ceil(num_rows / batch_size))

        self.min_steps = order.min_steps
        steps = run_length.steps(num_batches, batch_size * seq_len)
        rows = order.arrange_rows(self.count_tokens, layout, shuffle.row_buffer, seed, steps)
        self.train = self._training_batches(stream, num_batches, rows, options)
        amount = "unknown number of tokens"
        if size is not None:
            how = "estimated" if streaming else "in memory"
            batches = counted(num_batches or 0, "batch", "batches")
            amount = f"{size.tokens:,} tokens ({how}), {batches} per epoch"
        self.sources = [
            self.validation_line,
            *fitted.lines,
            f"{stream.source.name}: {amount}",
        ]


def open_validation(
    train: DocumentSource,
    sources: Sequence[str],
    valid_source: str | None,
    valid_split: str | None,
    valid_fraction: float,
    open_source: Callable[[str, str | None], DocumentSource],
) -> tuple[DocumentSource, DocumentSource]:
    """Training and validation text.

    Where neither `valid_source` nor `valid_split` is given, the split `validation` of a Hugging
    Face data set that has one is taken, or else documents of the training source are held out.

    Args:
        sources: what `train` was opened from.
        open_source: opens a split of a source; what it raises is passed on.
    """
    valid = None
    if valid_source is not None or valid_split is not None:
        valid = open_source(valid_source or sources[0], valid_split)
    elif len(sources) == 1:
        with suppress(ConfigError):  # Local files have no such split.
            valid = open_source(sources[0], "validation")
    if valid is None:
        return hold_out(train, valid_fraction)
    return train, valid


class TextSize(NamedTuple):
    """The size of a split."""

    documents: int
    tokens: int


def _measure(chunks: Iterable[list[TokenizedDocument]]) -> TextSize:
    documents = 0
    tokens = 0
    for chunk in chunks:
        documents += len(chunk)
        tokens += sum(len(document.tokens) for document in chunk)
    return TextSize(documents, tokens)


def _estimate_size(stream: TokenStream, sample: list[list[TokenizedDocument]]) -> TextSize | None:
    """The size of an epoch, None if it is unknown."""
    documents, tokens = _measure(sample)
    num_bytes = sum(document.num_bytes for chunk in sample for document in chunk)
    repetitions = stream.repetitions(documents, num_bytes)
    if repetitions is None:
        return None
    return TextSize(round(documents * repetitions), round(tokens * repetitions))
