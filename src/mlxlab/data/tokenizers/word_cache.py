"""Speeds up byte-level BPE by caching the tokens of words (pre-tokens).

The ids are those of the tokenizer itself. It must split words by GPT-2's pattern, which the standard library can
express for Latin letters and common punctuation (accents, curly quotes, dashes); documents with other characters, and
other tokenizers, are encoded without the cache.
"""

import json
import re
from collections.abc import Sequence
from itertools import chain

import numpy as np

from mlxlab.data.tokenizers.tokenizer import Tokenizer

# Contractions, letters, digits, punctuation, white space: all but the first and last with one preceding space.
LETTER, SPACE = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f", r" \t\n\r\x0b\x0c"
COVERED = re.compile(
    rf"[\x00-\x7f{LETTER}\u2010-\u2027\u2030-\u205e]*"
)  # characters whose class is known
WORD = re.compile(
    rf"'(?:[stmd]|re|ve|ll)| ?[{LETTER}]+| ?[0-9]+| ?[^{SPACE}{LETTER}0-9]+|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]+"
)
MAX_WORDS = 2**17  # apart from those of the current texts: about 30 MB
MAX_WORD_LENGTH = 64  # in characters; longer words are not cached


class WordCache:
    """Encodes documents like `tokenizer.encode_documents`, with a cache of the tokens of words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.usable = splits_like_gpt2(tokenizer)
        self.cached: dict[str, Sequence[int]] = {}

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each whole text, without special tokens."""
        if not self.usable:
            return self.tokenizer.encode_documents(texts)
        splits = [WORD.findall(text) if COVERED.fullmatch(text) else None for text in texts]
        self._learn(
            set().union(*(pretokens for pretokens in splits if pretokens is not None))
            - self.cached.keys()
        )
        looked_up = [
            None if pretokens is None else self._look_up(pretokens) for pretokens in splits
        ]
        missing = [text for text, ids in zip(texts, looked_up, strict=True) if ids is None]
        encoded = iter(self.tokenizer.encode_documents(missing))
        return [next(encoded) if ids is None else ids for ids in looked_up]

    def _learn(self, pretokens: set[str]) -> None:
        new = sorted(word for word in pretokens if len(word) <= MAX_WORD_LENGTH)
        if len(self.cached) + len(new) > MAX_WORDS:
            self.cached.clear()
        encoded = self.tokenizer.inner.encode_batch_fast(new, add_special_tokens=False)
        self.cached.update(
            (word, tuple(encoding.ids)) for word, encoding in zip(new, encoded, strict=True)
        )

    def _look_up(self, pretokens: list[str]) -> np.ndarray | None:
        try:
            return np.fromiter(
                chain.from_iterable(map(self.cached.__getitem__, pretokens)), np.int32
            )
        except KeyError:  # a long word
            return None


def splits_like_gpt2(tokenizer: Tokenizer) -> bool:
    """True for a BPE that splits the raw text by GPT-2's pattern, and does nothing else to it."""
    file = json.loads(tokenizer.inner.to_str())
    splitter, model = file["pre_tokenizer"] or {}, file["model"]
    return (
        file["normalizer"] is None
        and model["type"] == "BPE"
        and not model.get("dropout")
        and (splitter.get("type"), splitter.get("add_prefix_space"), splitter.get("use_regex"))
        == ("ByteLevel", False, True)
        and all(token["special"] for token in file["added_tokens"])
    )
