"""Byte-level BPE by looking words up: most words of a text were seen before, so their merges need not be found again.

The ids are those of the tokenizer itself. That holds where it cuts words by GPT-2's pattern, which the standard library
can only express for ASCII: other documents, and other tokenizers, take the tokenizer's own way.
"""

import json
import re
from collections.abc import Sequence
from itertools import chain

import numpy as np

from mlxlab.data.tokenizer import Tokenizer

# 's and the like, letters, digits, signs, white space: each but the last with the one space before it.
WORD = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII)
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
        words = {number: WORD.findall(text) for number, text in enumerate(texts) if text.isascii()}
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
        """None for what is not ASCII, or has a word that is not kept."""
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
