"""Bytes of text per token, for losses per byte, which compare runs with different vocabularies."""

import json
import re
from collections.abc import Set

import tokenizers

PROBES = (
    "plain words, 12 of them.",
    " leading and  double spaces\n\ttabs\r\n",
    "Zo\u00eb \u2603 \U0001f6a2 na\u00efve",
    "CamelCase",
)
ONE_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # a byte fallback token of SentencePiece
SPACE = "\u2581"  # a space in SentencePiece


def token_bytes(inner: tokenizers.Tokenizer, alphabet: Set[str] | None = None) -> tuple[int, ...]:
    """Bytes of UTF-8 by token id, 0 for special tokens: over the tokens of a text they sum to its bytes.

    Empty where that does not hold (WordPiece drops spaces, some SentencePiece models add one), so that no wrong metric
    is reported. If the tokenizer normalizes text, the bytes are those of the normalized text.

    Args:
        alphabet: the characters that it can encode; None for all.
    """
    file = json.loads(inner.to_str())
    by_bytes = '"ByteLevel"' in json.dumps(file["decoder"])
    vocabulary = inner.get_vocab(with_added_tokens=True)
    sizes = [0] * (max(vocabulary.values()) + 1)
    for piece, token in vocabulary.items():
        sizes[token] = len(piece) if by_bytes else 1 if ONE_BYTE.fullmatch(piece) else _width(piece)
    for added in file["added_tokens"]:
        sizes[added["id"]] = 0 if added["special"] else _width(added["content"])
    probes = ["".join(character for character in text if alphabet is None or character in alphabet) for text in PROBES]
    exact = all(sum(sizes[i] for i in _ids(inner, text)) == len(text.encode()) for text in probes)
    return tuple(sizes) if exact else ()


def _ids(inner: tokenizers.Tokenizer, text: str) -> list[int]:
    return inner.encode(text, add_special_tokens=False).ids


def _width(piece: str) -> int:
    return len(piece.replace(SPACE, " ").encode())
