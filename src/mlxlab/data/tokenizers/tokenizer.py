"""Text to token ids and back: byte-level BPE trained on the training rows, or a pretrained model's own tokenizer."""

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
KNOWN = {  # what other families call them
    "pad": (PAD, "[PAD]", "<|padding|>", "<|pad|>", "<|endoftext|>", "</s>", "<|im_end|>"),
    "bos": (BOS, "[CLS]", "<s>", "<|begin_of_text|>", "<|im_start|>", "<|endoftext|>"),
    "eos": (EOS, "[SEP]", "</s>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"),
    "mask": (MASK, "[MASK]", "<|mask|>"),
}


class Tokenizer:
    """A tokenizer and its special ids. `bos_id` starts a text and `eos_id` ends it (BERT's [CLS] and [SEP])."""

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
        """Bytes of UTF-8 by token id, see `token_bytes`; empty where tokens do not sum to texts."""
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
            DataError: a character that the tokenizer does not know, and cannot spell in bytes.
        """
        self._check([text])
        return self.inner.encode(text, add_special_tokens=special).ids

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
        """int32 ids of each text with start and end tokens, cut to `max_length` (the end token stays)."""
        self._check(texts)
        encoded = [np.array(one.ids, np.int32) for one in self.inner.encode_batch_fast(list(texts))]
        return [ids if len(ids) <= max_length else np.append(ids[: max_length - 1], ids[-1]) for ids in encoded]

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each whole text, without special tokens. Raises DataError as `encode` does."""
        self._check(texts)
        encoded = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, np.int32) for one in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """The text, without special tokens."""
        return self.inner.decode([int(token) for token in ids], skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json, as Hugging Face's libraries read it."""
        (folder / "tokenizer.json").write_text(self._json(), encoding="utf-8")

    def _special(self, role: str) -> int | None:
        ids = (self.inner.token_to_id(name) for name in KNOWN[role])
        return next((token for token in ids if token is not None), None)

    def _check(self, texts: Sequence[str]) -> None:
        if self.alphabet is None:
            return
        for text in texts:
            if unknown := set(text) - self.alphabet:
                first = min(unknown, key=text.index)
                raise DataError(
                    f"the character {first!r} (U+{ord(first):04X}) is none of the {len(self.alphabet)} that the"
                    " tokenizer knows; data.tokenizer.on_unknown=bytes encodes them as bytes"
                )

    def _json(self) -> str:
        return json.dumps(json.loads(self.inner.to_str()), ensure_ascii=False, sort_keys=True)


def _alphabet(text: str) -> frozenset[str] | None:
    """The characters of a tokenizer that knows nothing else; None of one that has bytes, words or an unknown token."""
    model = json.loads(text)["model"]
    if model.get("merges") != [] or model.get("byte_fallback") or model.get("unk_token") or '"ByteLevel"' in text:
        return None
    return frozenset(piece for piece in model["vocab"] if len(piece) == 1)


class ByteLevelBPE:
    """Trains a byte-level BPE (Sennrich 2016, Radford 2019): any text is encoded, and decoded to itself."""

    def __init__(self, vocab_size: Annotated[int, Ge(260), Le(1_000_000)], min_frequency: Size) -> None:
        """
        Args:
            vocab_size: tokens at most: 4 special ones, 256 bytes, and merges.
            min_frequency: a pair must be seen that often to be merged.
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
    """The tokenizer.json of a folder: ours, or that of a pretrained model.

    Raises:
        InputNotFoundError: there is none.
        DataError: it is not one.
    """
    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}; expected the tokenizer beside the model") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}:1:1: is not UTF-8") from None
    try:
        return Tokenizer(tokenizers.Tokenizer.from_str(text))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"{path}:1:1: is not a tokenizer: {str(error).splitlines()[0][:200]}") from None
