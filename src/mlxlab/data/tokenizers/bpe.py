"""Byte-level BPE trained on a corpus, with a vocabulary size that is given or chosen."""

import json
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, TypedDict

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from mlxlab.data.cache import HEADER_BYTES, cached, content_key
from mlxlab.data.tokenizers import vocab_size as sizing
from mlxlab.data.tokenizers.fit import (
    Corpus,
    FittedTokenizer,
    add_ends,
    existing_tokenizer,
    sample_texts,
)
from mlxlab.data.tokenizers.tokenizer import SPECIAL, Tokenizer, parse_tokenizer
from mlxlab.errors import DataError
from mlxlab.files.untrusted import parse_json
from mlxlab.schema.constraints import Ge, Le, Size

# Training takes time quadratic in the length of a word, encoding does not.
MAX_WORD_LENGTH = 2048  # characters
WORD = (  # GPT-2's pattern
    r"'(?:[stmd]|re|ve|ll)| ?\p{L}{1,N}| ?\p{N}{1,N}| ?[^\s\p{L}\p{N}]{1,N}"
    r"|\s{1,N}(?!\S)|\s{1,N}"
)


class _Content(TypedDict):
    tokenizer: sizing.TokenizerFile  # the largest one
    # One for each size, if the size is to be chosen; else empty.
    bytes_per_token: list[Annotated[float, Ge(0)]]


@dataclass(frozen=True)
class BPETokenizerTrainer:
    """Byte-level BPE trained on the first documents: any text is encoded, and decoded to itself.

    Args:
        vocab_size: tokens, of which 4 are special and 256 bytes; auto takes the minimum of what the
            text supports (its tokens occur 64 times on average), what the model supports (Tao et
            al. 2024) and the size whose doubling gains less than 5 %.
        min_vocab_size: minimum that auto chooses, unless there is too little text for it, or the maximum is lower.
        max_vocab_size: maximum that auto chooses.
        min_frequency: minimum number of occurrences of a pair that is merged.
        train_examples: documents to train on, of at most 64 million characters in total.
        path: a tokenizer.json, or a folder with one, to use instead.
    """

    vocab_size: Literal["auto"] | Annotated[int, Ge(260), Le(1_000_000)]
    min_vocab_size: Annotated[int, Ge(512), Le(1_000_000)]
    max_vocab_size: Annotated[int, Ge(512), Le(1_000_000)]
    min_frequency: Size
    train_examples: Size
    path: str | None

    def fit(self, corpus: Corpus) -> FittedTokenizer:
        """The tokenizer for a corpus; texts after `train_examples` measure the sizes.

        Raises DataError if there is no text.
        """
        existing = existing_tokenizer(self.path, corpus.pretrained)
        if existing is not None:
            return existing
        key = content_key(
            corpus=corpus.key,
            examples=self.train_examples,
            tokenizers=version("tokenizers"),
            format=7,
            size=self._max_size,
            auto=self.vocab_size == "auto",
            min_frequency=self.min_frequency,
        )
        path = corpus.cache / "tokenizers" / f"bpe-{key}.json"

        def write(file: BinaryIO) -> None:
            file.write(json.dumps(self._train(corpus.texts)).encode())

        def read(data: mmap.mmap) -> _Content:
            text = data[HEADER_BYTES:].decode("utf-8", "replace")
            content = parse_json(text, _Content, path.name, max_depth=64)
            self._check(content, path)
            return content

        content, outcome = cached(path, write, read)
        file = content["tokenizer"]
        lines = []
        if self.vocab_size == "auto":
            sizes = sizing.vocabulary_sizes(max(file["model"]["vocab"].values()) + 1)
            per_token = dict(zip(sizes, content["bytes_per_token"], strict=True))
            limits = sizing.find_limits(
                per_token, corpus.parameters, corpus.width, corpus.planned_bytes
            )
            size = self._choose(limits, max(per_token))
            file = sizing.truncate_bpe(file, size)
            listed = ", ".join(f"{limit:,} by {name}" for name, limit in limits.items())
            raised = ""
            if size > min(limits.values()):
                raised = ", raised by data.tokenizer.min_vocab_size"
            lines.append(f"vocabulary: {size:,} tokens{raised} (limits: {listed})")
        tokenizer = parse_tokenizer(json.dumps(file), path)
        origin = "reused" if outcome == "hit" else "trained"
        line = f"tokenizer {origin}: byte-level BPE, {tokenizer.vocab_size:,} tokens"
        return FittedTokenizer(tokenizer, [line, *lines])

    @property
    def _max_size(self) -> int:
        return self.max_vocab_size if self.vocab_size == "auto" else self.vocab_size

    def _train(self, corpus: Iterable[str]) -> _Content:
        texts = iter(corpus)
        seen = sample_texts(texts, self.train_examples)
        trained = train_bpe(seen, self._max_size, self.min_frequency)
        per_token: list[float] = []
        if self.vocab_size == "auto":
            held = list(islice(texts, max(self.train_examples // 10, 1)))
            per_token = sizing.measure(trained, held or seen)
        return {"tokenizer": json.loads(trained.inner.to_str()), "bytes_per_token": per_token}

    def _check(self, content: _Content, path: Path) -> None:
        """Raises DataError for content of the cache that `_train` cannot have returned."""
        tokenizer = parse_tokenizer(json.dumps(content["tokenizer"]), path)
        size = tokenizer.vocab_size
        sizes = sizing.vocabulary_sizes(size) if self.vocab_size == "auto" else []
        is_measured = len(content["bytes_per_token"]) == len(sizes)
        is_bpe = content["tokenizer"]["model"].get("type") == "BPE"
        if not (is_bpe and is_measured) or size > self._max_size or tokenizer.eos_id is None:
            raise DataError(f"expected a byte-level BPE of at most {self._max_size} tokens")

    def _choose(self, limits: dict[str, int], full_size: int) -> int:
        """The minimum of the limits, between `min_vocab_size` and `max_vocab_size`.

        It is rounded down to a multiple of 64. A text too small for `min_vocab_size` tokens gets as
        many as it supports, but at least 512.
        """
        size = min(limits.values())
        if size < full_size:
            size -= size % sizing.STEP
        min_size = min(self.min_vocab_size, limits.get("data", self.min_vocab_size))
        return min(max(size, min_size, sizing.MIN_SIZE), self.max_vocab_size, full_size)


def train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int) -> Tokenizer:
    """Trains a byte-level BPE (Sennrich 2016, Radford 2019) of 260 to `vocab_size` tokens.

    Pairs that occur less than `min_frequency` times are not merged. It learns from words longer
    than `MAX_WORD_LENGTH` (base64, DNA) in pieces; the trained tokenizer does not split them.
    """
    inner = tokenizers.Tokenizer(models.BPE())
    words = tokenizers.Regex(WORD.replace(",N", f",{MAX_WORD_LENGTH}"))
    split = pre_tokenizers.Split(words, "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return add_ends(inner)
