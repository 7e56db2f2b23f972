"""What tokenizers are fitted to, and the simplest one: a token for every character of a corpus."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import tokenizers
from tokenizers import decoders, models, processors

from mlxlab.data.tokenizers.tokenizer import BOS, EOS, SPECIAL, Tokenizer, load_tokenizer
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.schema.constraints import Size
from mlxlab.terminal.program import display_path

MAX_SAMPLE_CHARACTERS = 64_000_000  # documents may be books


@dataclass(frozen=True)
class Corpus:
    """Texts that a tokenizer is fitted to, and the model it is for."""

    texts: Iterable[str]  # read only if no existing or cached tokenizer is used
    key: str  # identifies the texts
    cache: Path
    parameters: int  # size of the model without its vocabulary
    width: int  # hidden size of the model
    planned_bytes: int | None = None  # how much text the run will see, if known
    pretrained: Path | None = None  # folder with the tokenizer.json of pretrained weights


class FittedTokenizer(NamedTuple):
    """A tokenizer, and lines for the log."""

    tokenizer: Tokenizer
    lines: list[str]


def existing_tokenizer(path: str | None, pretrained: Path | None) -> FittedTokenizer | None:
    """The tokenizer that the config names, or that of pretrained weights; None without both.

    Raises:
        InputNotFoundError, DataError: no valid tokenizer at the path.
        NotAllowedError: the two differ.
    """
    inherited = None if pretrained is None else load_tokenizer(pretrained)
    tokenizer = inherited if path is None else load_tokenizer(tokenizer_folder(path))
    if tokenizer is None:
        return None
    if inherited is not None and tokenizer.fingerprint != inherited.fingerprint:
        raise NotAllowedError(
            f"data.tokenizer.path={path}: expected the tokenizer of the weights in {pretrained}"
        )
    source = display_path(path or pretrained or "")
    return FittedTokenizer(tokenizer, [f"tokenizer of {source}: {tokenizer.vocab_size:,} tokens"])


def tokenizer_folder(path: str) -> Path:
    """The folder of `data.tokenizer.path`, a tokenizer.json or a folder with one."""
    file = Path(path)
    return file.parent if file.name == "tokenizer.json" else file


def sample_texts(texts: Iterable[str], count: int) -> list[str]:
    """The first `count` texts that are not blank, at most 64 million characters; never none."""
    sample = []
    size = 0
    for text in islice((text for text in texts if text.strip()), count):
        sample.append(text[: MAX_SAMPLE_CHARACTERS - size])
        size += len(text)
        if size >= MAX_SAMPLE_CHARACTERS:
            break
    if not sample:
        raise DataError("the corpus has no text to train a tokenizer on")
    return sample


def add_ends(inner: tokenizers.Tokenizer) -> Tokenizer:
    """The tokenizer, which starts and ends each text with a special token."""
    ends = [(name, inner.token_to_id(name)) for name in (BOS, EOS)]
    template = f"{BOS} $A {EOS}"
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    return Tokenizer(inner)


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@dataclass(frozen=True)
class CharTokenizerTrainer:
    """The four special tokens, then the characters of the corpus in order of their code points.

    Args:
        on_unknown: for a character that is not in the sample: `bytes` encodes it as bytes, which
            adds 256 tokens; `error` ends the run (exit 65).
        train_examples: number of documents to collect characters from.
        path: a tokenizer.json, or a folder with one, to use instead.
    """

    on_unknown: Literal["bytes", "error"]
    train_examples: Size
    path: str | None

    def fit(self, corpus: Corpus) -> FittedTokenizer:
        """Returns an existing tokenizer or a new one, whose size follows from the corpus alone."""
        existing = existing_tokenizer(self.path, corpus.pretrained)
        if existing is not None:
            return existing
        pieces = SPECIAL + sorted(set().union(*sample_texts(corpus.texts, self.train_examples)))
        count = len(pieces) - len(SPECIAL)
        if self.on_unknown == "bytes":
            pieces += BYTES
        vocabulary = {piece: token for token, piece in enumerate(pieces)}
        model = models.BPE(vocabulary, [], byte_fallback=self.on_unknown == "bytes")
        inner = tokenizers.Tokenizer(model)
        inner.add_special_tokens(SPECIAL)
        inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        line = f"tokenizer: {count:,} characters, {len(pieces):,} tokens"
        return FittedTokenizer(add_ends(inner), [line])
