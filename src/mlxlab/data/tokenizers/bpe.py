"""Byte-level BPE trained on a corpus, with a fixed vocabulary size or one chosen for corpus and model."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import Annotated, Literal, TypedDict

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from mlxlab.constraints import Count, Ge, Le, Size
from mlxlab.data.cache import content_key
from mlxlab.data.tokenizers.fit import Corpus, FittedTokenizer, cached_json, existing_tokenizer, sample_texts
from mlxlab.data.tokenizers.tokenizer import BOS, EOS, MASK, PAD, Tokenizer, parse_tokenizer
from mlxlab.data.tokenizers.vocab_size import (
    TokenCounts,
    TokenizerFile,
    VocabSizeCurve,
    choose,
    merge_parents,
    size_by_length,
    truncate_bpe,
)
from mlxlab.errors import ConfigError, DataError

CHUNK = 1000  # texts that are encoded at a time


class _Counts(TypedDict):
    counts: list[Count]  # by token
    bytes: Size  # of the texts


class _Statistics(TypedDict):
    seen: _Counts  # of the texts that the tokenizer was trained on
    held: _Counts  # of other texts
    by_length: Size  # the vocabulary size by the mean length of a text


class _Content(TypedDict):
    tokenizer: TokenizerFile  # the largest one
    statistics: _Statistics | None  # if its size is to be chosen


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
        """The tokenizer for a corpus; texts after `train_examples` measure the curve.

        Raises:
            DataError: no text, or a malformed tokenizer.
            InputNotFoundError: no tokenizer at `path`.
            NotAllowedError: the tokenizer at `path` differs from that of the weights.
        """
        if existing := existing_tokenizer(self.path, corpus.pretrained):
            return existing
        auto = self.vocab_size == "auto"
        max_size = self.max_vocab_size if self.vocab_size == "auto" else self.vocab_size
        settings = {"size": max_size, "auto": auto, "min_frequency": self.min_frequency}
        key = content_key(
            corpus=corpus.key, examples=self.train_examples, tokenizers=version("tokenizers"), format=2, **settings
        )
        path = corpus.cache / "tokenizers" / f"bpe-{key}.json"

        def check(content: _Content) -> None:
            tokenizer = parse_tokenizer(json.dumps(content["tokenizer"]), path)
            size, statistics = tokenizer.vocab_size, content["statistics"]
            if content["tokenizer"]["model"].get("type") != "BPE" or size > max_size or tokenizer.eos_id is None:
                raise DataError(f"expected a byte-level BPE of at most {max_size} tokens")
            counts = [statistics[name]["counts"] for name in ("seen", "held")] if statistics else []
            if bool(counts) != auto or any(len(numbers) != size for numbers in counts):
                raise DataError(f"expected a count for each of {size} tokens")

        content, origin = cached_json(
            path, _Content, lambda: self._train(iter(corpus.texts), max_size), check, read=not self.force_retrain
        )
        file, statistics = content["tokenizer"], content["statistics"]
        curve = self._curve(file, statistics, corpus) if statistics else None
        tokenizer = parse_tokenizer(json.dumps(truncate_bpe(file, curve.chosen) if curve else file), path)
        lines = [f"tokenizer {origin}: byte-level BPE, {tokenizer.vocab_size} tokens, {tokenizer.fingerprint[:12]}"]
        return FittedTokenizer(tokenizer, lines + (curve.lines() if curve else []), curve)

    def _train(self, texts: Iterator[str], size: int) -> _Content:
        seen = sample_texts(texts, self.train_examples)
        trained = train_bpe(seen, size, self.min_frequency)
        content: _Content = {"tokenizer": json.loads(trained.inner.to_str()), "statistics": None}
        if self.vocab_size == "auto":
            held = list(islice(texts, max(self.train_examples // 10, 1))) or seen
            statistics: _Statistics = {
                "seen": count(trained, seen),
                "held": count(trained, held),
                "by_length": size_by_length(seen),
            }
            content["statistics"] = statistics
        return content

    def _curve(self, file: TokenizerFile, statistics: _Statistics, corpus: Corpus) -> VocabSizeCurve:
        parents = merge_parents(file)
        seen, held = (
            TokenCounts(np.array(counts["counts"]), parents, counts["bytes"])
            for counts in (statistics["seen"], statistics["held"])
        )
        if self.vocab_size_strategy == "length":
            chosen = min(max(statistics["by_length"], self.min_vocab_size), self.max_vocab_size, len(seen.counts))
            reason = "by the mean length of a document (data.tokenizer.vocab_size_strategy=length)"
            return VocabSizeCurve.measured(held.bytes_per_token(), chosen, reason)
        return choose(
            seen,
            held,
            planned_bytes=corpus.planned_bytes,
            parameters=corpus.parameters,
            width=corpus.width,
            min_size=self.min_vocab_size,
            max_size=self.max_vocab_size,
        )


def train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int) -> Tokenizer:
    """Trains a byte-level BPE (Sennrich 2016, Radford 2019): any text is encoded, and decoded to itself.

    Args:
        vocab_size: maximum number of tokens, at least 260: 4 special ones, 256 bytes, and merges.
        min_frequency: minimum number of occurrences of a pair that is merged.
    """
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[PAD, BOS, EOS, MASK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    ends = [(BOS, inner.token_to_id(BOS)), (EOS, inner.token_to_id(EOS))]
    inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=ends)
    return Tokenizer(inner)


def count(tokenizer: Tokenizer, texts: Sequence[str]) -> _Counts:
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for start in range(0, len(texts), CHUNK):
        for ids in tokenizer.encode_documents(texts[start : start + CHUNK]):
            counts += np.bincount(ids, minlength=len(counts))
    return {"counts": counts.tolist(), "bytes": sum(len(text.encode()) for text in texts)}
