"""A tokenizer of the `tokenizers` library with its special ids, alphabet and bytes per token."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers

from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import read_text

PAD, BOS, EOS, MASK = "<pad>", "<bos>", "<eos>", "<mask>"  # ids 0..3; bytes need no <unk>
SPECIAL_NAMES = {  # of several model families
    "pad": (PAD, "[PAD]", "<|padding|>", "<|pad|>", "<|endoftext|>", "</s>", "<|im_end|>"),
    "bos": (BOS, "[CLS]", "<s>", "<|begin_of_text|>", "<|im_start|>", "<|endoftext|>"),
    "eos": (EOS, "[SEP]", "</s>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"),
    "mask": (MASK, "[MASK]", "<|mask|>"),
}
MAX_BYTES = 64 * 2**20
SPACE = "\u2581"  # a space in SentencePiece
_ONE_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # a byte fallback token of SentencePiece
_PROBES = (  # texts that show whether the bytes of tokens sum to those of a text
    "plain words, 12 of them.",
    " leading and  double spaces\n\ttabs\r\n",
    "Zo\u00eb \u2603 \U0001f6a2 na\u00efve",
    "CamelCase",
)


class Tokenizer:
    """A tokenizer and its special ids: `bos_id` starts a text and `eos_id` ends it (BERT's [CLS] and [SEP]).

    All ids are those of `vocabulary`, if there is one; `original` is the same tokenizer without it.
    """

    vocabulary: VocabularyMap | None = None

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True  # a "<pad>" inside a text is text
        self.inner, self.original = inner, self
        self.vocab_size = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        self.pad_id = self._special("pad") or 0
        self.bos_id, self.eos_id, self.mask_id = (
            self._special("bos"),
            self._special("eos"),
            self._special("mask"),
        )
        text = self._json()
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        model = json.loads(text)["model"]
        characters = frozenset(piece for piece in model["vocab"] if len(piece) == 1)
        reads_all = (
            model.get("merges") != [] or model.get("byte_fallback") or model.get("unk_token")
        )
        self.alphabet = (
            None if reads_all or '"ByteLevel"' in text else characters
        )  # of a character tokenizer

    @cached_property
    def token_bytes(self) -> tuple[int, ...]:
        """Bytes of UTF-8 by original token id, 0 for special tokens: over the tokens of a text they sum to its bytes.

        For losses per byte, which compare runs with different vocabularies. Empty where it does not hold (WordPiece
        drops spaces, some SentencePiece models add one), so that no wrong metric is reported. If the tokenizer
        normalizes text, the bytes are those of the normalized text.
        """
        file = json.loads(self.inner.to_str())
        by_bytes = '"ByteLevel"' in json.dumps(file["decoder"])
        sizes = [0] * self.original.vocab_size
        for piece, token in self.inner.get_vocab(with_added_tokens=True).items():
            sizes[token] = (
                len(piece) if by_bytes else 1 if _ONE_BYTE.fullmatch(piece) else _utf8_length(piece)
            )
        for added in file["added_tokens"]:
            sizes[added["id"]] = 0 if added["special"] else _utf8_length(added["content"])
        probes = [
            "".join(c for c in text if self.alphabet is None or c in self.alphabet)
            for text in _PROBES
        ]
        exact = all(
            sum(sizes[i] for i in self.original.encode(text, special=False)) == len(text.encode())
            for text in probes
        )
        return tuple(sizes) if exact else ()

    @property
    def end_id(self) -> int:
        """The id of the token after every document; raises DataError if there is none."""
        if self.eos_id is None:
            raise DataError(
                "the tokenizer has no end token (<eos>, [SEP], </s>, <|endoftext|>) to separate documents"
            )
        return self.eos_id

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids, with `special` between start and end tokens; raises DataError for a character it cannot encode."""
        self._check([text])
        return self.remap(self.inner.encode(text, add_special_tokens=special).ids)

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
        """int32 ids of each text with start and end tokens, truncated to `max_length` (the end token stays)."""
        self._check(texts)
        encodings = self.inner.encode_batch_fast(list(texts))
        encoded = [np.array(self.remap(encoding.ids), np.int32) for encoding in encodings]
        return [
            ids if len(ids) <= max_length else np.append(ids[: max_length - 1], ids[-1])
            for ids in encoded
        ]

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each whole text, without special tokens. Raises DataError as `encode` does."""
        self._check(texts)
        encoded = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(self.remap(encoding.ids), np.int32) for encoding in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """The text, without special tokens; the rare id of a `vocabulary` has none."""
        original = (
            self.vocabulary.restore(ids) if self.vocabulary else [int(token) for token in ids]
        )
        return self.inner.decode(original, skip_special_tokens=True)

    def remap(self, ids: list[int]) -> list[int]:
        """Original ids as those of `vocabulary`, if there is one."""
        return ids if self.vocabulary is None else self.vocabulary.forward[ids].tolist()

    def restricted(self, vocabulary: VocabularyMap) -> "Tokenizer":
        """This tokenizer with the ids of a map, which keeps all special tokens."""
        result = copy(self)
        result.vocabulary, result.vocab_size, result.fingerprint = (
            vocabulary,
            vocabulary.size,
            vocabulary.fingerprint,
        )
        roles = ("bos_id", "eos_id", "mask_id")
        ids = {
            role: None if (token := vars(self)[role]) is None else int(vocabulary.forward[token])
            for role in roles
        }
        vars(result).update(ids, pad_id=int(vocabulary.forward[self.pad_id]))
        return result

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Original ids of the special tokens; without a padding token also the id that pads."""
        original = self.original
        roles = (original.pad_id, original.bos_id, original.eos_id, original.mask_id)
        added = self.inner.get_added_tokens_decoder()
        special = {token for token, content in added.items() if content.special}
        return frozenset(special.union(token for token in roles if token is not None))

    @property
    def token_names(self) -> list[str]:
        """What identifies each token to another tokenizer: its text, and for rare tokens also the map."""
        if self.vocabulary is None:
            return [str(self.inner.id_to_token(token)) for token in range(self.vocab_size)]
        names = [str(self.inner.id_to_token(int(token))) for token in self.vocabulary.core_ids]
        return [*names, f"the rare tokens of {self.fingerprint}"]

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json in the format of Hugging Face."""
        (folder / "tokenizer.json").write_text(self._json(), encoding="utf-8")

    def _special(self, role: str) -> int | None:
        ids = (self.inner.token_to_id(name) for name in SPECIAL_NAMES[role])
        return next((token for token in ids if token is not None), None)

    def _check(self, texts: Sequence[str]) -> None:
        if self.alphabet is None:
            return
        for text in texts:
            if unknown := set(text) - self.alphabet:
                first = min(unknown, key=text.index)
                raise DataError(
                    f"the character {first!r} (U+{ord(first):04X}) is not among the {len(self.alphabet)} of the"
                    " tokenizer; data.tokenizer.on_unknown=bytes encodes such characters as bytes"
                )

    def _json(self) -> str:
        return json.dumps(json.loads(self.inner.to_str()), ensure_ascii=False, sort_keys=True)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads the tokenizer.json of a folder; a link to one is followed, but not from the run folder of a stranger.

    Raises:
        InputNotFoundError: no such file.
        DataError: the file is malformed.
    """
    path = folder / "tokenizer.json"
    is_run = (folder / "config.yaml").exists()
    try:
        text = read_text(path if is_run else Path(os.path.realpath(path)), max_bytes=MAX_BYTES)
    except InputNotFoundError:
        raise InputNotFoundError(
            f"{path}: not found; expected the tokenizer in the folder of the model"
        ) from None
    return parse_tokenizer(text, path)


def parse_tokenizer(text: str, path: Path) -> Tokenizer:
    """Raises DataError, naming `path`, unless `text` is a tokenizer.json."""
    try:
        return Tokenizer(tokenizers.Tokenizer.from_str(text))
    except (
        BaseException
    ) as error:  # the library raises nothing narrower, and its panics are no `Exception`
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise DataError(
            f"{path}:1:1: is not a tokenizer: {str(error).splitlines()[0][:200]}"
        ) from None


def _utf8_length(piece: str) -> int:
    return len(piece.replace(SPACE, " ").encode())
