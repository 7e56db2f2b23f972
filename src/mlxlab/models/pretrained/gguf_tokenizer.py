"""Converts the tokenizer of a GGUF file to the `tokenizers` library."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from mlxlab.data.tokenizers.tokenizer import SPACE, refuse_malformed
from mlxlab.errors import ConfigError, DataError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # kinds of tokens
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    "llama-bpe": [
        pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
}
# Finding the merges of a SentencePiece model takes time quadratic in the length of a token.
MAX_TOKEN_LENGTH = 1024  # characters
MAX_LENGTH = 2**23  # characters of all tokens together

Metadata = dict[str, Any]  # what `read_gguf` returns


def tokenizer_from(metadata: Metadata, path: Path) -> tokenizers.Tokenizer:
    """The tokenizer in the metadata of a GGUF file; `path` is for messages.

    Raises:
        DataError: the file has no tokenizer, or a malformed one.
        ConfigError: its kind is not supported.
    """
    converters = {"gpt2": _byte_level, "llama": _sentence_piece}
    kind = metadata.get("tokenizer.ggml.model")
    pieces = metadata.get("tokenizer.ggml.tokens")
    if kind is None or not pieces:
        raise DataError(f"{path}: has no tokenizer")
    if kind not in converters:
        expected = " or ".join(converters)
        raise ConfigError(
            f"model.pretrained={path}: expected a tokenizer of kind {expected}, got {kind}"
        )
    with refuse_malformed(path):
        lengths = [len(piece) for piece in pieces]
        if max(lengths) > MAX_TOKEN_LENGTH or sum(lengths) > MAX_LENGTH:
            expected = f"expected tokens of {MAX_TOKEN_LENGTH} characters, {MAX_LENGTH} in all"
            raise DataError(expected)
        inner = converters[kind](metadata, path)
        _add_tokens(inner, metadata)
        _add_ends(inner, metadata)
    return inner


def chat_template_from(metadata: Metadata) -> dict[str, str]:
    """The chat template of a GGUF file as files of a tokenizer's folder, by name."""
    template = metadata.get("tokenizer.chat_template")
    pieces = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(template, str) or not pieces:
        return {}
    tokens = {}
    for role in ("bos", "eos"):
        token = metadata.get(f"tokenizer.ggml.{role}_token_id")
        if token is not None:
            tokens[f"{role}_token"] = pieces[token]
    return {"chat_template.jinja": template, "tokenizer_config.json": json.dumps(tokens)}


def _add_tokens(inner: tokenizers.Tokenizer, metadata: Metadata) -> None:
    """Adds the tokens that a text is searched for before it is split."""
    pieces = metadata["tokenizer.ggml.tokens"]
    kinds = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(pieces)
    special = []
    user = []
    for piece, kind in zip(pieces, kinds, strict=True):
        if kind in (CONTROL, UNKNOWN):
            special.append(AddedToken(piece, special=True, normalized=False))
        elif kind == USER:
            user.append(AddedToken(piece, normalized=False))
    inner.add_special_tokens(special)
    inner.add_tokens(user)


def _add_ends(inner: tokenizers.Tokenizer, metadata: Metadata) -> None:
    """Puts start and end tokens around a text, as the file demands."""
    pieces = metadata["tokenizer.ggml.tokens"]
    by_default = {"bos": metadata["tokenizer.ggml.model"] == "llama", "eos": False}
    single = "$A"
    ends = []
    for role, default in by_default.items():
        token = metadata.get(f"tokenizer.ggml.{role}_token_id")
        if token is not None and metadata.get(f"tokenizer.ggml.add_{role}_token", default):
            piece = pieces[token]
            ends.append((piece, token))
            if role == "bos":
                single = f"{piece} {single}"
            else:
                single = f"{single} {piece}"
    if ends:
        inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)


def _byte_level(metadata: Metadata, path: Path) -> tokenizers.Tokenizer:
    kind = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind not in PRE_TOKENIZERS:
        expected = ", ".join(PRE_TOKENIZERS)
        raise ConfigError(
            f"model.pretrained={path}: expected a pre-tokenizer among {expected}, got {kind}"
        )
    vocabulary = {piece: token for token, piece in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ", 1)) for pair in metadata.get("tokenizer.ggml.merges", ())]
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=kind == "llama-bpe"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(PRE_TOKENIZERS[kind])
    inner.decoder = decoders.ByteLevel()
    return inner


def _sentence_piece(metadata: Metadata, path: Path) -> tokenizers.Tokenizer:
    """SentencePiece BPE: pairs are merged in descending order of the score of the merged piece."""
    pieces = metadata["tokenizer.ggml.tokens"]
    scores = metadata.get("tokenizer.ggml.scores")
    if not scores:
        raise DataError("the tokenizer's scores are missing")
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    pairs = []
    for piece, token in vocabulary.items():
        for middle in range(1, len(piece)):
            first = piece[:middle]
            second = piece[middle:]
            if first in vocabulary and second in vocabulary:
                order = (-scores[token], vocabulary[first], vocabulary[second])
                pairs.append((order, (first, second)))
    model = models.BPE(
        vocabulary,
        [pair for _, pair in sorted(pairs)],
        unk_token=pieces[metadata.get("tokenizer.ggml.unknown_token_id", 0)],
        fuse_unk=True,
        byte_fallback=True,
    )
    inner = tokenizers.Tokenizer(model)
    replaced = normalizers.Replace(" ", SPACE)
    decoded = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        inner.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replaced])
        inner.decoder = decoders.Sequence([*decoded, decoders.Strip(" ", 1, 0)])
    else:
        inner.normalizer = normalizers.Sequence([replaced])
        inner.decoder = decoders.Sequence(decoded)
    return inner
