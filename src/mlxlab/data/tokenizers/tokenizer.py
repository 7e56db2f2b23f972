"""A tokenizer of the `tokenizers` library with its special ids, alphabet and bytes per token."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import read_text

PAD, BOS, EOS, MASK = "<pad>", "<bos>", "<eos>", "<mask>"  # Bytes need no <unk>.
SPECIAL = [PAD, BOS, EOS, MASK]  # ids 0 to 3
SPECIAL_NAMES = {  # names in several model families
    "pad": (PAD, "[PAD]", "<|padding|>", "<|pad|>", "<|endoftext|>", "</s>", "<|im_end|>"),
    "bos": (BOS, "[CLS]", "<s>", "<|begin_of_text|>", "<|im_start|>", "<|endoftext|>"),
    "eos": (EOS, "[SEP]", "</s>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"),
    "mask": (MASK, "[MASK]", "<|mask|>"),
}
MAX_BYTES = 64 * 2**20
MAX_VOCAB_SIZE = 2**23  # Arrays have this size; an id may be up to 2^32 - 1 in a tokenizer.json.
SPACE = "\u2581"  # a space in SentencePiece
ONE_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # a byte fallback token of SentencePiece
STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")  # keys of a tokenizer.json
MAX_GROWTH = 64  # Known models reach 18: a ligature that NFKC spells out.
PROBES = (  # texts that show whether the bytes of tokens sum to those of a text
    "plain words, 12 of them.",
    " leading and  double spaces\n\ttabs\r\n",
    "Zo\u00eb \u2603 \U0001f6a2 na\u00efve",
    "CamelCase",
)


class Tokenizer:
    """A tokenizer and its special ids.

    `bos_id` starts a text and `eos_id` ends it (BERT's [CLS] and [SEP]).
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True  # A "<pad>" inside a text is text.
        self.inner = inner
        self.vocab_size = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise DataError(f"expected at most {MAX_VOCAB_SIZE} tokens, got id {self.vocab_size}")
        self.pad_id = self._special("pad") or 0
        self.bos_id = self._special("bos")
        self.eos_id = self._special("eos")
        self.mask_id = self._special("mask")
        file = json.loads(inner.to_str())
        self._words = WordCache(inner, file)
        text = json.dumps(file, ensure_ascii=False, sort_keys=True)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.alphabet = _alphabet(file, text)  # characters of a character tokenizer; None: any

    @cached_property
    def token_bytes(self) -> tuple[int, ...]:
        """Bytes of UTF-8 by token id, 0 for special tokens.

        Over the tokens of a text they sum to its bytes, for losses per byte, which compare runs
        with different vocabularies. Empty where that does not hold (WordPiece drops spaces, some
        SentencePiece models add one), so that no wrong metric is reported. If the tokenizer
        normalizes text, the bytes are those of the normalized text.
        """
        file = json.loads(self.inner.to_str())
        by_bytes = '"ByteLevel"' in json.dumps(file["decoder"])
        sizes = [0] * self.vocab_size
        for piece, token in self.inner.get_vocab(with_added_tokens=True).items():
            size = _utf8_length(piece)
            if by_bytes:
                size = len(piece)
            elif ONE_BYTE.fullmatch(piece):
                size = 1
            sizes[token] = size
        for added in file["added_tokens"]:
            sizes[added["id"]] = 0 if added["special"] else _utf8_length(added["content"])
        for text in PROBES:
            if self.alphabet is not None:
                text = "".join(char for char in text if char in self.alphabet)
            ids = self.encode(text, special=False)
            if sum(sizes[token] for token in ids) != len(text.encode()):
                return ()
        return tuple(sizes)

    @property
    def end_id(self) -> int:
        """The id of the token after every document; raises DataError if there is none."""
        if self.eos_id is None:
            names = ", ".join(SPECIAL_NAMES["eos"])
            raise DataError(f"the tokenizer has no token to end documents, expected one of {names}")
        return self.eos_id

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids, with `special` between start and end tokens.

        Raises DataError for a character it cannot encode.
        """
        self._check([text])
        return self.inner.encode(text, add_special_tokens=special).ids

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
        """int32 ids of each text with start and end tokens.

        They are truncated to `max_length`; the end token stays.
        """
        self._check(texts)
        encoded = []
        for encoding in self.inner.encode_batch_fast(list(texts)):
            ids = np.array(encoding.ids, np.int32)
            if len(ids) > max_length:
                ids = np.append(ids[: max_length - 1], ids[-1])
            encoded.append(ids)
        return encoded

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each whole text, without special ones. Raises DataError as `encode`."""
        self._check(texts)
        return self._words.encode(texts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text, without special tokens."""
        return self.inner.decode(list(map(int, ids)), skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json in the format of Hugging Face."""
        (folder / "tokenizer.json").write_text(self.inner.to_str(), encoding="utf-8")

    def _special(self, role: str) -> int | None:
        for name in SPECIAL_NAMES[role]:
            token = self.inner.token_to_id(name)
            if token is not None:
                return token
        return None

    def _check(self, texts: Sequence[str]) -> None:
        if self.alphabet is None:
            return
        for text in texts:
            unknown = set(text) - self.alphabet
            if unknown:
                first = min(unknown, key=text.index)
                known = f"expected one of {len(self.alphabet)} (data.tokenizer.on_unknown=bytes)"
                raise DataError(f"the character {first!r} (U+{ord(first):04X}): {known}")


# Contractions, letters, digits, punctuation, white space, as GPT-2's pattern splits them.
LETTER = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f"
BLANK = r" \t\n\r\x0b\x0c"
WORD = re.compile(
    rf"'(?:[stmd]|re|ve|ll)| ?[{LETTER}]+| ?[0-9]+| ?[^{BLANK}{LETTER}0-9]+"
    rf"|[{BLANK}]+(?![^{BLANK}])|[{BLANK}]+"
)
# Text that `WORD` may split.
COVERED = re.compile(rf"[\x00-\x7f{LETTER}\u2010-\u2027\u2030-\u205e]*")
MAX_WORDS = 2**17  # About 30 MB; those of the current texts come on top.
MAX_WORD_LENGTH = 64  # characters; longer words are not cached


class WordCache:
    """Encodes texts with a cache of the tokens of words, in a third of the library's time.

    The tokenizer must split words by GPT-2's pattern, which `re` can express for Latin letters and
    common punctuation; texts with other characters, and those of other tokenizers, are not split.
    """

    def __init__(self, inner: tokenizers.Tokenizer, file: dict[str, Any]) -> None:
        self.inner = inner
        self.is_usable = _splits_like_gpt2(file)
        self.ids: dict[str, Sequence[int]] = {}

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each text."""
        words = [self._split(text) for text in texts]
        ids = self._ids_of(set[str]().union(*words))
        tokens = [chain.from_iterable(map(ids.__getitem__, each)) for each in words]
        return [np.fromiter(each, np.int32) for each in tokens]

    def _split(self, text: str) -> list[str]:
        """The words of a text; one that cannot be split here is a word."""
        if self.is_usable and COVERED.fullmatch(text):
            return WORD.findall(text)
        return [text]

    def _ids_of(self, words: set[str]) -> dict[str, Sequence[int]]:
        """The ids of these words, perhaps of others too; short ones are cached."""
        ids = self.ids
        new = list(words - ids.keys())
        encodings = self.inner.encode_batch_fast(new, add_special_tokens=False)
        encoded = {word: tuple(each.ids) for word, each in zip(new, encodings, strict=True)}
        short = {word: each for word, each in encoded.items() if len(word) <= MAX_WORD_LENGTH}
        ids.update(short)
        if len(ids) > MAX_WORDS:
            self.ids = {}
        return ids if len(short) == len(new) else ids | encoded


def _splits_like_gpt2(file: dict[str, Any]) -> bool:
    """True for a BPE that splits the raw text by GPT-2's pattern, and does nothing else to it."""
    splitter = file["pre_tokenizer"] or {}
    expected = {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}
    splits_words = expected.items() <= splitter.items()
    changes_text = file["normalizer"] is not None
    has_texts = not all(token["special"] for token in file["added_tokens"])
    if not splits_words or changes_text or has_texts:
        return False
    model = file["model"]
    return model["type"] == "BPE" and not model.get("dropout")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads the tokenizer.json of a folder. Raises InputNotFoundError or DataError."""
    path = folder / "tokenizer.json"
    return parse_tokenizer(read_text(follow_link(path), max_bytes=MAX_BYTES), path)


def follow_link(path: Path) -> Path:
    """Where a file of a model is, which may be a link as in a snapshot of the hub; no link of a run."""
    is_run = (path.parent / "config.yaml").exists()
    return path if is_run else Path(os.path.realpath(path))


def parse_tokenizer(text: str, path: Path) -> Tokenizer:
    """Raises DataError, naming `path`, unless `text` is a tokenizer.json."""
    with refuse_malformed(path):
        check_growth(json.loads(text))
        return Tokenizer(tokenizers.Tokenizer.from_str(text))


def check_growth(file: Any) -> None:
    """Raises DataError if a text could become more than 64 times as long.

    The steps of a stranger's tokenizer.json run one after the other, and each may replace a character
    by many: a few dozen of them make more text than memory holds, at which the library aborts.
    """
    if not isinstance(file, dict):
        raise DataError("expected an object")
    for key in STEPS:
        growth = _growth(file.get(key))
        if growth > MAX_GROWTH:
            raise DataError(f"{key}: lengthens texts {growth:.3g} times, expected {MAX_GROWTH}")


def _growth(step: Any) -> float:
    """How many characters a step, or a sequence of steps, makes of one, at most."""
    match step:
        case {"type": "Sequence"}:  # The steps are called `normalizers`, `decoders` and so on.
            lists = [inner for inner in step.values() if isinstance(inner, list)]
            return prod(map(_growth, chain.from_iterable(lists)))
        case {"type": "Replace", "pattern": {"String": str(literal)}, "content": str(content)}:
            return max(1.0, len(content) / max(len(literal), 1))
        case {"type": "Replace", "content": str(content)}:
            return 1.0 + len(content)  # A regular expression matches between characters too.
        case {"type": "Precompiled", "precompiled_charsmap": str(charsmap)}:
            table = base64.b64decode(charsmap)
            # It holds the size of a trie, the trie, and texts that end in NUL.
            texts = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
            return max(len(text.decode("utf-8", "replace")) for text in texts)
        case {"type": "TemplateProcessing", "single": list(pieces)}:
            # It may repeat the text, and have tokens of its own.
            tokens = step["special_tokens"].values()
            return len(pieces) + sum(len(token["ids"]) for token in tokens)
        case {"type": "ByteLevel"}:
            return 2.0  # A byte becomes a character of up to two bytes.
    return 1.0


@contextmanager
def refuse_malformed(path: Path) -> Iterator[None]:
    """Turns whatever a file with a malformed tokenizer raises into a DataError that names it."""
    try:
        yield
    except (KeyboardInterrupt, ConfigError):
        raise
    except BaseException as error:  # The library raises nothing narrower, and panics.
        lines = str(error).splitlines() or [type(error).__name__]
        raise DataError(f"{path}: is not a tokenizer: {lines[0][:200]}") from None


def _alphabet(file: dict[str, Any], text: str) -> frozenset[str] | None:
    """The characters that a character tokenizer knows; None for a tokenizer that reads all."""
    model = file["model"]
    reads_others = model.get("byte_fallback") or model.get("unk_token") or '"ByteLevel"' in text
    if model.get("merges") != [] or reads_others:
        return None
    return frozenset(piece for piece in model["vocab"] if len(piece) == 1)


def _utf8_length(piece: str) -> int:
    return len(piece.replace(SPACE, " ").encode())
