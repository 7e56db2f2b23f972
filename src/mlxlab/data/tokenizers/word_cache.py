"""Byte-level BPE by looking words up: most words of a text were seen before, so their merges need not be found again.

The ids are those of the tokenizer itself. That holds where it cuts words by GPT-2's pattern, which the standard library
can express for Latin letters and common punctuation (accents, curly quotes, dashes): documents with other signs, and
other tokenizers, take the tokenizer's own way.
"""

import json
import re
from collections.abc import Sequence
from itertools import chain

import numpy as np

from mlxlab.data.tokenizers.tokenizer import Tokenizer

# 's and the like, letters, digits, signs, white space: each but the last with the one space before it.
LETTER, SPACE = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f", r" \t\n\r\x0b\x0c"
KNOWN = re.compile(rf"[\x00-\x7f{LETTER}\u2010-\u2027\u2030-\u205e]*")  # signs of which it is known what they are
WORD = re.compile(
    rf"'(?:[stmd]|re|ve|ll)| ?[{LETTER}]+| ?[0-9]+| ?[^{SPACE}{LETTER}0-9]+|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]+"
)
WORDS = 2**17  # kept at most, those of the texts at hand aside: about 30 MB
LONGEST = 64  # characters of a word that is kept


class WordCache:
    """Encodes documents like `tokenizer.encode_documents`; remembers the tokens of words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.usable = cuts_words_alike(tokenizer)
        self.known: dict[str, Sequence[int]] = {}

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each whole text, without special tokens."""
        if not self.usable:
            return self.tokenizer.encode_documents(texts)
        words = {number: WORD.findall(text) for number, text in enumerate(texts) if KNOWN.fullmatch(text)}
        self._learn(set().union(*words.values()) - self.known.keys())
        found: list[np.ndarray | None] = [self._look_up(words.get(number)) for number in range(len(texts))]
        others = [number for number, ids in enumerate(found) if ids is None]
        encoded = iter(self.tokenizer.encode_documents([texts[number] for number in others]))
        return [next(encoded) if ids is None else ids for ids in found]

    def _learn(self, words: set[str]) -> None:
        some = sorted(word for word in words if len(word) <= LONGEST)
        if len(self.known) + len(some) > WORDS:
            self.known.clear()
        encoded = self.tokenizer.inner.encode_batch_fast(some, add_special_tokens=False)
        self.known.update((word, tuple(one.ids)) for word, one in zip(some, encoded, strict=True))

    def _look_up(self, words: list[str] | None) -> np.ndarray | None:
        """None for what was not cut, or has a word that is not kept."""
        if words is None:
            return None
        try:
            return np.fromiter(chain.from_iterable(map(self.known.__getitem__, words)), np.int32)
        except KeyError:
            return None


def cuts_words_alike(tokenizer: Tokenizer) -> bool:
    """Is it a BPE that cuts the bare text by GPT-2's pattern, and nothing else?"""
    parts = json.loads(tokenizer.inner.to_str())
    cutter, model = parts["pre_tokenizer"] or {}, parts["model"]
    return (
        parts["normalizer"] is None
        and model["type"] == "BPE"
        and not model.get("dropout")
        and (cutter.get("type"), cutter.get("add_prefix_space"), cutter.get("use_regex")) == ("ByteLevel", False, True)
        and all(token["special"] for token in parts["added_tokens"])
    )
