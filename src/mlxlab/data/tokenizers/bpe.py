"""Byte-level BPE trained on a corpus, with a fixed vocabulary size or one chosen for corpus and model."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import Annotated, Literal, TypedDict

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from mlxlab.constraints import Ge, Le, Size
from mlxlab.data.cache import content_key
from mlxlab.data.tokenizers import vocab_size as sizing
from mlxlab.data.tokenizers.fit import (
    Corpus,
    FittedTokenizer,
    cached_json,
    existing_tokenizer,
    sample_texts,
)
from mlxlab.data.tokenizers.tokenizer import BOS, EOS, MASK, PAD, Tokenizer, parse_tokenizer
from mlxlab.errors import ConfigError, DataError

MAX_WORD_LENGTH = (
    2048  # in characters; training takes time quadratic in the length of a word, encoding does not
)
WORD = r"'(?:[stmd]|re|ve|ll)| ?\p{L}{1,N}| ?\p{N}{1,N}| ?[^\s\p{L}\p{N}]{1,N}|\s{1,N}(?!\S)|\s{1,N}"  # GPT-2's pattern


class _Content(TypedDict):
    tokenizer: sizing.TokenizerFile  # the largest one
    statistics: sizing.SizeStatistics | None  # if its size is to be chosen


@dataclass(frozen=True)
class BPETokenizerTrainer:
    """Byte-level BPE trained on the first documents: any text is encoded, and decoded to itself.

    Args:
        vocab_size: tokens, of which 4 are special and 256 bytes; auto chooses by `vocab_size_strategy`.
        vocab_size_strategy: auto_limits takes the minimum of what the text supports (Gowda and May 2020), what the
            model supports (Tao et al. 2024) and the size whose doubling gains less than 5 %; length uses the mean
            length of a document.
        min_vocab_size: minimum that auto chooses, unless there is too little text for it.
        max_vocab_size: maximum that auto chooses.
        min_frequency: minimum number of occurrences of a pair that is merged.
        train_examples: number of documents to train on, of at most 64 million characters in total.
        path: a tokenizer.json, or a folder with one, to use instead.
        force_retrain: train again although one is cached for this corpus and these settings.
    """

    vocab_size: Literal["auto"] | Annotated[int, Ge(260), Le(1_000_000)]
    vocab_size_strategy: Literal["auto_limits", "length"]
    min_vocab_size: Annotated[int, Ge(512), Le(1_000_000)]
    max_vocab_size: Annotated[int, Ge(512), Le(1_000_000)]
    min_frequency: Size
    train_examples: Size
    path: str | None
    force_retrain: bool

    def __post_init__(self) -> None:
        if self.min_vocab_size > self.max_vocab_size:
            bounds = f"{self.min_vocab_size} is more than max_vocab_size={self.max_vocab_size}"
            raise ConfigError(f"data.tokenizer.min_vocab_size={bounds}")

    def fit(self, corpus: Corpus) -> FittedTokenizer:
        """The tokenizer for a corpus; texts after `train_examples` measure the curve. DataError if there is no text."""
        if existing := existing_tokenizer(self.path, corpus.pretrained):
            return existing
        auto = self.vocab_size == "auto"
        max_size = self.max_vocab_size if self.vocab_size == "auto" else self.vocab_size
        settings = {"size": max_size, "auto": auto, "min_frequency": self.min_frequency}
        key = content_key(
            corpus=corpus.key,
            examples=self.train_examples,
            tokenizers=version("tokenizers"),
            format=4,
            **settings,
        )
        path = corpus.cache / "tokenizers" / f"bpe-{key}.json"

        def check(content: _Content) -> None:
            tokenizer = parse_tokenizer(json.dumps(content["tokenizer"]), path)
            size, statistics = tokenizer.vocab_size, content["statistics"]
            if (
                content["tokenizer"]["model"].get("type") != "BPE"
                or size > max_size
                or tokenizer.eos_id is None
            ):
                raise DataError(f"expected a byte-level BPE of at most {max_size} tokens")
            num_sizes = len(sizing.vocabulary_sizes(size)) if auto else 0
            measured = (
                (statistics["bytes_per_token"], statistics["occurrences"]) if statistics else ()
            )
            if bool(measured) != auto or any(len(numbers) != num_sizes for numbers in measured):
                raise DataError(f"expected statistics of {num_sizes} sizes")

        content, origin = cached_json(
            path,
            _Content,
            lambda: self._train(iter(corpus.texts), max_size),
            check,
            read=not self.force_retrain,
        )
        file, statistics = content["tokenizer"], content["statistics"]
        curve = (
            self._choose(statistics, max(file["model"]["vocab"].values()) + 1, corpus)
            if statistics
            else None
        )
        tokenizer = parse_tokenizer(
            json.dumps(sizing.truncate_bpe(file, curve.chosen) if curve else file), path
        )
        lines = [f"tokenizer {origin}: byte-level BPE, {tokenizer.vocab_size:,} tokens"]
        return FittedTokenizer(tokenizer, lines + ([curve.describe()] if curve else []), curve)

    def _train(self, texts: Iterator[str], size: int) -> _Content:
        seen = sample_texts(texts, self.train_examples)
        trained = train_bpe(seen, size, self.min_frequency)
        statistics = None
        if self.vocab_size == "auto":
            statistics = sizing.measure(
                trained, seen, list(islice(texts, max(self.train_examples // 10, 1))) or seen
            )
        return {"tokenizer": json.loads(trained.inner.to_str()), "statistics": statistics}

    def _choose(
        self, statistics: sizing.SizeStatistics, full_size: int, corpus: Corpus
    ) -> sizing.VocabSizeCurve:
        """The size by `vocab_size_strategy`, between `min_vocab_size` and `max_vocab_size`.

        auto_limits rounds the minimum of the limits down to a multiple of 64. A text too small for `min_vocab_size`
        tokens gets as many as it supports, but at least 512.
        """
        per_token = dict(
            zip(sizing.vocabulary_sizes(full_size), statistics["bytes_per_token"], strict=True)
        )
        limits: dict[str, int | None] = {}
        size, supported = statistics["by_length"], self.min_vocab_size
        if self.vocab_size_strategy == "auto_limits":
            limits = {
                "data": sizing.size_by_data(statistics, full_size, corpus.planned_bytes),
                "model": sizing.size_by_model(corpus.parameters, corpus.width),
                "elbow": sizing.size_by_elbow(per_token),
            }
            size = min(limit for limit in [*limits.values(), full_size] if limit is not None)
            size = size // sizing.STEP * sizing.STEP if size < full_size else size
            supported = max(sizing.MIN_SIZE, min(supported, limits["data"] or supported))
        chosen = min(max(size, supported), self.max_vocab_size, full_size)
        sizes = sorted(({2**k for k in range(9, 20)} | {full_size, chosen}) & per_token.keys())
        reason = "by the mean length of a document (data.tokenizer.vocab_size_strategy=length)"
        if limits:
            reason = _reason(limits, chosen, self.min_vocab_size, full_size < self.max_vocab_size)
        return sizing.VocabSizeCurve(
            sizes, [round(per_token[size], 4) for size in sizes], chosen, reason, limits
        )


def train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int) -> Tokenizer:
    """Trains a byte-level BPE (Sennrich 2016, Radford 2019) of at most `vocab_size` tokens, at least 260.

    Pairs that occur less than `min_frequency` times are not merged. It learns from words longer than `MAX_WORD_LENGTH`
    (base64, DNA) in pieces; the trained tokenizer does not split them.
    """
    inner = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(
        tokenizers.Regex(WORD.replace(",N", f",{MAX_WORD_LENGTH}")), "isolated"
    )
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[PAD, BOS, EOS, MASK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ends = [(BOS, inner.token_to_id(BOS)), (EOS, inner.token_to_id(EOS))]
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=ends
    )
    return Tokenizer(inner)


def _reason(limits: dict[str, int | None], chosen: int, min_size: int, all_merged: bool) -> str:
    """Why a vocabulary has `chosen` tokens; `all_merged`: no pair of tokens was left to merge."""
    data, model, elbow = (limits[name] for name in ("data", "model", "elbow"))
    clauses = {
        "there is too little text to learn more": data,
        "the model is too small to make use of more": model,
        "twice as many would shorten the text by less than 5 %": elbow,
    }
    bounds = {clause: limit for clause, limit in clauses.items() if limit is not None}
    clause, limit = min(bounds.items(), key=lambda item: item[1])
    if chosen == min_size > limit:
        return f"the minimum that data.tokenizer.min_vocab_size sets; without it {limit}: {clause}"
    if chosen <= limit - sizing.STEP:
        key = "min_frequency" if all_merged else "max_vocab_size"
        clause = (
            "no more pairs occur often enough in the text" if all_merged else "no more are allowed"
        )
        return f"because {clause} (data.tokenizer.{key})"
    named = {
        "the amount of text": data,
        "the size of the model": model,
        "the gain of a larger one": elbow,
    }
    others = ", ".join(f"{other:,} by {name}" for name, other in named.items() if other is not None)
    return f"because {clause} (limits: {others})"
