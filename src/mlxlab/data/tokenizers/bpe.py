"""Trains a byte-level BPE on a corpus, with a fixed vocabulary size or one chosen for corpus and model."""

import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
import tokenizers

from mlxlab.constraints import Count, Ge, Le, Size
from mlxlab.data.array_cache import content_key
from mlxlab.data.tokenizers.fit import FittedTokenizer, cached_json, existing_tokenizer, sample_texts
from mlxlab.data.tokenizers.tokenizer import ByteLevelBPE, Tokenizer
from mlxlab.data.tokenizers.vocab_size import (
    TokenCounts,
    VocabSizeCurve,
    choose,
    merge_parents,
    size_by_length,
    truncate_bpe,
)
from mlxlab.errors import ConfigError, DataError

CHUNK = 1000  # texts that are encoded at a time


class _Counts(TypedDict):
    """Token counts of some texts, and the bytes of these texts."""

    counts: list[Count]
    bytes: Size


class _Content(TypedDict):
    """The cached content: the largest tokenizer, and the statistics from which a vocabulary size is chosen."""

    tokenizer: dict[str, Any]
    seen: NotRequired[_Counts]
    held: NotRequired[_Counts]
    by_length: NotRequired[Size]


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

    def __init__(
        self,
        vocab_size: Literal["auto"] | Annotated[int, Ge(260), Le(1_000_000)],
        vocab_size_strategy: Literal["auto_limits", "length"],
        min_vocab_size: Annotated[int, Ge(512), Le(1_000_000)],
        max_vocab_size: Annotated[int, Ge(512), Le(1_000_000)],
        min_frequency: Size,
        train_examples: Size,
        path: str | None,
        force_retrain: bool,
    ) -> None:
        if min_vocab_size > max_vocab_size:
            raise ConfigError(
                f"data.tokenizer.min_vocab_size={min_vocab_size} is more than max_vocab_size={max_vocab_size}"
            )
        self.vocab_size, self.strategy = vocab_size, vocab_size_strategy
        self.min_size, self.max_size, self.min_frequency = min_vocab_size, max_vocab_size, min_frequency
        self.train_examples, self.path, self.force_retrain = train_examples, path, force_retrain

    def fit(
        self,
        texts: Iterable[str],
        *,
        cache: Path,
        key: str,
        parameters: int,
        width: int,
        planned_bytes: int | None,
        pretrained: Path | None = None,
    ) -> FittedTokenizer:
        """The tokenizer for a corpus; `texts` is read only if no existing or cached tokenizer is used.

        Args:
            texts: documents to train on; those after `train_examples` measure the curve.
            cache: folder of cached tokenizers.
            key: identifies the corpus.
            parameters: number of parameters of the model without its vocabulary.
            width: hidden size of the model.
            planned_bytes: bytes of text that the run will see; None if unknown.
            pretrained: folder with the tokenizer.json of pretrained weights.

        Raises:
            DataError: no text, or a malformed tokenizer.
            InputNotFoundError: no tokenizer at `path`.
            NotAllowedError: the tokenizer at `path` differs from that of the weights.
        """
        if existing := existing_tokenizer(self.path, pretrained):
            return existing
        size = self.max_size if self.vocab_size == "auto" else self.vocab_size
        settings = {"size": size, "auto": self.vocab_size == "auto", "min_frequency": self.min_frequency}
        name = content_key(
            corpus=key, examples=self.train_examples, tokenizers=version("tokenizers"), format=1, **settings
        )
        path = cache / "tokenizers" / f"bpe-{name}.json"
        content, origin = cached_json(
            path,
            self.force_retrain,
            _Content,
            lambda: self._train(iter(texts), size),
            lambda content: _check(content, size, self.vocab_size == "auto", path),
        )
        curve = self._curve(content, parameters, width, planned_bytes) if self.vocab_size == "auto" else None
        file = content["tokenizer"]
        tokenizer = _tokenizer(truncate_bpe(file, curve.chosen) if curve else file, path)
        lines = [f"tokenizer {origin}: byte-level BPE, {tokenizer.vocab_size} tokens, {tokenizer.fingerprint[:12]}"]
        return FittedTokenizer(tokenizer, lines + (curve.lines() if curve else []), curve)

    def _train(self, texts: Iterator[str], size: int) -> _Content:
        """Trains the largest tokenizer, and counts its tokens for the choice of a size."""
        seen = sample_texts(texts, self.train_examples)
        trained = ByteLevelBPE(size, self.min_frequency).train(seen)
        content: _Content = {"tokenizer": json.loads(trained.inner.to_str())}
        if self.vocab_size == "auto":
            held = list(islice(texts, max(self.train_examples // 10, 1))) or seen
            content |= {"seen": count(trained, seen), "held": count(trained, held), "by_length": size_by_length(seen)}
        return content

    def _curve(self, content: _Content, parameters: int, width: int, planned_bytes: int | None) -> VocabSizeCurve:
        tree = merge_parents(content["tokenizer"])
        seen, held = (
            TokenCounts(np.array(piece["counts"]), tree, piece["bytes"]) for piece in (content["seen"], content["held"])
        )
        if self.strategy == "auto_limits":
            sizes = {"min_size": self.min_size, "max_size": self.max_size}
            return choose(seen, held, planned_bytes=planned_bytes, parameters=parameters, width=width, **sizes)
        chosen = min(max(content["by_length"], self.min_size), self.max_size, len(seen.counts))
        per_token = {size: held.sample_bytes / max(counts.sum(), 1) for size, counts in held.shrink().items()}
        sizes_drawn = [2**k for k in range(9, 20) if 2**k in per_token]
        return VocabSizeCurve(
            sizes_drawn,
            [round(per_token[size], 4) for size in sizes_drawn],
            chosen,
            "by the mean length of a document (data.tokenizer.vocab_size_strategy=length)",
        )


def count(tokenizer: Tokenizer, texts: Sequence[str]) -> _Counts:
    """Token counts of texts, and their bytes."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for start in range(0, len(texts), CHUNK):
        for ids in tokenizer.encode_documents(texts[start : start + CHUNK]):
            counts += np.bincount(ids, minlength=len(counts))
    return {"counts": counts.tolist(), "bytes": sum(len(text.encode()) for text in texts)}


def _check(content: _Content, size: int, auto: bool, path: Path) -> None:
    """Raises DataError unless the content is a BPE of at most `size` tokens, with the counts that `auto` needs."""
    tokenizer = _tokenizer(content["tokenizer"], path)
    if content["tokenizer"]["model"].get("type") != "BPE" or tokenizer.vocab_size > size or tokenizer.eos_id is None:
        raise DataError(f"{path}: expected a byte-level BPE of at most {size} tokens")
    counts = [content[name]["counts"] for name in ("seen", "held") if name in content]
    if auto and (len(counts) < 2 or "by_length" not in content or {*map(len, counts)} != {tokenizer.vocab_size}):
        raise DataError(f"{path}: expected a count for each of {tokenizer.vocab_size} tokens")


def _tokenizer(file: dict[str, Any], path: Path) -> Tokenizer:
    try:
        return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(file)))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"{path}:1:1: is not a tokenizer: {str(error).splitlines()[0][:200]}") from None
