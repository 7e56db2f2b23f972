"""Byte-level BPE trained on a corpus, with a vocabulary size that is given or chosen.

The size that is chosen is the minimum of what text and model support and where growth pays. Byte-pair encoding is
nested: the first k merges of a longer training are those of a training to k merges, and undoing the later merges
gives the tokens of the smaller vocabulary. So one training and one encoding give every size, exactly.
"""

import json
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from math import inf
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypedDict

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from mlxlab.data.cache import HEADER_BYTES, cached, content_key
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


TokenizerFile = dict[str, Any]  # a tokenizer.json


class _Content(TypedDict):
    tokenizer: TokenizerFile  # the largest one
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
            sizes = vocabulary_sizes(max(file["model"]["vocab"].values()) + 1)
            per_token = dict(zip(sizes, content["bytes_per_token"], strict=True))
            limits = find_limits(per_token, corpus)
            size = self._choose(limits, max(per_token))
            file = truncate_bpe(file, size)
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
        per_token = []
        if self.vocab_size == "auto":
            held = list(islice(texts, max(self.train_examples // 10, 1)))
            per_token = measure(trained, held or seen)
        return {"tokenizer": json.loads(trained.inner.to_str()), "bytes_per_token": per_token}

    def _check(self, content: _Content, path: Path) -> None:
        """Raises DataError for content of the cache that `_train` cannot have returned."""
        tokenizer = parse_tokenizer(json.dumps(content["tokenizer"]), path)
        size = tokenizer.vocab_size
        sizes = vocabulary_sizes(size) if self.vocab_size == "auto" else []
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
            size -= size % STEP
        min_size = min(self.min_vocab_size, limits.get("data", self.min_vocab_size))
        return min(max(size, min_size, MIN_SIZE), self.max_vocab_size, full_size)


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


BASE_SIZE = 260  # four special tokens and the bytes, in every vocabulary
STEP = 64
MIN_SIZE = 512
MIN_OCCURRENCES = 64  # The mean of the tokens of a text; see docs/explanation/log.md.
ELBOW = 0.05  # Doubling the vocabulary gains less than that in bytes per token.


def vocabulary_sizes(full_size: int) -> list[int]:
    """The multiples of 64 from 512, and the full size."""
    return [*range(MIN_SIZE, full_size, STEP), full_size]


def measure(tokenizer: Tokenizer, held: Sequence[str]) -> list[float]:
    """Bytes per token of each size of a byte-level BPE, on texts that it was not trained on."""
    num_bytes = sum(len(text.encode()) for text in held)
    parents = merge_parents(json.loads(tokenizer.inner.to_str()))
    tokens = np.concatenate(tokenizer.encode_documents(held))
    totals = tokens_by_size(np.bincount(tokens, minlength=len(parents)), parents)
    return [num_bytes / max(totals[size], 1) for size in vocabulary_sizes(len(parents))]


def tokens_by_size(counts: np.ndarray, parents: np.ndarray) -> dict[int, int]:
    """How many tokens the texts have under each size down to 512.

    Args:
        counts: (V,) occurrences under the full vocabulary.
        parents: (V, 2) as `merge_parents`.
    """
    counts = counts.copy()
    total = int(counts.sum())
    totals = {len(counts): total}
    for token in reversed(range(MIN_SIZE, len(counts))):
        total += int(counts[token])
        # `add.at` counts a token that was merged with itself twice.
        np.add.at(counts, parents[token], counts[token])
        totals[token] = total
    return totals


def truncate_bpe(file: TokenizerFile, size: int) -> TokenizerFile:
    """The tokenizer.json of a byte-level BPE of `size` tokens, as training to it would give."""
    model = file["model"]
    vocabulary = {piece: token for piece, token in model["vocab"].items() if token < size}
    merges = []
    if size > BASE_SIZE:
        merged = [model["vocab"][first + second] for first, second in model["merges"]]
        merges = model["merges"][: merged.index(size - 1) + 1]
    return file | {"model": model | {"vocab": vocabulary, "merges": merges}}


def merge_parents(file: TokenizerFile) -> np.ndarray:
    """(V, 2) the tokens that each was first merged from; -1 for tokens that are not merges."""
    vocabulary = file["model"]["vocab"]
    parents = np.full((max(vocabulary.values()) + 1, 2), -1)
    for first, second in reversed(file["model"]["merges"]):
        parents[vocabulary[first + second]] = vocabulary[first], vocabulary[second]
    return parents


def find_limits(per_token: dict[int, float], corpus: Corpus) -> dict[str, int]:
    """The largest useful sizes: by the model, and by the data and the elbow as far as these set one."""
    limits = {"model": size_by_model(corpus.parameters, corpus.width)}
    if corpus.planned_bytes is not None:
        limits["data"] = size_by_data(per_token, corpus.planned_bytes)
    elbow = size_by_elbow(per_token)
    if elbow is not None:
        limits["elbow"] = elbow
    return limits


def size_by_model(parameters: int, width: int) -> int:
    """Tao et al. 2024: 1e8 (N / 3e9)^0.83 / d, anchored at 3 B; extrapolated below 33 M."""
    return int(1e8 * (parameters / 3e9) ** 0.83 / width)


def size_by_data(per_token: dict[int, float], planned_bytes: int) -> int:
    """The largest size whose tokens occur 64 times in the text of an epoch, on average."""
    tokens = planned_bytes / MIN_OCCURRENCES
    sizes = [size for size in per_token if size * per_token[size] <= tokens]
    return max([MIN_SIZE, *sizes])


def size_by_elbow(per_token: dict[int, float]) -> int | None:
    """The smallest size whose double has under 5 % more bytes per token; None if there is none."""
    for size, value in sorted(per_token.items()):
        if per_token.get(2 * size, inf) < (1 + ELBOW) * value:
            return size
    return None
