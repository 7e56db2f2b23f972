"""Tokenizers: byte-level BPE trained on texts, or that of a pretrained model."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from mlxlab.constraints import Ge, Le, Size
from mlxlab.data.tokenizers.byte_lengths import token_bytes
from mlxlab.errors import DataError, InputNotFoundError

PAD, BOS, EOS, MASK = "<pad>", "<bos>", "<eos>", "<mask>"  # ids 0..3; bytes need no <unk>
SPECIAL_NAMES = {  # of several model families
    "pad": (PAD, "[PAD]", "<|padding|>", "<|pad|>", "<|endoftext|>", "</s>", "<|im_end|>"),
    "bos": (BOS, "[CLS]", "<s>", "<|begin_of_text|>", "<|im_start|>", "<|endoftext|>"),
    "eos": (EOS, "[SEP]", "</s>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"),
    "mask": (MASK, "[MASK]", "<|mask|>"),
}


class Tokenizer:
    """A tokenizer and its special ids: `bos_id` starts a text and `eos_id` ends it (BERT's [CLS] and [SEP])."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True  # a "<pad>" inside a text is text
        self.inner = inner
        self.vocab_size = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        self.pad_id = self._special("pad") or 0
        self.bos_id = self._special("bos")
        self.eos_id = self._special("eos")
        self.mask_id = self._special("mask")
        self.fingerprint = hashlib.sha256(self._json().encode()).hexdigest()[:16]
        self.alphabet = _alphabet(self._json())

    @cached_property
    def token_bytes(self) -> tuple[int, ...]:
        """Bytes of UTF-8 by token id; empty where they do not sum to the bytes of a text, see `token_bytes`."""
        return token_bytes(self.inner, self.alphabet)

    @property
    def end_id(self) -> int:
        """The id of the token after every document.

        Raises:
            DataError: there is none.
        """
        if self.eos_id is None:
            raise DataError("the tokenizer has no end token (<eos>, [SEP], </s>, <|endoftext|>) to separate documents")
        return self.eos_id

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids; with `special` between the start and end tokens.

        Raises:
            DataError: a character that the tokenizer cannot encode.
        """
        self._check([text])
        return self.inner.encode(text, add_special_tokens=special).ids

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
        """int32 ids of each text with start and end tokens, truncated to `max_length` (the end token stays)."""
        self._check(texts)
        encoded = [np.array(encoding.ids, np.int32) for encoding in self.inner.encode_batch_fast(list(texts))]
        return [ids if len(ids) <= max_length else np.append(ids[: max_length - 1], ids[-1]) for ids in encoded]

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each whole text, without special tokens. Raises DataError as `encode` does."""
        self._check(texts)
        encoded = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """The text, without special tokens."""
        return self.inner.decode([int(token) for token in ids], skip_special_tokens=True)

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


def _alphabet(text: str) -> frozenset[str] | None:
    """The characters of a character tokenizer; None if it has bytes, merges or an unknown token."""
    model = json.loads(text)["model"]
    if model.get("merges") != [] or model.get("byte_fallback") or model.get("unk_token") or '"ByteLevel"' in text:
        return None
    return frozenset(piece for piece in model["vocab"] if len(piece) == 1)


class ByteLevelBPE:
    """Trains a byte-level BPE (Sennrich 2016, Radford 2019): any text is encoded, and decoded to itself."""

    def __init__(self, vocab_size: Annotated[int, Ge(260), Le(1_000_000)], min_frequency: Size) -> None:
        """
        Args:
            vocab_size: maximum number of tokens: 4 special ones, 256 bytes, and merges.
            min_frequency: minimum number of occurrences of a pair that is merged.
        """
        self.vocab_size, self.min_frequency = vocab_size, min_frequency

    def train(self, texts: Iterable[str]) -> Tokenizer:
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=[PAD, BOS, EOS, MASK],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        ends = [(BOS, inner.token_to_id(BOS)), (EOS, inner.token_to_id(EOS))]
        inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=ends)
        return Tokenizer(inner)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads the tokenizer.json of a folder.

    Raises:
        InputNotFoundError: no such file.
        DataError: the file is malformed.
    """
    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputNotFoundError(
            f"{path}: {error.strerror}; expected the tokenizer in the folder of the model"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}:1:1: is not UTF-8") from None
    try:
        return Tokenizer(tokenizers.Tokenizer.from_str(text))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"{path}:1:1: is not a tokenizer: {str(error).splitlines()[0][:200]}") from None
