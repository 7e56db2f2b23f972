"""A tokenizer with one token for every character of a corpus."""

from dataclasses import dataclass
from typing import Literal

import tokenizers
from tokenizers import decoders, models, processors

from mlxlab.constraints import Size
from mlxlab.data.cache import content_key
from mlxlab.data.tokenizers.fit import (
    Corpus,
    FittedTokenizer,
    cached_json,
    existing_tokenizer,
    sample_texts,
)
from mlxlab.data.tokenizers.tokenizer import BOS, EOS, MASK, PAD, Tokenizer
from mlxlab.errors import DataError


@dataclass(frozen=True)
class CharTokenizerTrainer:
    """The four special tokens, then the characters of the corpus in the order of their code points.

    Args:
        on_unknown: for a character that is not in the sample: `bytes` encodes it as bytes, which adds 256 tokens;
            `error` ends the run (exit 65).
        train_examples: number of documents to collect characters from.
        path: a tokenizer.json, or a folder with one, to use instead.
        force_retrain: ignore the cache.
    """

    on_unknown: Literal["bytes", "error"]
    train_examples: Size
    path: str | None
    force_retrain: bool

    def fit(self, corpus: Corpus) -> FittedTokenizer:
        """As `BPETokenizerTrainer.fit`; the size follows from the corpus alone."""
        if existing := existing_tokenizer(self.path, corpus.pretrained):
            return existing
        key = content_key(
            corpus=corpus.key, on_unknown=self.on_unknown, examples=self.train_examples, format=3
        )
        characters, origin = cached_json(
            corpus.cache / "tokenizers" / f"characters-{key}.json",
            list[str],
            lambda: sorted(set().union(*sample_texts(corpus.texts, self.train_examples))),
            _check,
            read=not self.force_retrain,
        )
        pieces = [PAD, BOS, EOS, MASK, *characters]
        pieces += [f"<0x{byte:02X}>" for byte in range(256)] if self.on_unknown == "bytes" else []
        vocabulary = {piece: token for token, piece in enumerate(pieces)}
        inner = tokenizers.Tokenizer(
            models.BPE(vocabulary, [], byte_fallback=self.on_unknown == "bytes")
        )
        inner.add_special_tokens([PAD, BOS, EOS, MASK])
        inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        ends = [(BOS, vocabulary[BOS]), (EOS, vocabulary[EOS])]
        inner.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A {EOS}", special_tokens=ends
        )
        more = "special ones and bytes" if self.on_unknown == "bytes" else "special ones"
        line = f"tokenizer {origin}: {len(characters):,} characters, {len(pieces):,} tokens with {more}"
        return FittedTokenizer(Tokenizer(inner), [line])


def _check(characters: list[str]) -> None:
    if (
        not characters
        or characters != sorted(set(characters))
        or any(len(character) != 1 for character in characters)
    ):
        raise DataError("expected distinct characters in order")
